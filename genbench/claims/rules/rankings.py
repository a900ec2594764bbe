"""How well measures rank the runs of a grid by their gap, the configuration as the unit."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genbench.analysis.dyads import Dyads, influence, variance
from genbench.analysis.sign_errors import FEWEST_CONTEXTS
from genbench.analysis.statistics import LEVEL, ROUNDING, holm
from genbench.checks import check_choice, check_integer, check_number, nearest
from genbench.claims.rules.base import (
    FEWEST_UNITS,
    check_beyond,
    check_metric,
    check_where,
    interest_words,
    set_plain,
)
from genbench.claims.rules.grid import Grid, check_grid, grid_words
from genbench.claims.rules.grid_runs import Environment, GridRuns, Sample, keys_of
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence

SCORES = {"tau": "Kendall's τ", "psi": "the granulated Ψ", "sign_error": "the mean sign error"}
UNIT = "configuration"
_ENDS = {"tau": (-1.0, 1.0), "psi": (-1.0, 1.0), "sign_error": (0.0, 1.0)}
_UNDEFINED = {
    "tau": "a measure or the gap is constant: no score",
    "psi": "no two runs differ in one hyperparameter alone: no score",
    "sign_error": "no two values of a hyperparameter have gaps that differ surely in 12 pairs: no score",
}
_DRAWS = 10_000
_AT_ONCE = 2**21


@dataclass(frozen=True, kw_only=True)
class _OfGrid:
    """What the rules of this file share.

    Runs that diverged, whose metric is null or that lie outside ``within`` are left out, and counted. At the worst
    their pairs count against what is to be shown, of sign errors with the largest weight if the gap is unknown, so that
    a selection decides nothing.
    """

    gap: str
    over: Grid
    of: Mapping[str, Any]
    within: Mapping[str, Sequence[float]] | None = None

    def _check(self) -> None:
        check_metric("gap", self.gap)
        set_plain(self, over=check_grid("over", self.over, least=FEWEST_UNITS), of=check_where("of", self.of))
        set_plain(self, within=_check_within(self.within))

    def _check_axes(self, value: object, *, count: int | None = None) -> list[str]:
        keys = keys_of(self.over)
        some = "of over" if count is None else f"of over, {count} of them"
        fine = isinstance(value, Sequence) and not isinstance(value, str) and 0 < len(value) == len(set(value))
        if (
            not fine
            or not isinstance(value, Sequence)
            or not set(value) <= set(keys)
            or count not in (None, len(value))
        ):
            raise ValueError(f"axes is {value!r}; accepted: different settings {some} ({', '.join(keys)})")
        return list(value)

    def _about(self) -> str:
        """The runs, in words."""
        kept = "".join(
            f", runs with {name} in [{low:g}, {high:g}]" for name, (low, high) in (self.within or {}).items()
        )
        return (
            f"over {grid_words(self.over)} of {named(self.of)}{kept}, configurations as units, conditional on this grid"
        )

    def _sample(self, runs: ClaimRuns, metrics: Mapping[str, int], gap: str | None = None) -> "Sample":
        return Sample(GridRuns.of(runs, self.of, self.over), metrics, gap or self.gap, self.within or {})


@dataclass(frozen=True, kw_only=True)
class Ranks(_OfGrid):
    """A score of how a measure ranks the runs of a grid by their gap exceeds a number, or that of another measure.

    The unit is the configuration, whatever the number of its seeds; runs of all registered seeds count.

    - ``tau``: Kendall's τ over all pairs of runs, in which ties count 0. Student's t of Fisher's arctanh with the
      jackknife's error that leaves out one configuration at a time, one degree less than there are configurations; a
      difference of two is tested as it is.
    - ``psi``: τ over the pairs that differ in one hyperparameter alone, its mean over contexts and hyperparameters.
    - ``sign_error``: the weighted share of such pairs that are ranked the wrong way, its mean over environments.

    Of these two it is Student's t with the variance over pairs that share a configuration, and one degree less than
    there are contexts, in the hyperparameter (environment) that has the fewest. Without any spread, d beyond the margin
    has p = (1 - d / range)ᵘ, range that of the score, u those contexts or half of the configurations: by Markov's
    inequality.

    Args:
        metric: the measure.
        gap: a metric, such as ``test/gap/accuracy``, or a setting of ``over`` that is a number.
        over: the hyperparameters and their values, every combination of which has a run a seed; or a list of settings.
            At least 20.
        of: further settings of the runs.
        score: ``tau``, ``psi`` or ``sign_error``.
        direction: 1 of a measure that is to rise with the gap, -1 of one that is to fall.
        than_metric: another measure of the same runs; None: the score alone is compared with the margin.
        than_gap: what the other measure is to rank; None: the same gap.
        than_direction: of the other measure.
        margin: to exceed. With ``sign`` -1: minus the score (difference) exceeds it, so that -0.2 reads "below 0.2".
        interest: the smallest score that matters, beyond the margin.
        sign: 1, or -1.
        axes: the hyperparameters of ``over`` that Ψ and sign errors go along; None: all.
        within: metrics and the least and the largest number of them: other runs are left out, as they did not reach
            the loss at which training was to stop, and counted.
        test_size: the number of test examples of the gap, for sign errors.

    Source: Jiang et al. 2020, arXiv 1912.02178; Dziugaite et al. 2020, arXiv 2010.11924; see
    :mod:`genbench.analysis.correlations`, :mod:`~genbench.analysis.granulated`, :mod:`~genbench.analysis.sign_errors`.
    """

    metric: str
    score: str = "tau"
    direction: int = 1
    than_metric: str | None = None
    than_gap: str | None = None
    than_direction: int = 1
    margin: float = 0.0
    interest: float | None = None
    sign: int = 1
    axes: Sequence[str] | None = None
    test_size: int | None = None

    def __post_init__(self) -> None:
        self._check()
        check_metric("metric", self.metric)
        check_choice("score", self.score, tuple(SCORES))
        for name in ("direction", "than_direction", "sign"):
            _check_sign(name, getattr(self, name))
        for name in ("than_metric", "than_gap"):
            if getattr(self, name) is not None:
                check_metric(name, getattr(self, name))
        if self.than_metric is None and (self.than_gap is not None or self.than_direction != 1):
            raise ValueError("than_metric is null; accepted: another measure, with than_gap or than_direction")
        if self.than_metric == self.metric and self.than_gap in (None, self.gap):
            raise ValueError(f"than_metric is {self.than_metric!r}, as metric is; accepted: another, or than_gap")
        least, most = sorted(self.sign * end for end in _ENDS[self.score])
        if self.than_metric is not None:
            least, most = least - most, most - least
        ends: dict[str, Any] = {"low": least, "high": most, "open_high": True, "open_low": self.score == "tau"}
        check_number("margin", self.margin, **ends)
        if self.interest is not None:
            check_number("interest", self.interest, **ends)
        set_plain(self, interest=check_beyond(self.margin, self.interest))
        if self.axes is not None:
            if self.score == "tau":
                raise ValueError(f"axes is {list(self.axes)!r}; accepted with score tau: null, as it is of all pairs")
            set_plain(self, axes=self._check_axes(self.axes))
        _check_test_size(self.test_size, needed=self.score == "sign_error")
        if self.score == "sign_error":
            if self.gap in keys_of(self.over):
                raise ValueError(f"gap is {self.gap!r}, a setting; accepted with sign_error: a metric of the 0-1 error")
            if self.than_gap is not None:
                raise ValueError(f"than_gap is {self.than_gap!r}; accepted with sign_error: null, as it weighs pairs")

    @property
    def words(self) -> str:
        than_gap = "" if self.than_gap is None else f" with {self.than_gap}"
        told = f"{SCORES[self.score]}{_along(self.axes)} of {_turned(self.metric, self.direction)} with {self.gap}"
        margin, interest = self.margin, self.interest
        if self.than_metric is not None:
            other = f"that of {_turned(self.than_metric, self.than_direction)}{than_gap}"
            compared = f"{'exceeds' if self.sign == 1 else 'lies below'} {other} by more than {margin:g}"
        elif self.sign == 1:
            compared = f"exceeds {margin:g}"
        else:
            compared, interest = f"lies below {0 - margin:g}", None if interest is None else 0 - interest
        return f"{told} {compared}{interest_words(interest)}, {self._about()}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        samples = [self._sample(runs, {self.metric: self.direction})]
        if self.than_metric is not None:
            samples.append(self._sample(runs, {self.than_metric: self.than_direction}, self.than_gap))
        if not _enough(samples):
            return _evidence(samples)
        least, most = sorted(self.sign * end for end in _ENDS[self.score])
        one = self._effect(samples, None)
        low, high = (self._effect(samples, fill) for fill in (least, most)) if worst else (one, one)
        if one is None:
            return _evidence(samples, words=_UNDEFINED[self.score])
        short = self.margin if self.interest is None else self.interest
        value, interval = self.sign * one.value, one.interval()
        said = f"{'' if len(samples) == 1 else 'difference of '}{SCORES[self.score].removeprefix('the ')} {value:.4g}"
        if interval is not None:
            low_end, high_end = sorted(self.sign * end for end in interval)
            interval = low_end, high_end
            said += f" [{low_end:.4g}, {high_end:.4g}]"
        return _evidence(
            samples,
            supports=None if low is None else low.above(self.margin),
            contradicts=None if high is None else high.below(short),
            words=said,
            statistic=value,
            interval=interval,
            interest=self.interest is not None,
        )

    def _effect(self, samples: Sequence["Sample"], fill: float | None) -> "_Effect | None":
        """The signed score or difference; ``fill`` is what pairs of unknown runs add to the signed score of the
        measure, None if they are left out. None if it is undefined."""
        least, most = _ENDS[self.score]
        span = (most - least) * len(samples)
        fills = [None] if fill is None else [self.sign * fill, least + most - self.sign * fill]
        of = [sample.values(None if fill is not None else samples) for sample in samples]
        grid = samples[0].grid
        if self.score == "tau":
            found = [grid.tau(*both, one) for both, one in zip(of, itertools.cycle(fills), strict=False)]
            if any(math.isnan(one.value) for one in found):
                return None
            value, influences = (_difference([getattr(one, name) for one in found]) for name in ("value", "influence"))
            units = min(one.configurations for one in found)
            single = len(found) == 1
            return _Effect(self.sign * value, influences @ influences, units - 1, units // 2, span, fisher=single)
        parts = []
        for both, one in zip(of, itertools.cycle(fills), strict=False):
            if self.score == "psi":
                parts.append(grid.psi(*both, one, self.axes))
            else:
                assert self.test_size is not None
                found_in = grid.environments(*both, one, self.axes, self.test_size)
                parts.append([environment.dyads for environment in found_in])
        if not all(parts):
            return None
        joined = parts[0] if len(parts) == 1 else [_subtracted(*pair) for pair in zip(*parts, strict=True)]
        value = sum(part.value for part in joined) / len(joined)
        contexts = min(part.contexts for part in joined)
        return _Effect(self.sign * value, _spread(joined), contexts - 1, contexts, span)


@dataclass(frozen=True, kw_only=True)
class RanksWrongly(_OfGrid):
    """Every measure of a list has an environment in which its sign error exceeds one half.

    Environments are those of :func:`genbench.analysis.sign_errors`, in which the gap tells 12 effective pairs apart and
    that have five contexts. Replicated by the largest p over measures (an intersection-union test) of Holm's smallest
    over the environments of each; not replicated by the smallest over measures, times their number, of the largest p
    that the sign error of an environment is below one half.

    Args:
        metrics: the measures.
        gap, over, of, axes, within, test_size: see :class:`Ranks`.
        falls: those of ``metrics`` that are to fall with the gap.

    Source: Dziugaite et al. 2020, arXiv 2010.11924; Berger 1982, Multiparameter hypothesis testing and acceptance
    sampling; Holm 1979, A simple sequentially rejective multiple test procedure.
    """

    metrics: Sequence[str]
    falls: Sequence[str] = ()
    axes: Sequence[str] | None = None
    test_size: int

    def __post_init__(self) -> None:
        self._check()
        set_plain(self, metrics=_check_metrics(self.metrics, least=1))
        set_plain(self, falls=_check_falls(self.falls, self.metrics))
        if self.axes is not None:
            set_plain(self, axes=self._check_axes(self.axes))
        _check_test_size(self.test_size, needed=True)

    @property
    def words(self) -> str:
        where = f"an environment{_along(self.axes)} in which its sign error by {self.gap} exceeds 0.5"
        return f"each of {_listed(self.metrics, self.falls)} has {where}, {self._about()}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        samples = [self._sample(runs, {name: _sign(name, self.falls)}) for name in self.metrics]
        if not _enough(samples):
            return _evidence(samples)
        known = [self._environments(sample, None) for sample in samples]
        low, high = ([self._environments(each, fill) for each in samples] if worst else known for fill in (0.0, 1.0))
        supports = [min((p for p in holm([each.p for each in own]) if p is not None), default=1.0) for own in low]
        contradicts = [max((each.below for each in own), default=1.0) for own in high]
        said = f"{sum(p <= 1 - LEVEL for p in supports)} of {len(samples)} are shown to be wrong in some environment"
        largest = [max(own, key=lambda each: each.value) for own in known if own]
        if len(largest) == len(samples):
            index = min(range(len(samples)), key=lambda i: largest[i].value)
            said += (
                f"; the largest sign error of {self.metrics[index]} is {largest[index].value:.4g} ({largest[index]})"
            )
        return _evidence(
            samples,
            supports=max(supports),
            contradicts=min(1.0, len(samples) * min(contradicts)),
            words=said,
            statistic=min((each.value for each in largest), default=None),
        )

    def _environments(self, sample: "Sample", fill: float | None) -> list["Environment"]:
        found = sample.grid.environments(*sample.values(), fill, self.axes, self.test_size)
        return [each for each in found if each.dyads.contexts >= FEWEST_CONTEXTS]


@dataclass(frozen=True, kw_only=True)
class RanksDiffer(_OfGrid):
    """Measures rank otherwise along one hyperparameter than along another: the rank correlation of their mean sign
    errors along the two lies below ``margin``.

    The correlation is Kendall's τ over pairs of measures, the measures being fixed. Noise alone makes it small, so that
    it is bounded by the pairs of measures whose order is shown to differ: with |t| of every difference of two sign
    errors along either hyperparameter, and c the level's quantile of the largest of them all, τ is at most
    1 - 2 · (share of pairs with |t| > c along both, in opposite orders). Replicated by the p at which that falls below
    the margin, from {draws:,} draws of the multivariate t distribution, the influences of configurations being its
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
        set_plain(self, metrics=_check_metrics(self.metrics, least=3))
        set_plain(self, falls=_check_falls(self.falls, self.metrics))
        set_plain(self, axes=self._check_axes(self.axes, count=2))
        check_number("margin", self.margin, low=-1, high=1, open_low=True, open_high=True)
        _check_test_size(self.test_size, needed=True)

    @property
    def words(self) -> str:
        return (
            f"the rank correlation of the mean sign errors by {self.gap} of {_listed(self.metrics, self.falls)} along "
            f"{self.axes[0]} and along {self.axes[1]} lies below {self.margin:g}, {self._about()}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        sample = self._sample(runs, {name: _sign(name, self.falls) for name in self.metrics})
        if not _enough([sample]):
            return _evidence([sample])
        means = [
            [sample.grid.environments(x, sample.g, 0.5 if worst else None, [axis], self.test_size) for x in sample.x]
            for axis in self.axes
        ]
        if not all(found for along in means for found in along):
            return _evidence([sample], words=_UNDEFINED["sign_error"])
        orders, sizes, reached = _orders(means, sample.grid.configurations)
        same = orders[0] * orders[1]
        different, alike = sizes[same < 0], sizes[same > 0]
        tau, surely = float(same.mean()), float(np.quantile(reached, LEVEL))
        return _evidence(
            [sample],
            supports=_shown(different, len(same) * (1 - self.margin) / 2, reached),
            contradicts=_shown(alike, len(same) * (1 + self.margin) / 2, reached),
            words=(
                f"rank correlation {tau:.4g}; of {len(same)} pairs of measures {int((different > surely).sum())} are "
                f"shown to be in another order, {int((alike > surely).sum())} in the same"
            ),
            statistic=tau,
        )


@dataclass(frozen=True)
class _Effect:
    """A signed effect, its variance and the degrees of its t test; ``units`` and ``span`` bound it without spread."""

    value: float
    squares: float
    degrees: int
    units: int
    span: float
    fisher: bool = False

    def above(self, bound: float) -> float | None:
        """p of H0 "the effect is at most the bound"."""
        return self._p(self.value - bound, self._moved(self.value) - self._moved(bound))

    def below(self, bound: float) -> float | None:
        """p of H0 "the effect is at least the bound"."""
        return self._p(bound - self.value, self._moved(bound) - self._moved(self.value))

    def interval(self) -> tuple[float, float] | None:
        from scipy.special import stdtrit

        if self._exact:
            return None
        half = float(stdtrit(self.degrees, 0.5 + LEVEL / 2)) * self._error
        ends = self._moved(self.value) - half, self._moved(self.value) + half
        return (math.tanh(ends[0]), math.tanh(ends[1])) if self.fisher else ends

    @property
    def _exact(self) -> bool:
        return self.degrees < 1 or math.sqrt(self.squares) <= ROUNDING or (self.fisher and abs(self.value) >= 1)

    @property
    def _error(self) -> float:
        return math.sqrt(self.squares) / ((1 - self.value**2) if self.fisher else 1)

    def _moved(self, value: float) -> float:
        return math.atanh(value) if self.fisher and abs(value) < 1 else value

    def _p(self, beyond: float, moved: float) -> float | None:
        from scipy.special import stdtr

        if self.degrees < 1:
            return None
        if self._exact:
            return float((1 - beyond / self.span) ** self.units) if beyond > ROUNDING else 1.0
        return float(stdtr(self.degrees, -moved / self._error))


def _rows(samples: Sequence[Sample]) -> tuple[dict[int, str], np.ndarray]:
    """The rows without a number in one of the samples and why, and the configurations of the others."""
    reasons = {row: reason for sample in reversed(samples) for row, reason in sample.unknown.items()}
    grid = samples[0].grid
    return reasons, np.unique(np.delete(grid.configuration, [*reasons]))


def _enough(samples: Sequence[Sample]) -> bool:
    return len(_rows(samples)[1]) >= FEWEST_UNITS


def _evidence(samples: Sequence[Sample], *, words: str = "", **found: Any) -> Evidence:
    """The evidence, with what is said of the runs; without ``words`` configurations are too few."""
    grid = samples[0].grid
    reasons, configurations = _rows(samples)
    left = {"outside the window": len(outside := {row for sample in samples for row in sample.outside})}
    left["without a number"] = len(reasons.keys() - outside)
    runs = f"{len(grid.rows) - len(reasons)} {f'of {len(grid.rows)} ' if reasons else ''}runs"
    said = f"n = {len(configurations)} configurations, {runs}"
    if told := [f"{count} {what}" for what, count in left.items() if count]:
        said += f" (left out: {', '.join(told)})"
    if not words:
        said += f"; a verdict needs {FEWEST_UNITS} configurations with a number"
    return Evidence(
        **{"supports": None, "contradicts": None, **found},
        n=len(configurations),
        words=f"{words}, {said}" if words else said,
        missing=grid.missing,
        unknown=tuple(f"{grid.name(row)}: {reasons[row]}" for row in sorted(reasons)),
        unit=UNIT,
    )


def _difference(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]


def _subtracted(one: Dyads, other: Dyads) -> Dyads:
    """The difference of two means over the same pairs."""
    return replace(one, value=one.value - other.value, terms=one.terms - other.terms)


def _spread(parts: Sequence[Dyads]) -> float:
    """The variance of the mean of the parts; where it is not positive, the larger one by whole configurations."""
    found = variance(parts)
    if found > ROUNDING**2:
        return found
    sums = influence(parts, 1 + max(int(part.ends.max()) for part in parts))
    return float(sums @ sums)


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


def _sign(name: str, falls: Sequence[str]) -> int:
    return -1 if name in falls else 1


def _turned(name: str, direction: int) -> str:
    return name if direction == 1 else f"minus {name}"


def _listed(metrics: Sequence[str], falls: Sequence[str]) -> str:
    return ", ".join(_turned(name, _sign(name, falls)) for name in metrics)


def _along(axes: Sequence[str] | None) -> str:
    return "" if axes is None else f" along {' and '.join(axes)}"


def _check_sign(name: str, value: object) -> None:
    if value not in (1, -1) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; accepted: 1, -1")


def _check_metrics(value: object, *, least: int) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < least or len(set(value)) < len(value):
        raise ValueError(f"metrics is {value!r}; accepted: different metrics, at least {least}")
    return [check_metric("metrics", metric) for metric in value]


def _check_falls(value: object, metrics: Sequence[str]) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"falls is {value!r}; accepted: a list of metrics")
    for name in value:
        if name not in metrics:
            raise ValueError(f"falls names {name!r}, which is none of metrics; {nearest(str(name), metrics)}")
    return list(value)


def _check_test_size(value: object, *, needed: bool) -> None:
    if needed:
        check_integer("test_size", value, least=1, note="the test examples of the gap, for sign errors")
    elif value is not None:
        raise ValueError(f"test_size is {value!r}; accepted with another score than sign_error: null")


def _check_within(value: object) -> dict[str, tuple[float, float]] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"within is {value!r}; accepted: metrics and their least and largest number, or null")
    found = {}
    for name, ends in value.items():
        check_metric("within", name)
        if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
            raise ValueError(f"within.{name} is {ends!r}; accepted: the least and the largest number of the metric")
        low = check_number(f"within.{name}[0]", ends[0])
        found[str(name)] = (low, check_number(f"within.{name}[1]", ends[1], low=low))
    return found
