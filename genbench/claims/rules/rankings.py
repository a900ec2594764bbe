"""How well measures rank the runs of a grid by their gap, the configuration as the unit."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from genbench.analysis.dyads import Dyads, influence, variance
from genbench.analysis.sign_errors import FEWEST_CONTEXTS
from genbench.analysis.statistics import LEVEL, ROUNDING, holm
from genbench.checks import check_choice, check_number
from genbench.claims.rules.base import check_beyond, check_metric, interest_words, set_plain
from genbench.claims.rules.grid_runs import Environment, Sample, keys_of
from genbench.claims.rules.of_grid import (
    UNDEFINED,
    OfGrid,
    along_words,
    check_falls,
    check_metrics,
    check_sign,
    check_test_size,
    enough,
    evidence_of,
    listed,
    sign_of,
    turned,
)
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import Evidence

SCORES = {"tau": "Kendall's τ", "psi": "the granulated Ψ", "sign_error": "the mean sign error"}
_ENDS = {"tau": (-1.0, 1.0), "psi": (-1.0, 1.0), "sign_error": (0.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Ranks(OfGrid):
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
            check_sign(name, getattr(self, name))
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
        check_test_size(self.test_size, needed=self.score == "sign_error")
        if self.score == "sign_error":
            if self.gap in keys_of(self.over):
                raise ValueError(f"gap is {self.gap!r}, a setting; accepted with sign_error: a metric of the 0-1 error")
            if self.than_gap is not None:
                raise ValueError(f"than_gap is {self.than_gap!r}; accepted with sign_error: null, as it weighs pairs")

    @property
    def words(self) -> str:
        than_gap = "" if self.than_gap is None else f" with {self.than_gap}"
        told = f"{SCORES[self.score]}{along_words(self.axes)} of {turned(self.metric, self.direction)} with {self.gap}"
        margin, interest = self.margin, self.interest
        if self.than_metric is not None:
            other = f"that of {turned(self.than_metric, self.than_direction)}{than_gap}"
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
        if not enough(samples):
            return evidence_of(samples)
        least, most = sorted(self.sign * end for end in _ENDS[self.score])
        one = self._effect(samples, None)
        low, high = (self._effect(samples, fill) for fill in (least, most)) if worst else (one, one)
        if one is None:
            return evidence_of(samples, words=UNDEFINED[self.score])
        short = self.margin if self.interest is None else self.interest
        value, interval = self.sign * one.value, one.interval()
        said = f"{'' if len(samples) == 1 else 'difference of '}{SCORES[self.score].removeprefix('the ')} {value:.4g}"
        if interval is not None:
            low_end, high_end = sorted(self.sign * end for end in interval)
            interval = low_end, high_end
            said += f" [{low_end:.4g}, {high_end:.4g}]"
        return evidence_of(
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
class RanksWrongly(OfGrid):
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
        set_plain(self, metrics=check_metrics(self.metrics, least=1))
        set_plain(self, falls=check_falls(self.falls, self.metrics))
        if self.axes is not None:
            set_plain(self, axes=self._check_axes(self.axes))
        check_test_size(self.test_size, needed=True)

    @property
    def words(self) -> str:
        where = f"an environment{along_words(self.axes)} in which its sign error by {self.gap} exceeds 0.5"
        return f"each of {listed(self.metrics, self.falls)} has {where}, {self._about()}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        samples = [self._sample(runs, {name: sign_of(name, self.falls)}) for name in self.metrics]
        if not enough(samples):
            return evidence_of(samples)
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
        return evidence_of(
            samples,
            supports=max(supports),
            contradicts=min(1.0, len(samples) * min(contradicts)),
            words=said,
            statistic=min((each.value for each in largest), default=None),
        )

    def _environments(self, sample: "Sample", fill: float | None) -> list["Environment"]:
        found = sample.grid.environments(*sample.values(), fill, self.axes, self.test_size)
        return [each for each in found if each.dyads.contexts >= FEWEST_CONTEXTS]


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
