"""Rank correlations of two metrics over settings, within each seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genbench.checks import check_number
from genbench.claims.numbers import Numbers, combined, reduced, stacked
from genbench.claims.p_values import spearman
from genbench.claims.rules.base import check_beyond, check_metric, check_where, mean_evidence, set_plain
from genbench.claims.rules.grid import Grid, check_grid, settings_of
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import Evidence

_FEWEST = 4  # points of a correlation


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Two metrics are correlated over settings.

    The number of a seed is z = artanh ρ, ρ Spearman's over the settings; t test over seeds at artanh of the margin. ρ
    is cut at ±(1 - 6/(K³ - K)) for K settings, half way between 1 and the next smaller value. A metric that is equal in
    all settings of a seed has no correlation: the seed has no number.

    Args:
        metrics: two metrics.
        over: settings and their values, every combination of which has a run a seed; or a list of settings. At least
            four.
        of: further settings of the runs.
        margin: the mean correlation to exceed, in (-1, 1); a claim of a negative one has ``sign`` -1.
        interest: the smallest correlation that matters.
        sign: 1, or -1: the negative correlation counts.

    Source: Spearman 1904; Fisher 1915, Frequency distribution of the values of the correlation coefficient.
    """

    metrics: Sequence[str]
    over: Grid
    of: Mapping[str, Any]
    margin: float = 0.0
    interest: float | None = None
    sign: int = 1

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

    @property
    def words(self) -> str:
        sign = "" if self.sign == 1 else "minus "
        pair = " and ".join(self.metrics)
        return (
            f"{sign}the rank correlation of {pair} over {_told(self.over)} of {named(self.of)} exceeds {self.margin:g}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        numbers = combined([self.sign], [_fisher(runs, self.metrics, settings_of(self.of, self.over))])
        interest = None if self.interest is None else math.atanh(self.interest)
        return mean_evidence(
            numbers,
            margin=math.atanh(self.margin),
            interest=interest,
            what="mean rank correlation",
            worst=worst,
            shown=math.tanh,
        )


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
    """

    plus: Sequence[Mapping[str, Any]]
    minus: Sequence[Mapping[str, Any]] = ()
    over: Grid
    of: Mapping[str, Any]
    margin: float = 0.0
    interest: float | None = None

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
        if len(self.plus) + len(self.minus) < 2:
            raise ValueError("plus and minus have fewer than two pairs; accepted: two or more together")

    @property
    def words(self) -> str:
        signed = [(" plus ", pair) for pair in self.plus] + [(" minus ", pair) for pair in self.minus]
        told = "".join(
            f"{sign}z({', '.join(pair['metrics'])}{'; ' + named(pair['of']) if pair['of'] else ''})"
            for sign, pair in signed
        )
        return (
            f"{told.strip().removeprefix('plus ')} over {_told(self.over)} of {named(self.of)} exceeds {self.margin:g}"
        )

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        parts = [
            _fisher(runs, pair["metrics"], settings_of({**self.of, **pair["of"]}, self.over))
            for pair in (*self.plus, *self.minus)
        ]
        numbers = combined([1] * len(self.plus) + [-1] * len(self.minus), parts)
        return mean_evidence(
            numbers, margin=self.margin, interest=self.interest, what="mean difference of z", worst=worst
        )


def _fisher(runs: ClaimRuns, metrics: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return Fisher's z of each seed."""
    parts = [[runs.sample(metric, where) for where in settings] for metric in metrics]
    both = [*parts[0], *parts[1]]
    low, known, absent = stacked(both)
    points = len(settings)
    largest = 1 - 6 / (points**3 - points)
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


def _told(over: Grid) -> str:
    return ", ".join(over) if isinstance(over, Mapping) else f"{len(over)} settings"
