"""A paper that nobody wrote, as an experiment of a user's own, and the folder of its runs."""

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from genbench import records
from genbench.claims import registration
from tests.helpers import claims, factory

NAME = "nobody2020"

# twice as many runs as those of the claims
EXPERIMENT = (
    claims.HEAD.replace("name: shrinks", f"name: {NAME}")
    + """\
      data.label_noise: 0,0.5

table:
  title: Penalties shrink <weights>
  caption: MNIST-1D, 60 examples, 20 steps.
  rows: [regularization]
  columns:
    - {label: test accuracy (%), metric: test/performance/accuracy, where: {data.label_noise: 0}, scale: 100, digits: 1}
    - {label: norm, metric: weights/norm/l2, where: {data.label_noise: 0.5}}
  figures:
    - {name: norms, title: Norms, x: data.label_noise, y: weights/norm/l2}

paper:
  title: On *tiny* penalties & <weights>
  authors: A. Nobody and B. Noone
  year: 2020
  link: arXiv:2001.00001
  claimed: >-
    A squared penalty shrinks
    the weights.
  scaled_down:
    - MNIST-1D in place of a large data set.
  critiques:
    - {text: Norms say little about functions., source: Critic 2021}
  limits:
    - The data are fixed.
  tried: {grows: Nothing else was tried.}

claims:
  looks: [5, 10]
  pilots: [100]
  rules:
    shrinks:
      statement: A squared penalty shrinks the weights.
      source: Section 1
      _target_: genbench.claims.rules.Difference
      metric: weights/norm/l2
      of: {regularization: none, data.label_noise: 0}
      than: {regularization: l2, data.label_noise: 0}
      interest: 0.1
    grows:
      statement: A squared penalty lets the weights grow.
      _target_: genbench.claims.rules.Difference
      metric: weights/norm/l2
      of: {regularization: l2, data.label_noise: 0.5}
      than: {regularization: none, data.label_noise: 0.5}
    positive:
      statement: Norms are positive.
      _target_: genbench.claims.rules.Exact
      metric: weights/norm/l2
      of: {}
      over: {regularization: [none, l2], data.label_noise: [0, 0.5]}
      op: ">="
      than: 0
"""
)
AT_SCALE = """\
# @package _global_
# the same at the scale of the paper
defaults:
  - nobody2020

name: nobody2020_paper
data: {train_size: 4000}
hydra:
  sweeper:
    params:
      seed: range(10)
"""


def written(work: Path) -> Path:
    """Write the experiment at both scales into ``work/conf``; return the folder of experiments."""
    folder = work / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.yaml").write_text(EXPERIMENT)
    (folder / f"{NAME}_paper.yaml").write_text(AT_SCALE)
    return folder


def runs(folder: Path, *, seeds: int = 10, change: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """Leave the runs of the experiment in ``folder``, with made-up numbers; ``change`` alters a record, or has a run
    left out by returning False."""
    node = yaml.safe_load(EXPERIMENT)
    claims = registration.register({"claims": node["claims"]})["claims"]
    planned = []
    for seed, name, noise in itertools.product(range(seeds), ("none", "l2"), (0.0, 0.5)):
        item = record(seed, name, noise, claims["digest"])
        overrides = [f"seed={seed}", f"regularization={name}", f"data.label_noise={noise:g}"]
        planned.append({"run_id": item["run_id"], "overrides": overrides})
        if change is None or change(item) is not False:
            factory.leave(folder, item)
    nodes = {key: node[key] for key in ("table", "paper")}
    command = ["--config-dir", "conf", f"experiment={NAME}"]
    records.write_sweep(folder, {"experiment": NAME, "command": command, "claims": claims, **nodes, "runs": planned})
    return folder


def record(seed: int, name: str, noise: float, digest: str) -> dict[str, Any]:
    """Return the record of a run that trained in a pack of four for 8 seconds."""
    draw = random.Random(repr((seed, name, noise)))
    item = factory.record(name, noise, seed, experiment=NAME, history=None, notes={})
    item["metrics"]["weights/norm/l2"] = 9.0 + noise + draw.gauss(0, 0.1) - 0.9 * (name == "l2")
    finished = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=10 * seed)
    item["provenance"] |= {"claims": digest, "lanes": 4, "finished": finished.isoformat()}
    item["seconds"] = {"fit": 1.5, "measure": 0.5, "total": 2.0}
    return item
