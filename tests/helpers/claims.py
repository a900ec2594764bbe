"""Records of runs as decision rules read them, and drawn numbers in their place."""

import hashlib
import math

import numpy as np

from genbench.claims.numbers import Numbers
from genbench.claims.runs import ClaimRuns
from genbench.records import SCHEMA

ACCURACY = "test/performance/accuracy"
# an experiment of ten short runs
HEAD = """\
# @package _global_
defaults:
  - override /data: mnist1d
  - override /model: mlp
  - override /measures: norms
  - override /hydra/launcher: packed

name: shrinks
data: {train_size: 60, batch_size: 20}
trainer: {max_steps: 20, accelerator: cpu}

hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: range(5)
      regularization: none,l2
"""
# its table and three claims
EXPERIMENT = (
    HEAD
    + """
table:
  rows: [regularization]
  columns:
    - {label: norm, metric: weights/norm/l2}

claims:
  looks: [5, 10]
  pilots: [100]
  rules:
    shrinks:
      statement: A squared penalty shrinks the weights.
      source: Krogh and Hertz 1991
      _target_: genbench.claims.rules.Difference
      metric: weights/norm/l2
      of: {regularization: none}
      than: {regularization: l2}
    grows:
      statement: A squared penalty lets the weights grow.
      _target_: genbench.claims.rules.Difference
      metric: weights/norm/l2
      of: {regularization: l2}
      than: {regularization: none}
    positive:
      statement: Norms are positive.
      _target_: genbench.claims.rules.Exact
      metric: weights/norm/l2
      of: {}
      over: {regularization: [none, l2]}
      op: ">="
      than: 0
"""
)


def record(seed, metrics, *, status="completed", choices=None, **settings):
    """Return the record of a run; ``settings`` are those of the data, ``metrics`` may be the accuracy alone."""
    metrics = metrics if isinstance(metrics, dict) else {ACCURACY: metrics}
    config = {"data": {"seed": seed, **settings}, "trainer": {"max_steps": 100}, "seed": seed}
    name = repr((seed, sorted(settings.items()), choices))
    return {
        "schema": SCHEMA,
        "run_id": hashlib.sha256(name.encode()).hexdigest()[:12],
        "status": status,
        "error": None,
        "seed": seed,
        "config": config,
        "choices": choices or {"model": "mlp"},
        "metrics": metrics,
        "seconds": {"fit": 2.0},
    }


def sweep(**levels):
    """Return the records of a sweep along ``data.x``: ``x1=[...]`` is the accuracy of each seed; None: it diverged."""
    return [
        record(seed, value, x=int(level[1:]))
        if value is not None
        else record(seed, {}, status="diverged", x=int(level[1:]))
        for level, values in levels.items()
        for seed, value in enumerate(values)
    ]


def runs(*, seeds=None, **levels):
    return ClaimRuns(sweep(**levels), seeds)


def at(level):
    """Return the settings of a level of :func:`sweep`."""
    return {"data.x": level}


class Drawn:
    """Stands for the runs of ``n`` seeds: ``values[metric, level]`` holds a number for each, or with a second setting
    ``values[metric, level, other]``."""

    def __init__(self, values):
        self.values = values
        self.seeds = range(len(next(iter(values.values()))))

    def of(self, seeds):
        return Drawn({key: values[list(seeds)] for key, values in self.values.items()})

    def sample(self, metric, where, **_):
        other = [where["data.y"]] if "data.y" in where else []
        values = np.asarray(self.values[metric, where.get("data.x"), *other], dtype=np.float64)
        return Numbers(low=values, high=values, scale=float(np.abs(values[np.isfinite(values)]).max(initial=0)))


def assert_level_is_kept(ps, levels=(0.025, 0.05)):
    """p values of a true null hypothesis are at most a level as often as it says, within 3 Monte-Carlo errors."""
    ps = np.array([1.0 if p is None else p for p in ps])
    for level in levels:
        share = float((ps <= level).mean())
        assert share <= level + 3 * math.sqrt(level * (1 - level) / len(ps)), (level, share)
