"""Contrasts of several sets of runs, and the distance of two curves, paired by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.checks import check_integer, check_number, nearest
from genbench.claims.numbers import Numbers, combined, reduced
from genbench.claims.rules.base import (
    check_apart,
    check_beyond,
    check_bounds,
    check_metric,
    check_other,
    check_where,
    interest_words,
    mean_evidence,
    plain,
    set_plain,
)
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence

_TERM = ("weight", "of", "metric")


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A weighted sum of a metric over several sets of runs exceeds a margin: one effect is larger than another, say.

    The number of a seed is Σ weight · metric(of); Student's t test of its mean, one-sided, at the margin and at the
    effect of interest.

    Args:
        metric: of the runs.
        terms: for each set ``of``, its settings, and ``weight``, a number other than 0; at least two. A term may have
            a ``metric`` of its own.
        margin: the sum to exceed.
        interest: the smallest sum that matters.
        bounds: the least and the largest number of the metric, for runs that diverged.

    Source: Student 1908, The probable error of a mean.
    """

    metric: str
    terms: Sequence[Mapping[str, Any]]
    margin: float = 0.0
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        margin = check_number("margin", self.margin)
        set_plain(
            self,
            terms=_terms(self.terms),
            interest=check_beyond(margin, self.interest),
            bounds=check_bounds(self.bounds),
        )

    @property
    def words(self) -> str:
        parts = [
            f"{each['weight']:+g} × {each.get('metric', self.metric)} of {named(each['of'])}" for each in self.terms
        ]
        return f"{' '.join(parts)} exceeds {self.margin:g}{interest_words(self.interest)}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        metrics = [each.get("metric", self.metric) for each in self.terms]
        parts = [
            runs.sample(name, each["of"], bounds=self.bounds) for name, each in zip(metrics, self.terms, strict=True)
        ]
        for metric in dict.fromkeys(metrics):
            own = [i for i, name in enumerate(metrics) if name == metric]
            check_apart(runs, [parts[i] for i in own], [self.terms[i]["of"] for i in own])
        numbers = combined([each["weight"] for each in self.terms], parts)
        return mean_evidence(numbers, margin=self.margin, interest=self.interest, what="mean contrast", worst=worst)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """The curves of two sets of runs are close: their mean absolute difference is below a share of another metric.

    The number of a seed is d = factor · than − mean over the steps of |metric(of) − metric(to)|; Student's t test of
    the mean of d, one-sided, at the margin and at the effect of interest. A maximum over the steps would grow with
    their number, a mean does not. Distances of curves that differ by noise alone are skewed: where their mean is just
    the bound, a test at 2.5 % is wrong in 4.2 % of the cases with three steps and in 3.6 % with twelve (5 to 16 seeds,
    simulated); two standard deviations apart, in at most 2.9 %.

    Args:
        metric: of the runs, with one ``*`` in place of a step, such as test/trajectory/soft_error_at_*.
        steps: at least two, in ascending order.
        of, to: settings of the two sets of runs.
        until: a metric of the ``of`` runs, the last step that counts in a seed; None, or null in a run: all count. A
            seed in which none counts has no number.
        than: a number, or a metric of the ``of`` runs.
        factor: multiplies it.
        margin: by which the distance is less.
        interest: the smallest such difference that matters.
        bounds: the least and the largest number of both metrics, for runs that diverged.

    Source: Student 1908, The probable error of a mean.
    """

    metric: str
    steps: Sequence[int]
    of: Mapping[str, Any]
    to: Mapping[str, Any]
    until: str | None = None
    than: float | str
    factor: float = 1.0
    margin: float = 0.0
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if check_metric("metric", self.metric).count("*") != 1:
            raise ValueError(f"metric is {self.metric!r}; accepted: a name with one * in place of a step")
        if not isinstance(self.steps, Sequence) or isinstance(self.steps, str) or len(self.steps) < 2:
            raise ValueError(f"steps is {self.steps!r}; accepted: a list of at least two steps")
        steps = [check_integer(f"steps[{index}]", step, least=0) for index, step in enumerate(self.steps)]
        if steps != sorted(set(steps)):
            raise ValueError(f"steps is {list(self.steps)!r}; accepted: different steps in ascending order")
        if self.until is not None:
            check_metric("until", self.until)
        if not isinstance(self.than, str) or not self.than:
            check_number("than", self.than, note="or the name of a metric")
        check_number("factor", self.factor, low=0, open_low=True)
        margin = check_number("margin", self.margin)
        check_other("to", self.to, self.of)
        set_plain(
            self,
            steps=steps,
            of=check_where("of", self.of),
            to=check_where("to", self.to),
            interest=check_beyond(margin, self.interest),
            bounds=check_bounds(self.bounds),
        )

    @property
    def words(self) -> str:
        until = "" if self.until is None else f" until {self.until} of the former"
        than = self.than if isinstance(self.than, str) else f"{self.than:g}"
        return (
            f"the mean absolute difference of {self.metric} between {named(self.of)} and {named(self.to)}{until} is "
            f"less than {self.factor:g} × {than} by more than {self.margin:g}{interest_words(self.interest)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        return mean_evidence(
            self._numbers(runs), margin=self.margin, interest=self.interest, what="mean margin", worst=worst
        )

    def _numbers(self, runs: ClaimRuns) -> Numbers:
        names = [self.metric.replace("*", str(step)) for step in self.steps]
        ours, theirs = (
            [runs.sample(name, where, bounds=self.bounds) for name in names] for where in (self.of, self.to)
        )
        check_apart(runs, [ours[0], theirs[0]], [self.of, self.to])
        extra = [] if self.until is None else [runs.sample(self.until, self.of, bounds=(0, np.inf), null=np.inf)]
        limit = [runs.sample(self.than, self.of, bounds=self.bounds)] if isinstance(self.than, str) else []
        parts = [*ours, *theirs, *extra, *limit]
        low, high = (np.stack([getattr(part, end) for part in parts]) for end in ("low", "high"))
        k = len(names)
        last = extra[0].high if extra else np.full(low.shape[1], np.inf)
        counts = np.asarray(self.steps)[:, None] <= last
        known = (low[: 2 * k] == high[: 2 * k]).reshape(2, k, -1).all(0)
        known = (known | ~counts).all(0) & counts.any(0)  # a step that does not count need not be known
        for part in (*extra, *limit):
            known &= part.low == part.high
        with np.errstate(invalid="ignore"):
            apart = np.where(counts, np.abs(low[:k] - low[k : 2 * k]), 0.0).sum(0) / np.maximum(1, counts.sum(0))
            value = self.factor * (limit[0].low if limit else float(self.than)) - apart
        least, most = -np.inf, np.inf
        if self.bounds is not None:
            least = self.factor * (self.bounds[0] if limit else float(self.than)) - (self.bounds[1] - self.bounds[0])
            most = self.factor * (self.bounds[1] if limit else float(self.than))
        absent = np.isnan(low).any(0)
        scale = max(part.scale for part in parts if np.isfinite(part.scale))
        return reduced(
            parts,
            np.where(absent, np.nan, np.where(known, value, least)),
            np.where(absent, np.nan, np.where(known, value, most)),
            scale=scale,
        )


def _terms(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < 2:
        raise ValueError(f"terms is {value!r}; accepted: at least two of {{weight: a number, of: settings}}")
    found = []
    for index, term in enumerate(value):
        name = f"terms[{index}]"
        if not isinstance(term, Mapping) or not {"weight", "of"} <= set(term):
            raise ValueError(f"{name} is {term!r}; accepted: {{weight: a number, of: settings}}")
        if unknown := [str(key) for key in term if key not in _TERM]:
            raise ValueError(f"{name}.{unknown[0]} is not a setting; {nearest(unknown[0], _TERM)}")
        if check_number(f"{name}.weight", term["weight"]) == 0:
            raise ValueError(f"{name}.weight is 0; accepted: another number")
        check_where(f"{name}.of", term["of"])
        if "metric" in term:
            check_metric(f"{name}.metric", term["metric"])
        found.append(plain(term))
    return found
