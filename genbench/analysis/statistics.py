"""Intervals, paired differences, corrected tests and rank correlations.

Undefined values are ``None``, never NaN.
"""

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
_RESAMPLES = 2000
# fewer groups give no meaningful bootstrap interval
_MIN_GROUPS = 5
# with more groups, resampled correlations keep only first-order terms in the weights: the rest is smaller by 1/G
_MANY = 300
LARGEST = 1e100
"""Larger numbers are not averaged: squares of their sums may overflow float64."""
ROUNDING = 1e-12
"""Differences that are closer, relative to their operands, differ only by the rounding of the subtraction."""


@dataclass(frozen=True)
class Mean:
    """A sample mean with its Student-t interval ``value ± half_width``; ``half_width`` is ``None`` when n = 1."""

    value: float
    half_width: float | None
    n: int

    @property
    def low(self) -> float | None:
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.half_width is None else self.value + self.half_width


@dataclass(frozen=True)
class Difference(Mean):
    """A mean difference over pairs, and the two-sided p of its t test.

    ``p`` is ``None`` when the test is undefined: one pair, or differences without any spread.
    """

    p: float | None


@dataclass(frozen=True)
class Correlation:
    """A rank correlation of ``n`` points with its bootstrap interval; ``note`` says why a field is ``None``."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None = None


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Mean:
    """Mean ± t(1 - (1 - level)/2; n - 1) · s/√n, with s of ddof = 1.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> round(interval.value, 3), round(interval.half_width, 3), interval.n
    (2.0, 2.484, 3)
    >>> mean_interval([4.0]).half_width is None
    True
    """
    sample = _finite(values)
    n = len(sample)
    if n == 0:
        raise ValueError("mean_interval needs at least one value, got none")
    # the mean of equal numbers is that number; a rounded sum may differ from it
    value = float(sample[0]) if np.all(sample == sample[0]) else float(sample.mean())
    if n == 1:
        return Mean(value, None, 1)
    spread = 0.0 if np.all(sample == sample[0]) else float(sample.std(ddof=1))
    return Mean(value, _quantile(0.5 + level / 2, n - 1) * spread / math.sqrt(n), n)


@functools.cache
def _quantile(p: float, degrees: int) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit  # as in scipy.stats, which takes a second to import

    return float(stdtrit(degrees, p))


def paired_difference(
    values: Mapping[Hashable, float], baseline: Mapping[Hashable, float], *, level: float = LEVEL
) -> Difference | None:
    """Mean of ``values[seed] - baseline[seed]`` over the seeds both hold, its t interval and two-sided t test.

    ``None`` when they share no seed.

    >>> paired_difference({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 2.0}).value
    2.5
    """
    seeds = [seed for seed in values if seed in baseline]
    if not seeds:
        return None
    left, right = _finite([values[seed] for seed in seeds]), _finite([baseline[seed] for seed in seeds])
    differences = left - right
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    if np.ptp(differences) <= ROUNDING * scale:  # as 0.92 - 0.90 and 0.93 - 0.91
        value = float(differences.mean()) if np.abs(differences).max() > ROUNDING * scale else 0.0
        n = len(seeds)
        return Difference(value, 0.0 if n > 1 else None, n, 1.0 if value == 0 and n > 1 else None)
    from scipy.special import stdtr

    mean = mean_interval(differences.tolist(), level=level)
    t = mean.value / (float(differences.std(ddof=1)) / math.sqrt(mean.n))
    return Difference(mean.value, mean.half_width, mean.n, 2 * float(stdtr(mean.n - 1, -abs(t))))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values of one family; ``None`` (no test) stays ``None`` and does not count.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    tested = np.array([p for p in ps if p is not None])
    order = np.argsort(tested)
    # not statsmodels' multipletests, which the tests compare with: it collects garbage at each call, 0.1 s per column
    stepped = np.maximum.accumulate(tested[order] * np.arange(len(tested), 0, -1))
    adjusted = np.empty(len(tested))
    adjusted[order] = np.minimum(stepped, 1.0)
    values = iter(adjusted.tolist())
    return [None if p is None else next(values) for p in ps]


def kendall(
    x: Sequence[float], y: Sequence[float], *, groups: Sequence[Hashable] | None = None, level: float = LEVEL
) -> Correlation:
    """Kendall's τ-b of pairs ``(x, y)`` with a percentile bootstrap interval.

    τ-b = (concordant - discordant) / √(pairs untied in x · pairs untied in y). The bootstrap resamples whole
    ``groups``, such as configurations: seeds of one configuration are not independent evidence.
    """
    return _correlation(x, y, groups, level, _taus)


def spearman(
    x: Sequence[float], y: Sequence[float], *, groups: Sequence[Hashable] | None = None, level: float = LEVEL
) -> Correlation:
    """Spearman's ρ (Pearson's of the mid-ranks) with a percentile bootstrap interval; ``groups`` as in kendall."""
    return _correlation(x, y, groups, level, _rhos)


def _taus(x: np.ndarray, y: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return τ-b of each sample, which holds group g weights[sample, g] times; NaN where it is undefined.

    A sum over pairs of points is wᵀ S w, where S [G, G] holds the sums over pairs of groups; S is computed once, group
    by group. With more than ``_MANY`` groups it is approximated by 1ᵀ S (2w − 1), which omits (w − 1)ᵀ S (w − 1).
    """
    order = np.argsort(groups, kind="stable")
    # ranks, because integers compare faster
    x, y = (np.unique(values[order], return_inverse=True)[1].astype(np.int32) for values in (x, y))
    groups = groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    if len(starts) > _MANY:
        totals = np.add.reduceat(_pairs(x, y), starts, axis=1)
        sums = 2 * (totals @ weights.T) - totals.sum(1, keepdims=True)
    else:
        sums = np.zeros((3, len(weights)))
        step = max(1, 2**22 // len(x))  # points at a time: bounds the memory
        ends = [*starts[1:], len(x)]
        parts = [(own, at) for own, start in enumerate(starts) for at in range(start, ends[own], step)]
        for own, start in parts:
            part = slice(start, min(start + step, ends[own]))
            a = (x[part, None] > x).view(np.int8) - (x[part, None] < x).view(np.int8)
            b = (y[part, None] > y).view(np.int8) - (y[part, None] < y).view(np.int8)
            columns = np.stack([each.sum(0, dtype=np.int64) for each in (a * b, np.abs(a), np.abs(b))])
            sums += weights[:, own] * (np.add.reduceat(columns, starts, axis=1) @ weights.T)
    untied = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], untied, out=np.full(len(weights), np.nan), where=untied > 0)


