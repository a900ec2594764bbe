"""One-sided p values over seeds, and what reduces the runs of a seed to one number."""

import math

import numpy as np

_EXACT = 40
"""Up to so many pairs all sign changes are counted."""
_DRAWN = 100_000


def above(values: np.ndarray, bound: float, *, rounding: float = 0.0) -> float | None:
    """p of H0 "the mean is at most ``bound``": P(T > t), t = (mean - bound) / (s/√n), T Student's with n - 1 degrees.

    Values that are equal, up to ``rounding``, have no spread to test by: the exact sign test gives 2⁻ⁿ if they lie
    above the bound, else 1. 1 if a value is infinite; None without values.

    >>> round(above(np.array([1.0, 2.0, 3.0]), 0.0), 4), above(np.array([0.1, 0.1]), 0.0)
    (0.0371, 0.25)
    """
    n = len(values)
    if n == 0:
        return None
    if not np.isfinite(values).all():
        return 1.0
    shifted = values - bound
    if np.ptp(values) <= rounding or n == 1:
        return 0.5**n if shifted.min() > rounding else 1.0
    from scipy.special import stdtr

    shifted = shifted / np.abs(shifted).max()  # squares of tiny numbers would be 0
    spread = float(shifted.std(ddof=1))
    if spread == 0:
        return 0.5**n if shifted[0] > 0 else 1.0
    return float(stdtr(n - 1, -float(shifted.mean()) / (spread / math.sqrt(n))))


def at_least(count: int, n: int, share: float) -> float | None:
    """p of H0 "the probability is at most ``share``": P(X ≥ count), X binomial; None if n = 0.

    >>> at_least(5, 5, 0.5)
    0.03125
    """
    from scipy.special import bdtrc

    return None if n == 0 else 1.0 if count == 0 else float(bdtrc(count - 1, n, share))


def at_most(count: int, n: int, share: float) -> float | None:
    """p of H0 "the probability is at least ``share``": P(X ≤ count), X binomial; None if n = 0.

    >>> at_most(0, 5, 0.5)
    0.03125
    """
    from scipy.special import bdtr

    return None if n == 0 else float(bdtr(count, n, share))


def sign_changes(scores: np.ndarray) -> float:
    """p of H0 "each score is as likely as its negative", against large sums: the share of all changes of signs whose
    sum is at least the observed one. Zeros say nothing.

    Beyond 40 scores the share of 100,000 seeded draws, the observed one counted among them.

    >>> sign_changes(np.array([1.0, 2.0, 3.0, 0.0]))
    0.125
    """
    sizes = np.abs(scores[scores != 0])
    least = float(scores.sum()) - 1e-9 * float(sizes.sum())
    if len(sizes) > _EXACT:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(_DRAWN, len(sizes)))
        return (1 + int((signs @ sizes >= least).sum())) / (1 + _DRAWN)
    left, right = _sums(sizes[: len(sizes) // 2]), np.sort(_sums(sizes[len(sizes) // 2 :]))
    counted = len(right) - np.searchsorted(right, least - left)
    return float(counted.sum() / 2.0 ** len(sizes))


def _sums(sizes: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def log_rank_scores(times: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Log-rank scores δ - Λ(t): δ is 1 if the level was reached at t and 0 if it was not until t, Λ the Nelson-Aalen
    cumulative hazard of all.

    >>> log_rank_scores(np.array([1.0, 2.0]), np.array([True, False]))
    array([ 0.5, -0.5])
    """
    risk = (times[None, :] >= times[:, None]).sum(1)
    steps = np.where(reached, 1.0 / risk, 0.0)
    return reached - ((times[None, :] <= times[:, None]) * steps[None, :]).sum(1)


def kendall(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of ``levels`` [L] with each column of ``values`` [L, seeds]; NaN where a column is constant."""
    first, second = np.triu_indices(len(levels), 1)
    a = np.sign(levels[first] - levels[second])
    b = np.sign(values[first] - values[second])
    untied = np.sqrt(np.abs(a).sum() * np.abs(b).sum(0))
    return np.divide(a @ b, untied, out=np.full(values.shape[1], np.nan), where=untied > 0)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each column of ``a`` with that of ``b`` [points, seeds]; NaN where a column is constant."""
    a, b = (ranks - ranks.mean(0) for ranks in (_ranks(a), _ranks(b)))
    scale = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.divide((a * b).sum(0), scale, out=np.full(a.shape[1], np.nan), where=scale > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mid-ranks within each column: the number of smaller values, and half of that of equal ones."""
    ranks = np.empty(values.shape)
    for index, column in enumerate(values.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks[:, index] = (np.cumsum(counts) - counts / 2)[inverse]
    return ranks
