"""Intervals of scores of the same runs, of one and of several at once: differences from a baseline, and ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.analysis.statistics import LEVEL, ROUNDING

_DRAWS = 10_000


@dataclass(frozen=True)
class Score:
    """A score of a measure over runs of so many configurations. ``influence`` [C] is what each configuration adds to
    its error: the sum of squares is the variance, of products with those of another score the covariance."""

    value: float
    influence: np.ndarray
    runs: int
    configurations: int

    def correlation_interval(self) -> tuple[float, float]:
        """The 95 % interval by Fisher's arctanh and Student's t, with one degree less than there are configurations;
        NaN of fewer than three, without spread, and of 1 and −1."""
        from scipy.special import stdtrit

        if math.isnan(error := self._error):
            return math.nan, math.nan
        half = float(stdtrit(self.configurations - 1, 0.5 + LEVEL / 2)) * error
        middle = math.atanh(self.value)
        return math.tanh(middle - half), math.tanh(middle + half)

    def below_zero(self) -> float:
        """The one-sided p of a correlation below 0, by the test of its interval; NaN where it has none."""
        from scipy.special import stdtr

        if math.isnan(error := self._error):
            return math.nan
        return float(stdtr(self.configurations - 1, math.atanh(self.value) / error))

    @property
    def _error(self) -> float:
        """The standard error of arctanh of the value; NaN where there is none."""
        error = math.sqrt(float(self.influence @ self.influence))
        if self.configurations < 3 or not error > 0 or not abs(self.value) < 1:
            return math.nan
        return error / (1 - self.value**2)


def differences(scores: Sequence[Score], baseline: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % intervals of the differences of scores from that of the baseline, which all hold together (max-t).

    Args:
        scores: M of them, of the same runs.
        baseline: the number of a score.
        seed: of 10,000 draws of their errors, of the multivariate t distribution with one degree less than the fewest
            configurations.

    Returns:
        low and high [M]; NaN of the baseline, and of a difference without error.
    """
    draws, error = _draws(scores, seed)
    draws, spread = draws - draws[:, [baseline]], error[:, baseline]
    known = spread > 0
    low, high = np.full((2, len(scores)), math.nan)
    if known.any():
        half = np.quantile(np.abs(draws[:, known] / spread[known]).max(1), LEVEL) * spread[known]
        difference = np.array([score.value - scores[baseline].value for score in scores])[known]
        low[known], high[known] = difference - half, difference + half
    return low, high


def ranks(scores: Sequence[Score], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rank of each score, 1 the largest, and its 95 % interval (Mogstad, Romano, Shaikh & Wilhelm 2024, Rev. Econ.
    Stud. 91, 476): from one more than the scores that are shown to be larger, to M less those that are shown to be
    smaller, by intervals of the differences from this score that hold together. Equal scores have one rank.

    Args: as those of :func:`differences`.
    """
    values = np.array([score.value for score in scores])
    draws, error = _draws(scores, seed)
    rank, low, high = np.empty((3, len(scores)), dtype=int)
    for own in range(len(scores)):
        difference, spread = values - values[own], error[:, own]
        known = spread > 0
        half = np.full(len(scores), ROUNDING)
        if known.any():
            parts = np.abs((draws[:, known] - draws[:, [own]]) / spread[known])
            half[known] = np.quantile(parts.max(1), LEVEL) * spread[known]
        rank[own] = 1 + (difference > ROUNDING).sum()
        low[own] = 1 + (difference - half > 0).sum()
        high[own] = len(scores) - (difference + half < 0).sum()
    return rank, low, high


def _draws(scores: Sequence[Score], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the scores' errors [draws, M], and the standard errors of their differences [M, M]."""
    influence = np.stack([score.influence for score in scores], axis=1)
    covariance = influence.T @ influence
    own = np.diag(covariance)
    squares = own[:, None] + own - 2 * covariance
    error = np.sqrt(np.where(squares > ROUNDING * (own[:, None] + own), squares, 0))
    values, vectors = np.linalg.eigh(covariance)
    random = np.random.default_rng(seed)
    draws = random.standard_normal((_DRAWS, len(own))) @ (vectors * np.sqrt(values.clip(0))).T
    degrees = max(1, min(score.configurations for score in scores) - 1)
    return draws / np.sqrt(random.chisquare(degrees, (_DRAWS, 1)) / degrees), error
