"""In which order measures stand along one hyperparameter and along another, the configuration as the unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.analysis.dyads import influence
from genbench.analysis.statistics import LEVEL, ROUNDING
from genbench.checks import check_number
from genbench.claims.rules.base import set_plain
from genbench.claims.rules.grid_runs import Environment
from genbench.claims.rules.of_grid import (
    UNDEFINED,
    OfGrid,
    check_falls,
    check_metrics,
    check_test_size,
    enough,
    evidence_of,
    listed,
    sign_of,
)
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import Evidence

_DRAWS = 10_000
_AT_ONCE = 2**21


@dataclass(frozen=True, kw_only=True)
class RanksDiffer(OfGrid):
    """Measures rank otherwise along one hyperparameter than along another: the rank correlation of their mean sign
    errors along the two lies below ``margin``.

    The correlation is Kendall's τ over pairs of measures, the measures being fixed. Noise alone makes it small, so that
    it is bounded by the pairs of measures whose order is shown to differ: with |t| of every difference of two sign
    errors along either hyperparameter, and c the level's quantile of the largest of them all, τ is at most
    1 - 2 · (share of pairs with |t| > c along both, in opposite orders). Replicated by the p at which that falls below
    the margin, from 10,000 draws of the multivariate t distribution, the influences of configurations being its
    covariance; not replicated likewise by the pairs whose order is shown to be the same.

    Args:
        metrics: the measures, at least three.
        gap, over, of, within, test_size: see :class:`Ranks`.
        falls: those of ``metrics`` that are to fall with the gap.
        axes: the two hyperparameters.
        margin: in (-1, 1).

    Source: Dziugaite et al. 2020, arXiv 2010.11924; for the bounds Mogstad, Romano, Shaikh & Wilhelm 2024, Rev. Econ.
    Stud. 91, 476.
    """

    metrics: Sequence[str]
    axes: Sequence[str]
    falls: Sequence[str] = ()
    margin: float = 0.5
    test_size: int

    def __post_init__(self) -> None:
        self._check()
        set_plain(self, metrics=check_metrics(self.metrics, least=3))
        set_plain(self, falls=check_falls(self.falls, self.metrics))
        set_plain(self, axes=self._check_axes(self.axes, count=2))
        check_number("margin", self.margin, low=-1, high=1, open_low=True, open_high=True)
        check_test_size(self.test_size, needed=True)

    @property
    def words(self) -> str:
        return (
            f"the rank correlation of the mean sign errors by {self.gap} of {listed(self.metrics, self.falls)} along "
            f"{self.axes[0]} and along {self.axes[1]} lies below {self.margin:g}, {self._about()}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        sample = self._sample(runs, {name: sign_of(name, self.falls) for name in self.metrics})
        if not enough([sample]):
            return evidence_of([sample])
        means = [
            [sample.grid.environments(x, sample.g, 0.5 if worst else None, [axis], self.test_size) for x in sample.x]
            for axis in self.axes
        ]
        if not all(found for along in means for found in along):
            return evidence_of([sample], words=UNDEFINED["sign_error"])
        orders, sizes, reached = _orders(means, sample.grid.configurations)
        same = orders[0] * orders[1]
        different, alike = sizes[same < 0], sizes[same > 0]
        tau, surely = float(same.mean()), float(np.quantile(reached, LEVEL))
        return evidence_of(
            [sample],
            supports=_shown(different, len(same) * (1 - self.margin) / 2, reached),
            contradicts=_shown(alike, len(same) * (1 + self.margin) / 2, reached),
            words=(
                f"rank correlation {tau:.4g}; of {len(same)} pairs of measures {int((different > surely).sum())} are "
                f"shown to be in another order, {int((alike > surely).sum())} in the same"
            ),
            statistic=tau,
        )


def _orders(
    means: Sequence[Sequence[Sequence[Environment]]], configurations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pair of measures the order of their mean sign errors along two axes [2, pairs] and the smaller |t| of the
    two differences [pairs]; and draws of the largest |t| of all differences without effect [draws]."""
    from scipy.special import stdtrit

    parts = [[[each.dyads for each in own] for own in along] for along in means]
    values = np.array([[np.mean([part.value for part in own]) for own in along] for along in parts])
    doubt = [max(float(np.mean([each.doubtful for each in own])) for own in along) for along in means]
    contexts = min(part.contexts for along in parts for own in along for part in own)
    each = np.stack([influence(own, configurations) for along in parts for own in along], axis=1)
    covariance = (each.T @ each).reshape(2, len(values[0]), 2, len(values[0]))
    first, second = np.triu_indices(len(values[0]), 1)
    moved = values[:, first] - values[:, second]
    beyond = np.maximum(np.abs(moved) - np.array(doubt)[:, None], 0.0)  # at the worst
    error = np.stack([_error(covariance[axis, :, axis], first, second) for axis in range(2)])
    degrees = max(1, contexts - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = -stdtrit(degrees, np.maximum((1 - beyond / 2) ** contexts / 2, 1e-300))  # no spread: Markov's bound
        size = np.where(beyond > ROUNDING, np.where(error > 0, beyond / error, exact), 0.0)
    order = np.where(np.abs(moved) > ROUNDING, np.sign(moved), 0.0)
    flat = covariance.reshape(each.shape[1], -1)
    eigenvalues, vectors = np.linalg.eigh(flat)
    random = np.random.default_rng(0)
    reached = np.empty(_DRAWS)
    step = max(1, _AT_ONCE // max(error.size, 1))
    for start in range(0, _DRAWS, step):
        count = min(step, _DRAWS - start)
        drawn = random.standard_normal((count, len(flat))) @ (vectors * np.sqrt(eigenvalues.clip(0))).T
        drawn = drawn / np.sqrt(random.chisquare(degrees, (count, 1)) / degrees)
        apart = np.abs(drawn.reshape(count, 2, -1)[:, :, first] - drawn.reshape(count, 2, -1)[:, :, second])
        t = np.divide(apart, error, out=np.zeros_like(apart), where=error > 0)
        reached[start : start + count] = t.max((1, 2), initial=0.0)
    return order, size.min(0), reached


def _error(covariance: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    own = np.diag(covariance)
    squares = own[first] + own[second] - 2 * covariance[first, second]
    return np.sqrt(np.where(squares > ROUNDING * (own[first] + own[second]), squares, 0.0))


def _shown(sizes: np.ndarray, more_than: float, reached: np.ndarray) -> float:
    """The p at which more than so many pairs are shown at once, each by its ``sizes``: that of the last one needed."""
    needed = math.floor(more_than + ROUNDING) + 1
    if len(sizes) < needed:
        return 1.0
    last = np.sort(sizes)[-needed]
    return float((1 + (reached >= last).sum()) / (1 + len(reached)))
