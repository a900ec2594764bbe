"""Choose which of the settings tried for a row the table shows."""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genbench.analysis import statistics
from genbench.report.format import listed, natural
from genbench.report.lookup import Lookup, Values, differences, label
from genbench.report.model import SIGNIFICANCE, Column
from genbench.report.selection import SelectedRun


@dataclass(frozen=True)
class Choice:
    """The chosen settings.

    ``runs`` are the runs to show. By row, ``labels`` name the chosen setting and ``remarks`` are notes on it. By run
    id, ``settings`` are the values in which a row's runs differ. ``caption`` and ``problems`` are the table's.
    """

    runs: Sequence[SelectedRun]
    labels: Mapping[Values, str] = field(default_factory=dict)
    remarks: Mapping[Values, list[str]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    caption: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def choose(
    spec: Mapping[str, Any], columns: Sequence[Column], runs: Sequence[SelectedRun], keys: Sequence[str]
) -> Choice:
    """Choose, for each row, the setting with the best mean; with ``apart`` for each condition of a row that the columns
    tell apart.

    Incomplete settings, in which some run lacks the metric, are excluded unless none is complete, and are listed as
    problems. Ties go to the first setting in natural order: the smallest.
    """
    rule = spec.get("choose")
    if not rule:
        return Choice(runs)
    lookup = Lookup(runs)
    places = sorted({key for column in columns for key in column.where})
    kept: list[SelectedRun] = []
    labels, remarks, settings, problems = {}, {}, {}, []
    counts: set[int] = set()
    for row, members in lookup.rows(runs, keys).items():
        conditions = _sorted(lookup.rows(members, places)) if rule.get("apart") else {(): members}
        # what is set otherwise from one condition to the next, as is the depth of another model, was not tried
        tried = sorted({key for inside in conditions.values() for key in differences(inside)} - {*keys, *places})
        if not tried:
            kept += members
            continue
        found = {}
        for condition, inside in conditions.items():
            found[condition] = _Ladder.of(lookup, inside, tried, places, rule)
            problems += [
                f"{label((*row, *condition))}, {lost}; excluded from the choice" for lost in found[condition].lost
            ]
            kept += found[condition].groups[found[condition].best]
        counts |= {len(ladder.groups) for ladder in found.values()}
        first = next(iter(found.values()))
        if len({ladder.best for ladder in found.values()}) == 1:
            labels[row], remarks[row] = first.setting, first.remarks(len(found) == 1)
        else:
            by_setting: dict[str, list[str]] = {}
            for condition, ladder in found.items():
                by_setting.setdefault(ladder.setting, []).append(_setting(places, condition))
            remarks[row] = ["; ".join(f"{setting} ({'; '.join(where)})" for setting, where in by_setting.items())]
        for run in members:
            if run.record:
                settings[run.run_id] = {key: run.value(key) for key in tried}
    caption = []
    if counts:
        many = listed([str(count) for count in sorted(counts)])
        where = (
            "In parentheses, or where conditions differ in a note: the" if rule.get("apart") else "In parentheses: the"
        )
        over = "seeds, in each condition apart," if rule.get("apart") else "seeds and conditions"
        caption.append(
            f"{where} setting shown, which has the {'highest' if rule['best'] == 'max' else 'lowest'} mean "
            f"{rule['metric']} over {over} of the {many} tried for its row; a row says nothing about "
            "other settings that validate as well."
        )
    order = {run.run_id: index for index, run in enumerate(runs)}
    return Choice(sorted(kept, key=lambda run: order[run.run_id]), labels, remarks, settings, caption, problems)


@dataclass(frozen=True)
class _Ladder:
    """The settings that were tried for a row: their runs, ``groups``, by their values of the keys ``tried``; the metric
    of those that are complete, ``validated``, by seed and condition; the ``best`` one; what was ``lost`` of others."""

    tried: Sequence[str]
    groups: Mapping[Values, Sequence[SelectedRun]]
    validated: Mapping[Values, Mapping[Hashable, float]]
    best: Values
    lost: Sequence[str]

    @classmethod
    def of(
        cls,
        lookup: Lookup,
        runs: Sequence[SelectedRun],
        tried: Sequence[str],
        places: Sequence[str],
        rule: Mapping[str, Any],
    ) -> "_Ladder":
        """Choose among runs by the ``rule``; runs of one setting differ in the seed and in ``places`` alone."""
        groups = _sorted(lookup.rows(runs, tried))
        validated: dict[Values, dict[Hashable, float]] = {}
        lost = []
        for group, inside in groups.items():
            values: dict[Hashable, float] = {
                (run.record["seed"], lookup.row(run, places)): value
                for run in inside
                if run.record and (value := run.measured(rule["metric"])) is not None
            }
            if len(values) == len(inside):
                validated[group] = values
            else:
                absent = len(inside) - len(values)
                lost.append(f"{_setting(tried, group)}: {absent} of {len(inside)} runs have no {rule['metric']}")
        best = _best(validated, rule["best"]) if validated else next(iter(groups))
        return cls(tried, groups, validated, best, lost)

    @property
    def setting(self) -> str:
        """The name of the best setting."""
        return _setting(self.tried, self.best)

    def remarks(self, alone: bool) -> list[str]:
        """Return what is to be known of the choice, if it is not ``alone`` without what differs between conditions."""
        return [*_at_end(self.best, self.groups), *(_undecided(self.best, self.validated) if alone else [])]


def _sorted(groups: Mapping[Values, Sequence[SelectedRun]]) -> dict[Values, Sequence[SelectedRun]]:
    """Return groups of runs in the natural order of their values."""
    return {group: groups[group] for group in sorted(groups, key=lambda g: [natural(str(part)) for part in g])}


def _setting(keys: Sequence[str], values: Sequence[str | None]) -> str:
    """Name a setting: ``strength 0.01``."""
    named = zip(keys, values, strict=True)
    return ", ".join(f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {value}" for key, value in named)


def _best(validated: Mapping[Values, Mapping[Hashable, float]], best: str) -> Values:
    """The setting with the largest (max) or smallest (min) mean; ties, within rounding, go to the first."""
    means = {group: sum(values.values()) / len(values) for group, values in validated.items()}
    top = {"max": max, "min": min}[best](means.values())
    return next(group for group, mean in means.items() if math.isclose(mean, top, rel_tol=1e-6))


def _undecided(best: Values, validated: Mapping[Values, Mapping[Hashable, float]]) -> list[str]:
    """Count the settings that do not differ significantly from the chosen one: other seeds may choose them."""

    def undecided(values: Mapping[Hashable, float]) -> bool:
        difference = statistics.paired_difference(values, validated[best])
        return difference is None or difference.p is None or difference.p >= SIGNIFICANCE

    n = sum(group != best and undecided(values) for group, values in validated.items())
    text = f"not significantly different from {n} of its other settings (paired by run, p ≥ {SIGNIFICANCE})"
    return [text] if n else []


def _at_end(best: Values, groups: Collection[Values]) -> list[str]:
    """Note that the chosen setting is the smallest or largest tried: a better one may lie beyond it."""
    try:
        tried = sorted(float(value or "nan") for (value,) in groups)
        place = tried.index(float(best[0] or "nan"))
    except ValueError:  # the setting is not a single number
        return []
    ends = {0: "smallest", len(tried) - 1: "largest"}
    return [f"its setting is the {ends[place]} tried"] if place in ends else []
