"""A paper that nobody wrote, as an experiment of a user's own, and the folder of its runs."""

from pathlib import Path

NAME = "nobody2020"
METRIC = "test/performance/accuracy"

EXPERIMENT = """\
# @package _global_
# does a tiny penalty shrink tiny weights?
defaults:
  - override /data: mnist1d
  - override /model: mlp
  - override /measures: norms
  - override /hydra/launcher: packed

name: nobody2020
data: {train_size: 60, batch_size: 20}
trainer: {max_steps: 20, accelerator: cpu}

hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: range(5)
      regularization: none,l2
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
