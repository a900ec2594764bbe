"""Seeds that mean the same in several configurations: one split, one set of wrong labels, initial weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.statistics import ROUNDING
from genbench.checks import nearest

if TYPE_CHECKING:
    import pandas as pd


def seed_codes(frame: "pd.DataFrame", seeds: str, hyperparameters: Sequence[str]) -> np.ndarray:
    """A number for the seed of each run; that of no seed is one too.

    Raises:
        ValueError: a column that is not there; two runs of one configuration and seed.
    """
    if seeds not in frame:
        raise ValueError(f"column is {seeds!r}; {nearest(str(seeds), [*map(str, frame.columns)])}")
    twice = frame.duplicated([*hyperparameters, seeds])
    if twice.any():
        raise ValueError(
            f"{seeds} is {frame[seeds][twice].iloc[0]!r} in two runs of a configuration; accepted: one run a seed"
        )
    return frame.groupby(seeds, dropna=False).ngroup().to_numpy()


class SeedEffects:
    """What each seed does to the value of a run, whatever its configuration, as some of the runs tell it.

    Least squares of their values on a number a configuration and a number a seed. Seeds are compared within
    configurations alone, so that a seed with the easier ones is not taken for better. The effects of seeds that
    configurations compare, directly or through others, sum to 0. Of a seed that is compared with none it is 0.
    """

    def __init__(self, seeds: np.ndarray, configuration: np.ndarray, known: np.ndarray) -> None:
        """Codes of seed and configuration of each run [N], each pair of them once, and which runs tell [N]."""
        from scipy.sparse.csgraph import connected_components

        rows, alone = np.flatnonzero(known), np.ones(1, dtype=bool)
        while alone.any():  # the only run of a seed or configuration tells that alone, and compares nothing
            alone = np.zeros(len(rows), dtype=bool)
            for of in (seeds[rows], configuration[rows]):
                alone |= np.bincount(of, minlength=1)[of] < 2
            rows = rows[~alone]
        self.seeds, self.rows = seeds, rows
        self.names, self.own = np.unique(seeds[rows], return_inverse=True)
        _, self.configuration, self.sizes = np.unique(configuration[rows], return_inverse=True, return_counts=True)
        there = np.zeros((len(self.sizes), len(self.names)))
        there[self.configuration, self.own] = 1
        within = np.diag(there.sum(0)) - there.T @ (there / self.sizes[:, None])
        linked = connected_components(within)[1] if len(rows) else np.empty(0, dtype=int)
        self.inverse = np.linalg.inv(within + (linked[:, None] == linked))

    def told(self) -> np.ndarray:
        """Which runs have a seed that is compared with another one [N]."""
        return np.isin(self.seeds, self.names)

    def less(self, values: np.ndarray) -> np.ndarray:
        """Values [N] less the effects of their seeds; equal ones that differ by rounding are one number."""
        if not len(self.rows):
            return values
        part, effects = values[self.rows], np.zeros(self.seeds.max() + 1)
        means = np.bincount(self.configuration, part) / self.sizes
        effects[self.names] = self.inverse @ np.bincount(self.own, part - means[self.configuration])
        rest = values - effects[self.seeds]
        middle = rest[self.rows].mean()
        return np.where(np.abs(rest - middle) <= ROUNDING * np.abs(values).max(), middle, rest)
