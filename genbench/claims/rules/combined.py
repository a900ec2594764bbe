"""Claims of several parts, and claims without chance."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any as Anything

import numpy as np

from genbench.checks import check_choice, check_number
from genbench.claims.numbers import Numbers, difference, gathered
from genbench.claims.rules.base import (
    Rule,
    check_apart,
    check_metric,
    check_where,
    constant,
    larger,
    set_plain,
    smallest,
)
from genbench.claims.rules.grid import Grid, check_grid, grid_words, settings_of
from genbench.claims.runs import ClaimRuns, named
from genbench.claims.verdict import SEED, Evidence

_RUNS = re.compile(r"(?:,|; each) over ")
_DEVIATIONS = {"==": np.abs, "<=": np.positive, ">=": np.negative}
_SAID = {"==": "equals", "<=": "is at most", ">=": "is at least"}


@dataclass(frozen=True, kw_only=True)
class _Combined:
    """A rule of several rules."""

    parts: Sequence[Rule]

    def __post_init__(self) -> None:
        set_plain(self, parts=_checked(self.parts))

    def _found(self, runs: ClaimRuns, worst: bool) -> tuple[list[Evidence], list[str | None]]:
        """Return the evidence and the words of each part; None of one of several, whose evidence has their words."""
        heads, _ = _apart(self.parts)
        names = [None if isinstance(part, _Combined) else head for part, head in zip(self.parts, heads, strict=True)]
        return [part.evidence(runs, worst=worst) for part in self.parts], names


@dataclass(frozen=True, kw_only=True)
class All(_Combined):
    """Every part holds.

    Replicated by the largest p of the parts; not replicated by the smallest times their number (Bonferroni). A part
    that is exact has p = 0 or 1.

    Args:
        parts: the rules.

    Source: Berger 1982, Multiparameter hypothesis testing and acceptance sampling (intersection-union test).
    """

    @property
    def words(self) -> str:
        heads, tail = _apart(self.parts)
        return "; and ".join(heads) + tail

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        return conjunction(*self._found(runs, worst))


@dataclass(frozen=True, kw_only=True)
class Any(_Combined):
    """At least one part holds.

    Replicated by the smallest p of the parts times their number (Holm's smallest); not replicated if every part is
    not: by the largest p.

    Args:
        parts: the rules; none of them exact.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """

    @property
    def words(self) -> str:
        heads, tail = _apart(self.parts)
        return "; or ".join(heads) + tail

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`."""
        found, names = self._found(runs, worst)
        if any(each.exact for each in found):
            raise ValueError("a part of Any is Exact; accepted: rules that have a p")
        tests = [replace(test, among=test.among * len(found)) for each in found for test in each.tests]
        return Evidence(
            supports=smallest(*(each.supports for each in found)),
            contradicts=larger(*(each.contradicts for each in found)),
            n=min(each.n for each in found),
            interest=any(each.interest for each in found),
            tests=tuple(tests) if all(each.tests for each in found) else (),
            unit=_unit(found),
            **_joined(found, names),
        )


@dataclass(frozen=True, kw_only=True)
class Exact:
    """A metric equals a number or another metric, or is bounded by it, to a tolerance, in every run.

    With d = metric - than: |d| ≤ tolerance, d ≤ tolerance or -d ≤ tolerance, by ``op``. It is no statement about chance
    and has no p: one violation is not replicated, a missing run is undecided.

    Args:
        metric: of the runs.
        of: their settings, one run a seed.
        over: further settings and their values, every combination of which has one run a seed; or a list of settings.
        op: ``==``, ``<=`` or ``>=``.
        than: a number, or a metric of the same run.
        tolerance: the largest deviation.
    """

    metric: str
    of: Mapping[str, Anything]
    over: Grid = ()
    op: str = "=="
    than: float | str
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        check_choice("op", self.op, tuple(_DEVIATIONS))
        if not isinstance(self.than, str) or not self.than:
            check_number("than", self.than, note="or the name of a metric")
        if self.than == self.metric:
            raise ValueError(f"than is {self.than!r}, as metric is; accepted: a number or another metric")
        check_number("tolerance", self.tolerance, low=0)
        set_plain(self, of=check_where("of", self.of), over=check_grid("over", self.over, least=0))
        settings_of(self.of, self.over)  # refuses two values of a setting

    @property
    def words(self) -> str:
        than = self.than if isinstance(self.than, str) else f"{self.than:g}"
        of = f" of {named(self.of)}" if self.of else ""
        if isinstance(self.over, Mapping):
            of += f" over {grid_words(self.over)}" if self.over else ""
        elif self.over:
            of = f" of {' and of '.join(map(named, settings_of(self.of, self.over)))}"
        within = f", to within {self.tolerance:g}" if self.tolerance else ""
        return f"{self.metric} {_SAID[self.op]} {than} in every run{of}{within}"

    def evidence(self, runs: ClaimRuns, *, worst: bool = False) -> Evidence:
        """See :class:`genbench.claims.rules.Rule`. ``worst`` changes nothing: without a number nothing is known."""
        settings = settings_of(self.of, self.over)
        left = [runs.sample(self.metric, where) for where in settings]
        check_apart(runs, left, settings)
        samples = [difference(one, self._other(runs, where)) for one, where in zip(left, settings, strict=True)]
        violations: list[str] = []
        deviations: list[float] = []
        seeds = 0
        for where, sample in zip(settings, samples, strict=True):
            known = sample.low == sample.high
            off = _DEVIATIONS[self.op](sample.low)
            for position in np.flatnonzero(known & (off > self.tolerance + sample.rounding)):
                violations.append(f"seed {runs.seeds[position]} of {named(where)}: off by {off[position]:.6g}")
            deviations += off[known].tolist()
            seeds = max(seeds, int(known.sum()))
        return Evidence(
            supports=None,
            contradicts=None,
            statistic=max(0.0, *deviations) if seeds else None,
            n=seeds,
            words=self._found(deviations, len(violations)),
            exact=True,
            violations=tuple(violations),
            **gathered(samples),
        )

    def _found(self, deviations: Sequence[float], violations: int) -> str:
        """Say in how many runs it holds, and by how much in the closest."""
        n, largest = len(deviations), max(deviations, default=0.0)
        runs = "1 run" if n == 1 else f"{n} runs"
        held = f"in {n - violations} of {runs}" if violations or n < 2 else f"in all {runs}"
        if not largest:
            return held
        return f"{held}, {f'off by at most {largest:.3g}' if largest > 0 else f'by at least {-largest:.3g}'}"

    def _other(self, runs: ClaimRuns, where: Mapping[str, Anything]) -> Numbers:
        return runs.sample(self.than, where) if isinstance(self.than, str) else constant(runs, self.than)


def conjunction(found: Sequence[Evidence], names: Sequence[str | None]) -> Evidence:
    """Return the evidence for "every part holds"; ``names`` are those of the parts, None of one of several."""
    random = [each for each in found if not each.exact]
    exact = [each for each in found if each.exact]
    joined = _joined(found, names)
    if not random:
        return Evidence(
            supports=None,
            contradicts=None,
            n=min(each.n for each in found),
            exact=True,
            **joined,
        )
    supports, contradicts = (
        larger(*(each.supports for each in random)),
        smallest(*(each.contradicts for each in random)),
    )
    if any(each.violations for each in exact):
        supports, contradicts = 1.0, 0.0
    elif any(each.unknown or not each.n for each in exact):
        supports = 1.0
    return Evidence(
        supports=supports,
        contradicts=contradicts,
        n=min(each.n for each in random),
        interest=any(each.interest for each in random),
        tests=tuple(test for each in random for test in each.tests),
        unit=_unit(random),
        **joined,
    )


def _joined(found: Sequence[Evidence], names: Sequence[str | None]) -> dict[str, Anything]:
    told = [
        f"[{each.words}]" if name is None else f"{name}: {each.words}" for name, each in zip(names, found, strict=True)
    ]
    return {
        "words": "; ".join(told),
        **gathered(found, ("missing", "unknown", "violations")),
    }


def _apart(parts: Sequence[Rule]) -> tuple[list[str], str]:
    """The words of parts, in brackets if they are several again, and what all of them say of their runs at the end,
    which is then said once."""
    words = [part.words for part in parts]
    split = [_RUNS.split(text) for text in words]
    tail = ""
    if len(parts) > 1 and {len(each) for each in split} == {2} and len({about for _, about in split}) == 1:
        words, tail = [head for head, _ in split], f"; each over {split[0][1]}"
    return [f"[{text}]" if isinstance(part, _Combined) else text for part, text in zip(parts, words, strict=True)], tail


def _unit(found: Sequence[Evidence]) -> str:
    """Return the unit of several parts: seeds, if those of any one are."""
    units = [each.unit for each in found]
    return SEED if SEED in units else units[0]


def _checked(parts: object) -> list[Rule]:
    if not isinstance(parts, Sequence) or not parts or not all(hasattr(part, "evidence") for part in parts):
        raise ValueError(f"parts is {parts!r}; accepted: a list of rules")
    return list(parts)
