"""What treatments do in some conditions and not in others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.analysis.interaction import FEWEST, Interaction, interaction
from genbench.analysis.statistics import mean_interval
from genbench.checks import check_number, nearest
from genbench.claims.numbers import gathered, stacked
from genbench.claims.p_values import above
from genbench.claims.rules.base import (
    check_beyond,
    check_metric,
    check_setting,
    check_where,
    interest_words,
    set_plain,
)
from genbench.claims.rules.grid import grid_words, settings_of
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence, MeanTest


@dataclass(frozen=True, kw_only=True)
class Interacts:
    """Of what tells treatments apart, more than a share depends on the condition.

    The share is that of the interaction of treatments and conditions in the variance of a metric between treatments,
    without what all of them share in a condition and without noise; see
    :class:`genbench.analysis.interaction.Interaction`.
    Student's t test of the jackknife's pseudo-values of (1 − share) · interaction − share · main effects, one-sided, at
    the margin and at the share of interest. Seeds in which a run has no number are left out.

    Args:
        metric: of the runs.
        treatments: one setting and its values, at least two.
        over: settings and their values: every combination is a condition.
        along: one of ``over``: the metric is averaged over the others first; None: all conditions count.
        of: further settings of all runs.
        margin: the share to exceed, in [0, 1).
        interest: the smallest share that matters.

    Source: Efron & Stein 1981, The jackknife estimate of variance.
    """

    metric: str
    treatments: Mapping[str, Sequence[Any]]
    over: Mapping[str, Sequence[Any]]
    along: str | None = None
    of: Mapping[str, Any] | None = None
    margin: float = 0.0
    interest: float | None = None

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        margin = check_number("margin", self.margin, low=0, high=1, open_high=True)
        over = _levels("over", self.over)
        if self.along is not None and self.along not in over:
            raise ValueError(f"along is {self.along!r}; {nearest(str(self.along), [*over])}")
        treatments = _levels("treatments", self.treatments)
        if len(treatments) != 1:
            raise ValueError(f"treatments is {dict(self.treatments)!r}; accepted: one setting and its values")
        if both := treatments.keys() & over:
            raise ValueError(f"over names {min(both)}, as treatments does; accepted: other settings")
        set_plain(
            self,
            treatments=treatments,
            over=over,
            of=check_where("of", self.of or {}),
            interest=check_beyond(margin, self.interest, high=1.0),
        )

    @property
    def words(self) -> str:
        over = {self.along: self.over[self.along]} if self.along else self.over
        return (
            f"of the variance of {self.metric} between {grid_words(self.treatments)} of {named(self.of or {})} the "
            f"share that depends on {grid_words(over)} exceeds {self.margin:g}{interest_words(self.interest)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        points = settings_of(self.of or {}, {**self.treatments, **self.over})
        parts = [runs.sample(self.metric, point) for point in points]
        low, known, _ = stacked(parts)
        told = gathered(parts)
        n = int(known.sum())
        if n < FEWEST:
            return Evidence(supports=None, contradicts=None, n=n, words="no share of so few seeds", **told)
        (treatments,) = self.treatments.values()
        values = low.T[known].reshape(n, len(treatments), *(len(levels) for levels in self.over.values()))
        if self.along is not None:
            values = values.mean(tuple(2 + i for i, name in enumerate(self.over) if name != self.along))
        return self._evidence(interaction(values.reshape(n, len(treatments), -1)), told, lost=worst and n < len(known))

    def _evidence(self, found: Interaction, told: dict[str, Any], *, lost: bool) -> Evidence:
        short = self.margin if self.interest is None else self.interest
        supports, contradicts = above(found.beyond(self.margin), 0), above(-found.beyond(short), 0)
        n = len(found.main_values)
        if found.main + found.interaction <= 0:
            return Evidence(supports=1.0, contradicts=1.0, n=n, words=f"treatments do not differ, n = {n}", **told)
        values = found.share_values
        mean = mean_interval(values.tolist())
        assert mean.low is not None
        assert mean.high is not None
        distance = None if self.interest is None else self.interest - self.margin
        return Evidence(
            supports=1.0 if lost else supports,
            contradicts=1.0 if lost else contradicts,
            statistic=found.share,
            interval=(mean.low, mean.high),
            n=n,
            words=(
                f"share {found.share:.3g} [{mean.low:.3g}, {mean.high:.3g}], standard deviation between the means of "
                f"treatments {_root(found.main)}, of the interaction {_root(found.interaction)}, n = {n}"
            ),
            interest=self.interest is not None,
            tests=(MeanTest(distance, float(values.std(ddof=1)), n),),
            **told,
        )


def _root(variance: float) -> str:
    """Return a standard deviation in words; an estimate of a variance may be below 0."""
    return f"{variance**0.5:.3g}" if variance > 0 else "0"


def _levels(name: str, value: object) -> dict[str, list[Any]]:
    """``value`` as settings with at least two values each."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name} is {value!r}; accepted: settings and their values, such as {{model: [mlp, cnn]}}")
    for key, levels in value.items():
        check_setting(name, str(key))
        if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) < 2:
            raise ValueError(f"{name}.{key} is {levels!r}; accepted: a list of at least two values")
    return {str(key): list(levels) for key, levels in value.items()}
