"""Rows that keep a ranking honest: measures whose worth is known."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked_gap, configurations
from genbench.analysis.prediction import predicted
from genbench.analysis.shared_seeds import SeedEffects, seed_codes

if TYPE_CHECKING:
    import pandas as pd

RANDOM = "random numbers"
ORACLE = "noisy oracle"
SEEDS = "gap of the other seeds"
HYPERPARAMETERS = "hyperparameters alone"
_OWN = 2020


def controls(
    frame: "pd.DataFrame", *, gap: str, hyperparameters: Sequence[str], seeds: str | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """What a measure is to be held against, a number a run:

    - ``hyperparameters alone``: the gap as the hyperparameters predict it, of configurations that were left out
      (:func:`genbench.analysis.prediction.predicted`), one number if they predict nothing. A measure that ranks no
      better tells nothing new.
    - ``gap of the other seeds``: the mean gap of the other runs of the configuration, which is what training it again
      would tell. It has the noise of those few seeds, so that a measure may do better. Of configurations with two runs
      or more. Where seeds recur (``seeds``), gaps are less what their seed does to all: seeds of one train set move the
      gaps of all configurations together, and the others of a configuration lack the seed that moves a run's own.
    - ``noisy oracle``: the gap with normal noise as large as that of seeds (the pooled standard deviation within
      configurations), or without replicates half the standard deviation of the gap.
    - ``random numbers``: normal ones.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        hyperparameters: columns whose values name a configuration.
        seeds: the column of the seed, if one seed means the same data or weights in several configurations.
        seed: of noise, random numbers and folds.
    """
    g, configuration = checked_gap(frame, gap), configurations(frame, hyperparameters)
    random = np.random.default_rng([seed, _OWN])  # the numbers of seed alone may have made the runs
    sizes, sums = np.bincount(configuration), np.bincount(configuration, g)
    found = {HYPERPARAMETERS: predicted(frame, gap=gap, hyperparameters=hyperparameters, seed=seed)}
    replicated = sizes[configuration] > 1
    noise = float(g.std()) / 2
    if replicated.any():
        own = g
        if seeds is not None:
            own = SeedEffects(seed_codes(frame, seeds, hyperparameters), configuration, np.ones_like(g, bool)).less(g)
        others = np.full(len(g), math.nan)
        rest = np.bincount(configuration, own)[configuration] - own
        np.divide(rest, sizes[configuration] - 1, out=others, where=replicated)
        found[SEEDS] = others
        inside = g - (sums / sizes)[configuration]
        noise = math.sqrt(float(inside @ inside) / (len(g) - len(sizes))) or noise
    found[ORACLE] = g + noise * random.standard_normal(len(g))
    found[RANDOM] = random.standard_normal(len(g))
    return found


def reliability(values: np.ndarray, configuration: np.ndarray) -> float:
    """The share of the variance of a measure's ranks that configurations make, not seeds: the intraclass correlation of
    one run, (A − W) / (A + (m − 1) W), A and W the mean squares among and within configurations, m their mean size
    without the unevenness. NaN without replicates, and of a constant."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    if not known.any():
        return math.nan
    ranks = rankdata(values[known])
    _, own = np.unique(configuration[known], return_inverse=True)
    sizes = np.bincount(own)
    count, groups = len(ranks), len(sizes)
    if groups < 2 or count == groups:
        return math.nan
    means = np.bincount(own, ranks) / sizes
    among = float(sizes @ (means - ranks.mean()) ** 2) / (groups - 1)
    within = float(((ranks - means[own]) ** 2).sum()) / (count - groups)
    size = (count - float(sizes @ sizes) / count) / (groups - 1)
    total = among + (size - 1) * within
    return (among - within) / total if total > 0 else math.nan
