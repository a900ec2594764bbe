"""Rank correlations of two metrics over settings, within each seed, or over groups of runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genbench.checks import check_number
from genbench.claims.numbers import Numbers, combined, reduced, stacked
from genbench.claims.p_values import spearman
from genbench.claims.rules.base import (
    FEWEST_UNITS,
    check_apart,
    check_beyond,
    check_metric,
    check_where,
    interest_words,
    mean_evidence,
    set_plain,
)
from genbench.claims.rules.grid import Grid, check_grid, grid_words, settings_of
from genbench.claims.runs import ClaimRuns, merged, named
from genbench.claims.verdict import Evidence

_FEWEST = 4  # points of a correlation
_GROUP = "group"


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Two metrics are correlated over settings.

    The number of a seed is z = artanh ρ, ρ Spearman's over the settings; t test over seeds at artanh of the margin. ρ
    is cut at ±(1 - 6/(K³ - K)) for K settings, half way between 1 and the next smaller value. A metric that is equal in
    all settings of a seed has no correlation: the seed has no number.

    With ``groups`` the unit is a group of runs instead of a seed: one correlation of all runs, z, and a t test of its
    pseudo-values G z - (G - 1) z₋ᵍ, z₋ᵍ that without group g (the studentized jackknife), conditional on the grid. At
    2.5 % it errs in 1.8 to 3.6 % of simulated nulls with 20 to 30 groups of one to five normal runs, in up to 4 %
    of skewed ones.

    Args:
        metrics: two metrics.
        over: settings and their values, every combination of which has a run a seed; or a list of settings. At least
            four.
        of: further settings of the runs.
        margin: the mean correlation to exceed, in (-1, 1); a claim of a negative one has ``sign`` -1.
        interest: the smallest correlation that matters.
        sign: 1, or -1: the negative correlation counts.
        groups: a setting of ``over`` or several, runs with the same value are a group, at least 20; None: by seeds.

    Source: Spearman 1904; Fisher 1915, Frequency distribution of the values of the correlation coefficient; Tukey 1958,
    Bias and confidence in not-quite large samples (the jackknife).
    """

    metrics: Sequence[str]
    over: Grid
    of: Mapping[str, Any]
    margin: float = 0.0
    interest: float | None = None
    sign: int = 1
    groups: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        margin = check_number("margin", self.margin, low=-1, high=1, open_low=True, open_high=True)
        interest = check_beyond(margin, self.interest, high=1)
        if interest == 1:
            raise ValueError("interest is 1; accepted: a number below 1, or null")
        if self.sign not in (1, -1) or isinstance(self.sign, bool):
            raise ValueError(f"sign is {self.sign!r}; accepted: 1, -1")
        set_plain(
            self,
            metrics=_check_pair("metrics", self.metrics),
            over=check_grid("over", self.over, least=_FEWEST),
            of=check_where("of", self.of),
            interest=interest,
        )
        set_plain(self, groups=_check_groups(self.groups, self.over))
        points = len(settings_of(self.of, self.over))
        if self.groups is None:
            _check_reached(self.margin, self.interest, _largest(points), points)

    @property
    def words(self) -> str:
        sign = "" if self.sign == 1 else "minus "
        pair = " and ".join(self.metrics)
        return (
            f"{sign}the rank correlation of {pair} over {grid_words(self.over)} of {named(self.of)} exceeds "
            f"{self.margin:g}{interest_words(self.interest)}{_grouped(self.groups)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        settings = settings_of(self.of, self.over)
        if self.groups is None:
            numbers = combined([self.sign], [_fisher(runs, self.metrics, settings)])
        else:
            numbers = _pseudo_values(runs, [(self.sign, self.metrics, settings)], _labels(settings, self.groups))
        interest = None if self.interest is None else math.atanh(self.interest)
        found = mean_evidence(
            numbers,
            margin=math.atanh(self.margin),
            interest=interest,
            what=f"{'' if self.sign == 1 else 'minus the '}{'mean ' if self.groups is None else ''}rank correlation",
            worst=worst,
            shown=math.tanh,
        )
        if self.groups is None:
            return found
        if not found.n:
            return replace(found, unit=_GROUP)
        inside = _within(runs, self.metrics, settings, _labels(settings, self.groups))
        return replace(found, tests=(), unit=_GROUP, words=f"{found.words} groups; within groups {inside}")


@dataclass(frozen=True, kw_only=True)
class CorrelationDifference:
    """Some rank correlations exceed others.

    The number of a seed is the sum of z = artanh ρ of the pairs in ``plus`` less that of the pairs in ``minus``, each
    as in :class:`Correlation`; t test over seeds. A pair that should correlate negatively stands on the other side.

    Args:
        plus, minus: lists of pairs, ``{metrics: [one, other], of: settings}``; ``of`` may be left out.
        over: see :class:`Correlation`.
        of: settings of all runs.
        margin: of the difference of z to exceed.
        interest: the smallest difference of z that matters.
        groups: see :class:`Correlation`.
    """

    plus: Sequence[Mapping[str, Any]]
    minus: Sequence[Mapping[str, Any]] = ()
    over: Grid
    of: Mapping[str, Any]
    margin: float = 0.0
    interest: float | None = None
    groups: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        margin = check_number("margin", self.margin)
        set_plain(
            self,
            plus=_check_pairs("plus", self.plus),
            minus=_check_pairs("minus", self.minus),
            over=check_grid("over", self.over, least=_FEWEST),
            of=check_where("of", self.of),
            interest=check_beyond(margin, self.interest),
        )
        set_plain(self, groups=_check_groups(self.groups, self.over))
        if len(self.plus) + len(self.minus) < 2:
            raise ValueError("plus and minus have fewer than two pairs; accepted: two or more together")
        points = [settings_of(merged(self.of, pair["of"]), self.over) for pair in [*self.plus, *self.minus]]
        if self.groups is None:
            largest = sum(math.atanh(_largest(len(each))) for each in points)
            _check_reached(self.margin, self.interest, largest, len(points[0]))

    @property
    def words(self) -> str:
        signed = [(" plus ", pair) for pair in self.plus] + [(" minus ", pair) for pair in self.minus]
        told = "".join(
            f"{sign}z({', '.join(pair['metrics'])}{'; ' + named(pair['of']) if pair['of'] else ''})"
            for sign, pair in signed
        )
        return (
            f"{told.strip().removeprefix('plus ')} over {grid_words(self.over)} of {named(self.of)} exceeds "
            f"{self.margin:g}{interest_words(self.interest)}{_grouped(self.groups)}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        pairs = [
            (sign, pair["metrics"], settings_of(merged(self.of, pair["of"]), self.over))
            for sign, side in ((1, self.plus), (-1, self.minus))
            for pair in side
        ]
        for both in {frozenset(metrics) for _, metrics, _ in pairs}:
            if len(alike := [settings for _, metrics, settings in pairs if both == set(metrics)]) > 1:
                every = [where for settings in alike for where in settings]
                check_apart(runs, [runs.sample(min(both), where) for where in every], every)
        if self.groups is None:
            parts = [_fisher(runs, metrics, settings) for _, metrics, settings in pairs]
            numbers = combined([sign for sign, _, _ in pairs], parts)
        else:
            numbers = _pseudo_values(runs, pairs, _labels(pairs[0][2], self.groups))
        found = mean_evidence(
            numbers, margin=self.margin, interest=self.interest, what="mean difference of z", worst=worst
        )
        if self.groups is None:
            return found
        if not found.n:
            return replace(found, unit=_GROUP)
        told = [
            f"{', '.join(metrics)} {_within(runs, metrics, settings, _labels(settings, self.groups))}"
            for _, metrics, settings in pairs
        ]
        within = "; ".join(told)
        return replace(found, tests=(), unit=_GROUP, words=f"{found.words} groups; within groups {within}")


def _largest(points: int) -> float:
    """Return where ρ of some points is cut: half way between 1 and the next smaller value."""
    return 1 - 6 / (points**3 - points)


def _check_reached(margin: float, interest: float | None, largest: float, points: int) -> None:
    """Refuse a margin and an interest that the metrics cannot reach, or cannot miss."""
    note = f"as far as {points} settings can correlate"
    check_number("margin", margin, low=-largest, high=largest, open_low=True, open_high=True, note=note)
    if interest is not None:
        check_number("interest", interest, low=-largest, high=largest, open_low=True, open_high=True, note=note)


def _pseudo_values(
    runs: ClaimRuns, pairs: Sequence[tuple[int, Sequence[str], Sequence[Mapping[str, Any]]]], labels: np.ndarray
) -> Numbers:
    """Return the jackknife's pseudo-values of the signed sum of z, one a group; of a run without a number nothing is
    known, and without 20 groups either."""
    samples = [
        [runs.sample(metric, where) for where in settings] for _, metrics, settings in pairs for metric in metrics
    ]
    for (_, _, settings), sample in zip(pairs, samples[::2], strict=True):
        check_apart(runs, sample, settings)
    every = [sample for each in samples for sample in each]
    values = np.stack([np.stack([sample.low for sample in each]) for each in samples])  # [metrics, settings, seeds]
    known = np.stack([[sample.low == sample.high for sample in each] for each in samples]).all(0)
    points, label = values[:, known], np.repeat(labels[:, None], known.shape[1], axis=1)[known]
    groups = np.unique(label)
    found = np.array([])
    if len(groups) >= FEWEST_UNITS:
        signs = [sign for sign, _, _ in pairs]
        whole = _sum_of_z(points, signs)
        rest = np.array([_sum_of_z(points[:, label != group], signs) for group in groups])
        pseudo = len(groups) * whole - (len(groups) - 1) * rest
        found = pseudo if np.isfinite(pseudo).all() else found
    gone = reduced(every, found, found)
    if not gone.unknown:
        return gone
    ends = np.array([math.inf])  # anything could be the number of a run that diverged
    return replace(gone, low=np.concatenate([found, -ends]), high=np.concatenate([found, ends]))


def _sum_of_z(points: np.ndarray, signs: Sequence[int]) -> float:
    """Return Σ sign · artanh ρ over the pairs of ``points`` [2 · pairs, points]; NaN if a metric is constant."""
    n = points.shape[1]
    rho = spearman(points[0::2].T, points[1::2].T)
    largest = _largest(n)
    return float(np.asarray(signs) @ np.arctanh(np.clip(rho, -largest, largest)))


def _within(runs: ClaimRuns, metrics: Sequence[str], settings: Sequence[Mapping[str, Any]], labels: np.ndarray) -> str:
    """Return the mean rank correlation within groups, in words."""
    a, b = (np.stack([runs.sample(metric, where).low for where in settings]) for metric in metrics)
    found = []
    for group in np.unique(labels):
        inside = np.stack([a[labels == group].ravel(), b[labels == group].ravel()])
        inside = inside[:, np.isfinite(inside).all(0)]
        if inside.shape[1] >= _FEWEST:
            found.append(float(spearman(inside[:1].T, inside[1:].T)[0]))
    known = [rho for rho in found if not math.isnan(rho)]
    return f"{sum(known) / len(known):.4g}" if known else "unknown"


def _labels(settings: Sequence[Mapping[str, Any]], groups: str | Sequence[str]) -> np.ndarray:
    """Return the number of the group of each setting."""
    keys = [groups] if isinstance(groups, str) else groups
    texts = [repr([where[key] for key in keys]) for where in settings]
    order = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    return np.array([order[text] for text in texts])


def _check_groups(value: object, over: Grid) -> str | list[str] | None:
    """``value`` as settings of a grid that have at least 20 different values together."""
    if value is None:
        return None
    keys: Any = [value] if isinstance(value, str) else value
    points = settings_of({}, over)
    fine = isinstance(keys, Sequence) and bool(keys) and all(key in point for key in keys for point in points)
    if not fine or len(set(_labels(points, keys).tolist())) < FEWEST_UNITS:
        raise ValueError(
            f"groups is {value!r}; accepted: a setting of over, or several, with at least {FEWEST_UNITS} values, or "
            "null"
        )
    return value if isinstance(value, str) else list(keys)


def _grouped(groups: str | Sequence[str] | None) -> str:
    if groups is None:
        return ""
    return f", by groups of {groups if isinstance(groups, str) else ' and '.join(groups)}, conditional on this grid"


def _fisher(runs: ClaimRuns, metrics: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return Fisher's z of each seed."""
    parts = [[runs.sample(metric, where) for where in settings] for metric in metrics]
    check_apart(runs, parts[0], settings)
    both = [*parts[0], *parts[1]]
    low, known, absent = stacked(both)
    points = len(settings)
    largest = _largest(points)
    rho = np.full(len(known), np.nan)
    rho[known] = spearman(low[:points, known], low[points:, known])
    constant = known & np.isnan(rho)
    known = known & ~constant
    z = np.arctanh(np.clip(np.where(known, rho, 0.0), -largest, largest))
    least, most = (
        np.where(absent, np.nan, np.where(known, z, end)) for end in (-math.atanh(largest), math.atanh(largest))
    )
    found = reduced(both, least, most)
    lost = tuple(f"seed {runs.seeds[i]}: a metric is equal in all settings" for i in np.flatnonzero(constant))
    return replace(found, unknown=(*found.unknown, *lost))


def _check_pair(name: str, value: object) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}; accepted: two metrics")
    if value[0] == value[1]:
        raise ValueError(f"{name} is {list(value)!r}; accepted: two different metrics")
    return [check_metric(name, metric) for metric in value]


def _check_pairs(name: str, value: object) -> list[dict[str, Any]]:
    accepted = "a list of pairs such as {metrics: [one, other], of: {}}"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; accepted: {accepted}")
    pairs = []
    for pair in value:
        if not isinstance(pair, Mapping) or not {"metrics"} <= set(pair) <= {"metrics", "of"}:
            raise ValueError(f"{name} holds {pair!r}; accepted: {accepted}")
        pairs.append(
            {
                "metrics": _check_pair(f"{name}.metrics", pair["metrics"]),
                "of": check_where(f"{name}.of", pair.get("of", {})),
            }
        )
    return pairs
