"""A metric along a setting, within each seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genbench.checks import check_choice, check_flag, check_number
from genbench.claims.numbers import Numbers, combined, difference, gathered, reduced, stacked
from genbench.claims.p_values import kendall
from genbench.claims.rules.base import (
    check_beyond,
    check_bounds,
    check_levels,
    check_metric,
    check_where,
    interest_words,
    larger,
    levels_words,
    mean_evidence,
    set_plain,
    smallest,
)
from genbench.claims.rules.combined import conjunction
from genbench.claims.rules.shares import share_evidence
from genbench.claims.runs import ClaimRuns, merged, named
from genbench.claims.verdict import Evidence

RISES, FALLS = "rises", "falls"


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A metric rises (falls) along a setting.

    A conjunction: the share of seeds whose Kendall's τ-b of the setting and the metric is at least ``tau`` is above one
    half (exact binomial test), and the metric at the last level exceeds that at the first by more than ``margin`` (t
    test paired by seed). Replicated by the larger p; not replicated by twice the smaller. A metric that is equal at all
    levels has no trend.

    Args:
        metric: of the runs.
        along: the setting and its levels, in ascending order, at least three.
        of: further settings of the runs.
        direction: ``rises`` or ``falls``.
        tau: the least τ of a seed, in (0, 1]; of a falling metric, of its negative.
        margin: the least difference of the extreme levels, in the direction.
        interest: the smallest such difference that matters.
        bounds: the least and the largest number of the metric, for runs that diverged.

    Source: Kendall 1938, A new measure of rank correlation.
    """

    metric: str
    along: Mapping[str, Sequence[float]]
    of: Mapping[str, Any]
    direction: str = RISES
    tau: float
    margin: float = 0.0
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_number("tau", self.tau, low=0, high=1, open_low=True)
        _check_curve(self)

    @property
    def words(self) -> str:
        seeds = f"τ at least {self.tau:g} in more than half of the seeds"
        return f"{_curve_words(self)} ({seeds}), by more than {self.margin:g}{interest_words(self.interest)}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        levels, parts = _curve(self, runs)
        low, known, absent = stacked(parts)
        taus = np.full(len(known), np.nan)
        taus[known] = kendall(levels, low[:, known])
        holds = np.nan_to_num(taus, nan=-1.0) >= self.tau - 1e-12
        least = np.where(absent, np.nan, np.where(known, holds, 0.0))
        most = np.where(absent, np.nan, np.where(known, holds, 1.0))
        shares = share_evidence(reduced(parts, least, most), share=0.5, interest=None, worst=worst)
        ends = mean_evidence(
            difference(parts[-1], parts[0]),
            margin=self.margin,
            interest=self.interest,
            what="mean difference",
            worst=worst,
        )
        found = conjunction([shares, ends], [f"τ at least {self.tau:g}", "last level above the first"])
        return replace(found, statistic=shares.statistic, interval=shares.interval)


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The least-squares slope of a metric along a setting exceeds a margin.

    The number of a seed is Σ (x - x̄) y / Σ (x - x̄)², y the metric and x the setting, or the logarithms of either;
    t test over seeds.

    Args:
        metric: of the runs.
        along: the setting and its levels, in ascending order.
        of: further settings of the runs.
        direction: ``rises``, or ``falls``: then the slope of the negative metric counts.
        log_along: take the logarithm of the setting.
        log: take the logarithm of the metric.
        margin: the slope to exceed.
        interest: the smallest slope that matters.
        bounds: the least and the largest number of the metric, for runs that diverged.

    Source: Matthews et al. 1990, Analysis of serial measurements in medical research (one summary a subject).
    """

    metric: str
    along: Mapping[str, Sequence[float]]
    of: Mapping[str, Any]
    direction: str = RISES
    log_along: bool = False
    log: bool = False
    margin: float = 0.0
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_flag("log", self.log)
        check_flag("log_along", self.log_along)
        _check_curve(self, least=2)
        if self.log_along:
            _check_positive("along", self.along, note=" with log_along")

    @property
    def words(self) -> str:
        setting, levels = next(iter(self.along.items()))
        x, y = (f"log {name}" if log else name for name, log in ((setting, self.log_along), (self.metric, self.log)))
        sign = "" if self.direction == RISES else "minus "
        exceeds = f"exceeds {self.margin:g}{interest_words(self.interest)}"
        return f"{sign}the slope of {y} on {x}, {levels_words(setting, levels)}, of {named(self.of)}, {exceeds}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        levels, parts = _curve(self, runs, log=self.log)
        x = np.log(levels) if self.log_along else levels
        x = x - x.mean()
        slopes = combined((x / float(x @ x)).tolist(), parts)
        return mean_evidence(slopes, margin=self.margin, interest=self.interest, what="mean slope", worst=worst)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A metric along a setting has a maximum (minimum) inside: some interior level exceeds both ends.

    p = K · min over the K interior levels of the larger of the p values of both differences, from the first level and
    from the last (t tests paired by seed); the maximum may not be chosen on the data that are tested. Not replicated if
    every interior level is short of the interest on a side: by the largest over levels of twice the smaller p.

    Args:
        metric: of the runs.
        along: the setting and its levels, in ascending order, at least three.
        of: further settings of the runs.
        kind: ``maximum`` or ``minimum``.
        margin: the least height above both ends.
        interest: the smallest height that matters.
        bounds: the least and the largest number of the metric, for runs that diverged.

    Source: Berger 1982, Multiparameter hypothesis testing and acceptance sampling (intersection-union test), and
    Bonferroni's correction over the levels.
    """

    metric: str
    along: Mapping[str, Sequence[float]]
    of: Mapping[str, Any]
    kind: str = "maximum"
    margin: float = 0.0
    interest: float | None = None
    bounds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("maximum", "minimum"))
        _check_curve(self)

    @property
    def words(self) -> str:
        setting, levels = next(iter(self.along.items()))
        return (
            f"{self.metric} of {named(self.of)} has a {self.kind} inside {levels_words(setting, levels)}, "
            f"{'above' if self.kind == 'maximum' else 'below'} both ends by more than {self.margin:g}"
            f"{interest_words(self.interest)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        levels, parts = _curve(self, runs)
        what, side = ("height", "above") if self.kind == "maximum" else ("depth", "below")
        inside = [
            [
                mean_evidence(difference(part, end), margin=self.margin, interest=self.interest, what=what, worst=worst)
                for end in (parts[0], parts[-1])
            ]
            for part in parts[1:-1]
        ]
        supports = [larger(*(side.supports for side in sides)) for sides in inside]
        known = [(p, i) for i, p in enumerate(supports) if p is not None]
        best = min(known)[1] if known else 0
        means = [float(np.mean(values)) if len(values := part.ends(False)[0]) else -np.inf for part in parts]
        top, end = levels[int(np.argmax(means))], "highest" if self.kind == "maximum" else "lowest"
        sides = inside[best]
        low = min((side for side in sides if side.statistic is not None), key=_statistic, default=sides[0])
        return Evidence(
            supports=smallest(*supports),
            contradicts=larger(*(smallest(*(side.contradicts for side in sides)) for sides in inside)),
            statistic=low.statistic,
            interval=low.interval,
            n=min(side.n for sides in inside for side in sides),
            words=(
                f"surest at {levels[1 + best]:g} (the {end} mean is at {top:g}), {side} the end at "
                f"{levels[0 if low is sides[0] else -1]:g}: {low.words}"
            ),
            interest=self.interest is not None,
            tests=tuple(test for side in sides for test in side.tests),
            **gathered(parts),
        )


@dataclass(frozen=True, kw_only=True)
class PeakSlope:
    """The best level of one setting moves along another: the slope of its logarithm on that of the other exceeds a
    margin.

    Where the best level lies is v = Σ w u / Σ w, over the levels of ``peak`` with logarithms u and weights
    w = exp((y - max y) / drop), y the metric: a level that is ``drop`` worse than the best weighs 1/e. Of curves that
    keep their shape and move, v moves as far, whatever the shape; the vertex of a parabola does so for parabolas alone.
    The slope is s = Σ (x - x̄) v / Σ (x - x̄)², x the logarithms of the levels of ``along``.

    v is no linear function of y. So y is the mean over seeds, and the number of a seed its pseudo-value
    n s - (n - 1) s₋ᵢ, s₋ᵢ the slope without it (the jackknife, which takes away most of the bias); t test over seeds.
    For how often it errs see docs/error-rates.md. Choose ``drop`` about half of the standard deviation of a seed to all
    of it: much less, and the best of noisy levels decides; much more, and the ends of the grid draw v to its middle.
    And choose levels so dense that those beside the best one are at most about two drops worse. Where they are more,
    v sticks to levels: at 3.4 drops the rule errs in 7 to 16 % of simulated cases at 2.5 %.

    Only a curve that falls to both sides inside the grid counts, by at least 3 drops from its best level to each end:
    to cut it at an end would draw the slope toward 0. If the mean curve of a level does not, with all seeds or without
    one of them, no seed has a number, and nothing is decided. So choose levels beyond both sides of the best ones.

    Args:
        metric: of the runs.
        along: the outer setting and its levels, positive, in ascending order, at least two.
        peak: the inner setting, whose best level moves, and its levels, positive, in ascending order, at least three.
        of: further settings of the runs.
        drop: of the metric, > 0; a level that is so much worse than the best weighs 1/e.
        direction: ``rises``, or ``falls``: then the negative slope counts.
        kind: ``maximum`` or ``minimum`` of the metric.
        margin: the slope to exceed; 1 is proportional.
        interest: the smallest slope that matters.
        diverged: the metric of a run that diverged, such as the accuracy of chance. None: its seed has no number, and
            at its worst any number, so that nothing is decided.

    Source: Smith & Le 2018, A Bayesian perspective on generalization and stochastic gradient descent (the best batch
    size is proportional to the learning rate and to the size of the train set); Tukey 1958, Bias and confidence in
    not-quite large samples (the jackknife).
    """

    metric: str
    along: Mapping[str, Sequence[float]]
    peak: Mapping[str, Sequence[float]]
    of: Mapping[str, Any]
    drop: float
    direction: str = RISES
    kind: str = "maximum"
    margin: float = 0.0
    interest: float | None = None
    diverged: float | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("maximum", "minimum"))
        check_number("drop", self.drop, low=0, open_low=True)
        if self.diverged is not None:
            check_number("diverged", self.diverged)
        _check_curve(self, least=2)
        inner, levels = check_levels("peak", self.peak, least=3)
        set_plain(self, peak={inner: levels})
        for level in levels:
            merged(self.of, {inner: level})
        _check_positive("along", self.along)
        _check_positive("peak", self.peak)
        if inner in self.along:
            raise ValueError(f"peak and along are both about {inner}; accepted: two settings")

    @property
    def words(self) -> str:
        sign = "" if self.direction == RISES else "minus "
        lost = "" if self.diverged is None else f", and {self.diverged:g} stands for a run that diverged"
        (outer, levels), (inner, columns) = next(iter(self.along.items())), next(iter(self.peak.items()))
        return (
            f"{sign}the slope of log {inner} at the {self._inside} {levels_words(inner, columns)} (the mean of log "
            f"{inner}, where a level that is x from the best weighs exp(-x/{self.drop:g}){lost}) on log {outer}, "
            f"{levels_words(outer, levels)}, of {named(self.of)}, less its bias by the jackknife over seeds, exceeds "
            f"{self.margin:g}{interest_words(self.interest)}"
        )

    @property
    def _inside(self) -> str:
        return f"{self.kind} of the mean over seeds of {self.metric} inside"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        return mean_evidence(
            self._numbers(runs), margin=self.margin, interest=self.interest, what="jackknife slope", worst=worst
        )

    def _numbers(self, runs: ClaimRuns) -> Numbers:
        """Return the pseudo-value of each seed."""
        (outer, rows), (inner, columns) = next(iter(self.along.items())), next(iter(self.peak.items()))
        parts = [
            runs.sample(self.metric, merged(self.of, {outer: x, inner: u}), diverged=self.diverged)
            for x in rows
            for u in columns
        ]
        values, known, absent = stacked(parts)
        numbers, lost = np.full(len(known), np.nan), []
        if (n := int(known.sum())) > 1:
            curves = values[:, known] * (1 if self.kind == "maximum" else -1)
            mean = curves.mean(1, keepdims=True)
            curves = np.hstack([mean, mean + (mean - curves) / (n - 1)])  # of all seeds, and without each
            best, inside = _best(np.log(columns), curves.reshape(len(rows), len(columns), n + 1), self.drop)
            logs = np.log(rows) - np.log(rows).mean()
            slopes = (logs @ best / float(logs @ logs)) * (1 if self.direction == RISES else -1)
            lost = [
                f"{outer}={level:g}: no {self._inside} {inner} = {columns[0]:g} … {columns[-1]:g}"
                for level, fine in zip(rows, inside, strict=True)
                if not fine
            ]
            if not lost:
                numbers[known] = n * slopes[0] - (n - 1) * slopes[1:]
        has = ~np.isnan(numbers)
        low, high = (np.where(absent, np.nan, np.where(has, numbers, end)) for end in (-np.inf, np.inf))
        found = reduced(parts, low, high, scale=float(np.abs(np.log(columns)).max()))
        return replace(found, unknown=(*found.unknown, *lost))