def _pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return of each point the concordant less the discordant pairs with all others, and those untied in x and in y [3,
    n]; x and y are ranks. Takes O(n log² n)."""
    agree = _below(x, y) + _below(-x, -y) - _below(x, -y) - _below(-x, y)
    return np.stack([agree, *(len(x) - np.bincount(ranks)[ranks] for ranks in (x, y))]).astype(float)


def _below(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return of each point the number of points that are smaller both in x and in y."""
    order = np.lexsort((-y, x))  # of those before a point, the ones with its x are not smaller in y
    heights = np.unique(y[order], return_inverse=True)[1]
    places = np.arange(len(x))
    counts = np.zeros(len(x), dtype=np.int64)
    width = 1
    while width < len(x):  # as in merging: each right half counts its left half
        block, right = places // (2 * width), places // width % 2 == 1
        keys = block * len(x) + heights
        left = np.sort(keys[~right])  # blocks stay apart, and all before this one are full
        counts[right] += np.searchsorted(left, keys[right]) - block[right] * width
        width *= 2
    return counts[np.argsort(order)]


def _rhos(x: np.ndarray, y: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ρ of each sample, which holds group g weights[sample, g] times; NaN where it is undefined."""
    chosen = (np.repeat(np.arange(len(x)), sample[groups].astype(int)) for sample in weights)
    found = (_rho(x[members], y[members]) for members in chosen)
    return np.array([math.nan if value is None else value for value in found])


def _rho(x: np.ndarray, y: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else None


def _correlation(
    x: Sequence[float], y: Sequence[float], groups: Sequence[Hashable] | None, level: float, statistic: Any
) -> Correlation:
    a, b = _finite(x), _finite(y)
    n = len(a)
    if len(b) != n or (groups is not None and len(groups) != n):
        raise ValueError(
            f"x, y and groups must have one length, got {n}, {len(b)} and {n if groups is None else len(groups)}"
        )
    if n < 3:
        return Correlation(None, None, None, n, f"{n} points: a rank correlation needs 3")
    named = {group: number for number, group in enumerate(dict.fromkeys(groups if groups is not None else range(n)))}
    members = np.array([named[group] for group in (groups if groups is not None else range(n))])
    count = len(named)
    random = np.random.default_rng(0)
    weights = np.ones(
        (1 + (_RESAMPLES if count >= _MIN_GROUPS else 0), count)
    )  # the first sample is the data, the others are resampled
    for sample in weights[1:]:
        sample[:] = np.bincount(random.integers(count, size=count), minlength=count)
    value, *resampled = statistic(a, b, members, weights).tolist()
    if math.isnan(value):
        return Correlation(None, None, None, n, "one of the two is constant")
    if not resampled:
        return Correlation(value, None, None, n, f"no interval from fewer than {_MIN_GROUPS} independent points")
    resampled = np.array(resampled)
    low, high = np.quantile(resampled[~np.isnan(resampled)], [0.5 - level / 2, 0.5 + level / 2])
    return Correlation(value, float(low), float(high), n)


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"values must be finite numbers, got {array[~np.isfinite(array)][0]}")
    return array
