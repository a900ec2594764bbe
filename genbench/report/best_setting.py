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
    """Choose, for each row, the setting with the best mean.

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
                problems.append(f"{label(row)}, {_setting(tried, group)}: {lost}; excluded from the choice")
        best = _best(validated, rule["best"]) if validated else next(iter(groups))
        kept += groups[best]
        counts.add(len(groups))
        labels[row], remarks[row] = _setting(tried, best), [*_at_end(best, groups), *_undecided(best, validated)]
        for run in members:
            if run.record:
                settings[run.run_id] = {key: run.value(key) for key in tried}
    caption = []
    if labels:
        many = listed([str(count) for count in sorted(counts)])
        caption.append(
            f"In parentheses: the setting shown, which has the {'highest' if rule['best'] == 'max' else 'lowest'} mean "
            f"{rule['metric']} over seeds and conditions of the {many} tried for its row; a row says nothing about "
            "other settings that validate as well."
        )
    order = {run.run_id: index for index, run in enumerate(runs)}
    return Choice(sorted(kept, key=lambda run: order[run.run_id]), labels, remarks, settings, caption, problems)


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