_FALL = 3  # drops from the best level to both ends: these weigh at most e⁻³


def _best(u: np.ndarray, curves: np.ndarray, drop: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where the best level of curves [rows, u, n] lies, and for each row whether all fall to both ends."""
    lower = (curves - curves.max(1, keepdims=True)) / drop
    weights = np.exp(lower)
    return np.einsum("run,u->rn", weights, u) / weights.sum(1), (lower[:, [0, -1]] <= -_FALL).all((1, 2))


def _statistic(side: Evidence) -> float:
    assert side.statistic is not None
    return side.statistic


def _check_curve(rule: Trend | Slope | Peak | PeakSlope, *, least: int = 3) -> None:
    check_metric("metric", rule.metric)
    if not isinstance(rule, Peak):
        check_choice("direction", rule.direction, (RISES, FALLS))
    margin = check_number("margin", rule.margin)
    setting, levels = check_levels("along", rule.along, least=least)
    set_plain(
        rule, along={setting: levels}, of=check_where("of", rule.of), interest=check_beyond(margin, rule.interest)
    )
    for level in levels:
        merged(rule.of, {setting: level})  # refuses two values of a setting
    if not isinstance(rule, PeakSlope):
        set_plain(rule, bounds=check_bounds(rule.bounds))


def _check_positive(name: str, along: Mapping[str, Sequence[float]], *, note: str = "") -> None:
    setting, levels = next(iter(along.items()))
    if min(levels) <= 0:
        raise ValueError(f"{name}.{setting} is {levels!r}; accepted{note}: positive numbers")


def _curve(rule: Trend | Slope | Peak, runs: ClaimRuns, *, log: bool = False) -> tuple[np.ndarray, list[Numbers]]:
    """Return the levels, and the metric at each: its negative if the rule is about falling or a minimum."""
    setting, levels = next(iter(rule.along.items()))
    parts = [runs.sample(rule.metric, merged(rule.of, {setting: level}), bounds=rule.bounds) for level in levels]
    parts = [part.log() for part in parts] if log else parts
    down = rule.kind == "minimum" if isinstance(rule, Peak) else rule.direction == FALLS
    return np.asarray(levels, dtype=np.float64), [combined([-1], [part]) for part in parts] if down else parts


def _curve_words(rule: Trend) -> str:
    return f"{rule.metric} of {named(rule.of)} {rule.direction} along {levels_words(*next(iter(rule.along.items())))}"
