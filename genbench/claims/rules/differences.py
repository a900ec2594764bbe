"""Differences between two sets of runs, paired by seed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.checks import check_flag, check_number
from genbench.claims.numbers import Numbers, combined, difference
from genbench.claims.p_values import above
from genbench.claims.rules.base import (
    check_apart,
    check_beyond,
    check_bounds,
    check_metric,
    check_other,
    check_where,
    constant,
    described,
    exponential,
    interest_words,
    larger,
    mean_evidence,
    mean_test,
    set_plain,
    smallest,
)
from genbench.claims.rules.combined import conjunction
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence

_RATIO = "ratio (geometric mean)"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric is larger in some runs than in others, by more than a margin.

    The number of a seed is d = metric(of) - factor · metric(than), or with ``log`` log metric(of) - log metric(than).
    Student's t test of the mean of d, one-sided, at the margin and at the effect of interest; where d is
    equal in every seed, the exact sign test (p = 2⁻ⁿ), which is one of the median.

    Args:
        metric: of the runs.
        of: settings of the runs whose metric is larger.
        than: settings of the others, or a number; None: the same runs, by ``than_metric``.
        than_metric: metric of the others; None: the same.
        factor: multiplies the metric of the others: "at least 0.8 times as much"; not with ``log``.
        margin: the difference to exceed, 0 by default; with ``log`` the ratio, 1 by default.
        interest: the smallest difference (ratio) that matters, beyond the margin.
        log: compare by ratios; the metrics must be positive.
        bounds: the least and the largest number of both metrics, for runs that diverged.

    Source: Student 1908, The probable error of a mean.
    """

    metric: str
    of: Mapping[str, Any]
    than: Mapping[str, Any] | float | None = None
    than_metric: str | None = None
    factor: float = 1.0
    margin: float | None = None
    interest: float | None = None
    log: bool = False
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        if self.than_metric is not None:
            check_metric("than_metric", self.than_metric)
        if self.than is None and self.than_metric in (None, self.metric):
            raise ValueError("than is null; accepted: settings or a number, or null with another than_metric")
        check_flag("log", self.log)
        check_number("factor", self.factor, low=0, open_low=True)
        if self.log and self.factor != 1:
            raise ValueError(f"factor is {self.factor!r}; accepted with log: 1, as the margin is a ratio")
        margin = _margin(self.margin, self.log)
        if self.than_metric in (None, self.metric):
            check_other("than", self.than, self.of)
        set_plain(
            self,
            of=check_where("of", self.of),
            than=_other("than", self.than, self.log),
            margin=margin,
            interest=check_beyond(margin, self.interest),
            bounds=check_bounds(self.bounds),
        )

    @property
    def words(self) -> str:
        left, right = f"{self.metric} of {named(self.of)}", _told(self.than, self.than_metric or self.metric, self.of)
        if self.factor != 1:
            right = f"{self.factor:g} times {right}"
        if self.log:
            return f"the ratio of {left} to {right} exceeds {self.margin:g}{interest_words(self.interest)}"
        return f"{left} exceeds {right} by more than {self.margin:g}{interest_words(self.interest)}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        assert self.margin is not None
        right = self.of if self.than is None else self.than
        other = self.than_metric or self.metric
        numbers = _paired(runs, self.metric, self.of, other, right, self.bounds, self.log, factor=self.factor)
        if not self.log:
            margin, interest = self.margin, self.interest
            return mean_evidence(numbers, margin=margin, interest=interest, what="mean difference", worst=worst)
        margin, interest = math.log(self.margin), None if self.interest is None else math.log(self.interest)
        return mean_evidence(numbers, margin=margin, interest=interest, what=_RATIO, worst=worst, shown=exponential)


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A metric is within a margin of a number, or of that of other runs.

    The number of a seed is d = metric(of) - to, or the logarithm of their ratio. Replicated by the larger p of the two
    one-sided t tests of -margin < d and d < margin; not replicated by twice the smaller p of those of d < -margin and
    margin < d.

    Args:
        metric: of the runs.
        of: their settings.
        to: a number, or the settings of the other runs; None: the same runs, by ``to_metric``.
        to_metric: metric of the others; None: the same.
        margin: the largest difference; with ``log`` the largest ratio, above 1.
        log: compare by ratios; the metrics must be positive.
        bounds: the least and the largest number of the metric, for runs that diverged.

    Source: Schuirmann 1987, A comparison of the two one-sided tests procedure.
    """

    metric: str
    of: Mapping[str, Any]
    to: Mapping[str, Any] | float | None = None
    to_metric: str | None = None
    margin: float
    log: bool = False
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        check_flag("log", self.log)
        check_number("margin", self.margin, low=1 if self.log else 0, open_low=True)
        if self.to_metric is not None:
            check_metric("to_metric", self.to_metric)
        if self.to is None and self.to_metric in (None, self.metric):
            raise ValueError("to is null; accepted: a number, or the settings of other runs; null with a to_metric")
        if self.to_metric in (None, self.metric):
            check_other("to", self.to, self.of)
        set_plain(
            self,
            of=check_where("of", self.of),
            to=_other("to", self.to, self.log),
            bounds=check_bounds(self.bounds),
        )

    @property
    def words(self) -> str:
        how = f"within a factor of {self.margin:g} of" if self.log else f"within {self.margin:g} of"
        to = _told(self.to, self.to_metric or self.metric, self.of)
        return f"{self.metric} of {named(self.of)} is {how} {to}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        other = self.of if self.to is None else self.to
        numbers = _paired(runs, self.metric, self.of, self.to_metric or self.metric, other, self.bounds, self.log)
        low, high = numbers.ends(worst)
        margin, rounding = math.log(self.margin) if self.log else float(self.margin), numbers.rounding
        return Evidence(
            supports=larger(
                above(low, -margin, rounding=rounding),
                above(-high, -margin, rounding=rounding),
            ),
            contradicts=smallest(
                above(low, margin, rounding=rounding),
                above(-high, margin, rounding=rounding),
            ),
            n=len(low),
            tests=(mean_test(numbers, margin, both_sides=True),),
            missing=numbers.missing,
            unknown=numbers.unknown,
            **(described(numbers, _RATIO, exponential) if self.log else described(numbers, "mean difference")),
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """A metric rises from each of some sets of runs to the next.

    A conjunction of :class:`Difference` of neighbours: replicated by the largest p, not replicated by the smallest
    times their number (Bonferroni).

    Args:
        metric: of the runs.
        of: the settings of each set, the one with the smallest metric first.
        margin, interest, log, bounds: of each difference, see :class:`Difference`.

    Source: Berger 1982, Multiparameter hypothesis testing and acceptance sampling (intersection-union test).
    """

    metric: str
    of: Sequence[Mapping[str, Any]]
    margin: float | None = None
    interest: float | None = None
    log: bool = False
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.of, Sequence) or isinstance(self.of, str) or len(self.of) < 2:
            raise ValueError(f"of is {self.of!r}; accepted: a list of the settings of at least two sets of runs")
        set_plain(self, of=[check_where("of", where) for where in self.of])
        for before, after in itertools.combinations(self.of, 2):
            if before == after:
                raise ValueError(
                    f"of has {named(after)} twice; accepted: other runs in each, as none rises above itself"
                )
        first = self._differences[0]  # checks the other settings
        set_plain(self, margin=first.margin, interest=first.interest, bounds=first.bounds)

    @property
    def _differences(self) -> list[Difference]:
        return [
            Difference(
                metric=self.metric,
                of=after,
                than=before,
                margin=self.margin,
                interest=self.interest,
                log=self.log,
                bounds=self.bounds,
            )
            for before, after in itertools.pairwise(self.of)
        ]

    @property
    def words(self) -> str:
        return " and ".join(each.words for each in self._differences)

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        found = [each.evidence(runs, worst=worst) for each in self._differences]
        pairs = itertools.pairwise(map(named, self.of))
        return conjunction(found, [f"{after} above {before}" for before, after in pairs])


def _paired(
    runs: ClaimRuns,
    metric: str,
    of: Mapping[str, Any],
    other_metric: str,
    other: Mapping[str, Any] | float,
    bounds: Sequence[float] | None,
    log: bool,
    *,
    factor: float = 1.0,
) -> Numbers:
    """Return the differences of each seed."""
    left = runs.sample(metric, of, bounds=bounds)
    right = runs.sample(other_metric, other, bounds=bounds) if isinstance(other, Mapping) else constant(runs, other)
    if isinstance(other, Mapping) and other_metric == metric:
        check_apart(runs, [left, right], [of, other])
    return difference(left.log(), right.log()) if log else combined([1, -factor], [left, right])


def _margin(margin: object, log: bool) -> float:
    if margin is None:
        return 1.0 if log else 0.0
    return (
        check_number("margin", margin, low=0, open_low=True, note="a ratio") if log else check_number("margin", margin)
    )


def _other(name: str, value: object, log: bool) -> dict[str, Any] | float | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return check_where(name, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; accepted: a number, or the settings of other runs")
    return check_number(name, value, low=0, open_low=True, note="with log") if log else check_number(name, value)


def _told(other: object, metric: str, of: Mapping[str, Any]) -> str:
    if other is None:
        return f"{metric} of the same runs"
    return f"{metric} of {named(other)}" if isinstance(other, Mapping) else f"{other:g}"
