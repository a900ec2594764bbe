"""Of the settings that were tried for each row the one that is shown."""

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
    """The ``runs`` to show, a row's chosen setting in words and what is to be noted of it, of each run that was one of
    several what distinguishes it."""

    runs: Sequence[SelectedRun]
    labels: Mapping[Values, str] = field(default_factory=dict)
    remarks: Mapping[Values, list[str]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    caption: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def choose(
    spec: Mapping[str, Any], columns: Sequence[Column], runs: Sequence[SelectedRun], keys: Sequence[str]
) -> Choice:
    """Of the settings that were tried for each row, the one with the best mean.

    A mean that some run has no part in is not compared with one of all runs: such a setting is chosen only where there
    is no other, and what failed is said. Of equal ones the first in natural order, the smallest, is chosen.
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
        tried = sorted(set(differences(members)) - {*keys, *places})
        groups = lookup.rows(members, tried)
        if len(groups) == 1:
            kept += members
            continue
        groups = {group: groups[group] for group in sorted(groups, key=lambda g: [natural(str(part)) for part in g])}
        validated: dict[Values, dict[Hashable, float]] = {}
        for group, inside in groups.items():
            values: dict[Hashable, float] = {
                (run.record["seed"], lookup.row(run, places)): value
                for run in inside
                if run.record and (value := run.measured(rule["metric"])) is not None
            }
            if len(values) == len(inside):
                validated[group] = values
            else:
                lost = f"{len(inside) - len(values)} of {len(inside)} runs have no {rule['metric']}"
                problems.append(f"{label(row)}, {_setting(tried, group)}: {lost}; not among those that are chosen from")
        best = _best(validated, rule["best"]) if validated else next(iter(groups))
        kept += groups[best]
        counts.add(len(groups))
        labels[row], remarks[row] = _setting(tried, best), [*_end(best, groups), *_alike(best, validated)]
        for run in members:
            if run.record:
                settings[run.run_id] = {key: run.value(key) for key in tried}
    caption = []
    if labels:
        many = listed([str(count) for count in sorted(counts)])
        caption.append(
            f"In parentheses the setting shown: of {many} tried for each such row the one with the "
            f"{'highest' if rule['best'] == 'max' else 'lowest'} {rule['metric']}, mean over seeds and conditions; "
            "a row says nothing about another setting that validates as well."
        )
    order = {run.run_id: index for index, run in enumerate(runs)}
    return Choice(sorted(kept, key=lambda run: order[run.run_id]), labels, remarks, settings, caption, problems)


def _setting(keys: Sequence[str], values: Sequence[str | None]) -> str:
    """Settings in words: ``strength 0.01``."""
    named = zip(keys, values, strict=True)
    return ", ".join(f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {value}" for key, value in named)


def _best(validated: Mapping[Values, Mapping[Hashable, float]], best: str) -> Values:
    """Whose mean is the largest (max) or smallest (min); the first of those that are equal but for rounding."""
    means = {group: sum(values.values()) / len(values) for group, values in validated.items()}
    top = {"max": max, "min": min}[best](means.values())
    return next(group for group, mean in means.items() if math.isclose(mean, top, rel_tol=1e-6))


def _alike(best: Values, validated: Mapping[Values, Mapping[Hashable, float]]) -> list[str]:
    """How many other settings the runs do not tell from the chosen one: another seed may choose one of them."""

    def undecided(values: Mapping[Hashable, float]) -> bool:
        difference = statistics.paired_difference(values, validated[best])
        return difference is None or difference.p is None or difference.p >= SIGNIFICANCE

    n = sum(group != best and undecided(values) for group, values in validated.items())
    return [f"not told from {n} other{'s' * (n > 1)} of its settings (paired by run, p ≥ {SIGNIFICANCE})"] if n else []


def _end(best: Values, groups: Collection[Values]) -> list[str]:
    """That a setting is the first or last along a single number: beyond it may lie a better one."""
    try:
        tried = sorted(float(value or "nan") for (value,) in groups)
        place = tried.index(float(best[0] or "nan"))
    except ValueError:  # several numbers, or none
        return []
    ends = {0: "smallest", len(tried) - 1: "largest"}
    return [f"its setting is the {ends[place]} tried"] if place in ends else []
