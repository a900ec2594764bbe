"""The cells of a result table, each with its notes."""

import re
from collections.abc import Hashable, Mapping, Sequence

from genbench import records
from genbench.analysis import statistics
from genbench.privacy import clean
from genbench.report.format import listed, natural
from genbench.report.lookup import Lookup, refuse_mixture
from genbench.report.model import Cell, Column
from genbench.report.selection import SelectedRun

_UNFINISHED = ("failed", "diverged", "damaged", "running", "missing")
_UNMEASURED = "–"
_UNCONVERGED = "did not converge"
_NOT_RUN = "not run"  # and not planned
_STEP = re.compile(r"\bat step (\d+)\b")

Line = list[tuple[Cell, list[str]]]


def row_of_cells(runs: Sequence[SelectedRun], columns: Sequence[Column], lookup: Lookup, row: str) -> Line:
    """Return a row's cells, each with its notes."""
    inside: dict[str, list[SelectedRun]] = {}
    for column in columns:
        for where in (column.where, *([column.minus] if column.minus else [])):
            if repr(where) not in inside:
                inside[repr(where)] = lookup.matching(runs, where)
                refuse_mixture(inside[repr(where)], f"column {column.title!r}, row {row!r}")
    return [
        _minus(_cell(inside[repr(column.where)], column), _cell(inside[repr(column.minus)], column))
        if column.minus
        else _cell(inside[repr(column.where)], column)
        for column in columns
    ]


def _minus(left: tuple[Cell, list[str]], right: tuple[Cell, list[str]]) -> tuple[Cell, list[str]]:
    """Return a cell less another, seed by seed, with the notes of both."""
    (ours, said), (theirs, other) = left, right
    values = {seed: value - theirs.values[seed] for seed, value in ours.values.items() if seed in theirs.values}
    planned = max(ours.planned, theirs.planned)
    status = "" if len(values) == planned else f"n={len(values)}/{planned}"
    if not values:
        status = (ours if not ours.values else theirs).status or _UNMEASURED
    mean = statistics.mean_interval(list(values.values())) if values else None
    return Cell(values=values, mean=mean, planned=planned, status=status), list(dict.fromkeys([*said, *other]))


def _cell(runs: Sequence[SelectedRun], column: Column) -> tuple[Cell, list[str]]:
    if not column.metric:
        return Cell(), []
    values: dict[Hashable, float] = {}
    reasons: dict[str, list[str]] = {}
    for run in runs:
        seed = str(run.record["seed"] if run.record else run.overrides.get("seed", "?"))
        if run.record is None or run.record["status"] != "completed":
            reasons.setdefault(run.reason, []).append(seed)
            continue
        record = run.record
        value = run.measured(column.metric)
        if value is not None:
            values[record["seed"]] = value * column.scale
        elif column.metric not in record["notes"]:
            reasons.setdefault(_missing(column), []).append(seed)
        note = record["notes"].get(column.metric, "")
        if note and not (note.startswith(records.SEARCH) and "; " not in note):  # most notes are of a search alone
            for text in [clean(note)] if value is None else clean(note).split("; "):
                if not text.startswith(records.SEARCH):
                    reasons.setdefault(text, []).append(seed)
        if record["converged"].get(column.metric) is False:
            reasons.setdefault(_UNCONVERGED, []).append(seed)
    if len(reasons.get(_UNCONVERGED, ())) == len(runs) > 1:
        reasons[f"the iteration {_UNCONVERGED} in any run"] = reasons.pop(_UNCONVERGED)
    texts = [
        text if len(seeds) == len(runs) else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {text}"
        for text, seeds in _over_steps(reasons).items()
    ]
    status = ""
    if not values:
        states = {run.state for run in runs}
        status = next((state for state in _UNFINISHED if state in states), _UNMEASURED if runs else _NOT_RUN)
    elif len(values) < len(runs):
        status = f"n={len(values)}/{len(runs)}"
    mean = statistics.mean_interval(list(values.values())) if values else None
    return Cell(values=values, mean=mean, planned=len(runs), status=status), texts


def _over_steps(reasons: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the seeds of each reason; those that differ in the step alone are one, which says from where to where."""
    kinds: dict[str, list[str]] = {}
    for text in reasons:
        kinds.setdefault(_STEP.sub("at step #", text), []).append(text)
    found = {}
    for kind, texts in kinds.items():
        steps = sorted(int(step) for text in texts for step in _STEP.findall(text))
        said = texts[0] if len(texts) == 1 else kind.replace("at step #", f"at steps {steps[0]} to {steps[-1]}")
        found[said] = sorted((seed for text in texts for seed in reasons[text]), key=natural)
    return found


def _missing(column: Column) -> str:
    return f"{column.metric} was not measured"


def with_shared_notes(columns: Sequence[Column], lines: Sequence[Line]) -> list[Line]:
    """Let all cells share one note that were not measured though other rows of their column were."""
    usual = {
        index: _missing(column) for index, column in enumerate(columns) if any(line[index][0].values for line in lines)
    }
    return [
        [
            (cell, ["not measured in this row" if text == usual.get(index) else text for text in texts])
            for index, (cell, texts) in enumerate(line)
        ]
        for line in lines
    ]


def without_general(columns: Sequence[Column], lines: Sequence[Line]) -> tuple[list[Line], list[str]]:
    """Move notes that every value of a column shares into sentences; return both."""
    general: dict[str, list[int]] = {}
    counts = [sum(bool(line[index][0].values) for line in lines) for index in range(len(columns))]
    for index in range(len(columns)):
        said = [texts for cell, texts in (line[index] for line in lines) if cell.values]
        for text in said[0] if said else []:
            if all(text in texts for texts in said):
                general.setdefault(text, []).append(index)
    general = {text: of for text, of in general.items() if sum(counts[index] for index in of) > 1}
    cut: list[Line] = [
        [
            (cell, [text for text in texts if not (cell.values and index in general.get(text, ()))])
            for index, (cell, texts) in enumerate(line)
        ]
        for line in lines
    ]
    sayings: dict[tuple[int, ...], list[str]] = {}
    for text, of in general.items():
        sayings.setdefault(tuple(of), []).append(text)
    return cut, [f"{listed(_named(columns, of))}: {'; '.join(texts)}." for of, texts in sayings.items()]


def _named(columns: Sequence[Column], chosen: Sequence[int]) -> list[str]:
    """Return the names of the chosen columns: where a label is not unique, that of its group if all of it is chosen."""
    labels = [column.label for column in columns]
    names = []
    for index in chosen:
        label, group = columns[index].label, columns[index].group
        whole = group and all(other in chosen for other, each in enumerate(columns) if each.group == group)
        names.append(label if labels.count(label) == 1 else group if whole else columns[index].title)
    return list(dict.fromkeys(names))


def without_empty(columns: Sequence[Column], lines: Sequence[Line]) -> tuple[list[Column], list[Line], list[str]]:
    """Drop the columns in which no run has a value; return columns, cells and a sentence that names the dropped ones.

    If no column has a value, all are kept.
    """
    empty = [
        not column.published and all(line[index][0].status == _UNMEASURED for line in lines)
        for index, column in enumerate(columns)
    ]
    if all(empty) or not any(empty):
        return list(columns), list(lines), []
    named: dict[tuple[str, str], list[str]] = {}
    for index, column in enumerate(columns):
        if empty[index]:
            texts = dict.fromkeys(text for line in lines for text in line[index][1])
            usual = list(texts) == [_missing(column)]
            named.setdefault((column.group, "" if usual else f": {', '.join(texts)}"), []).append(column.label)
    parts = [" ".join(filter(None, (group, listed(labels)))) + reason for (group, reason), labels in named.items()]
    kept = [index for index, left_out in enumerate(empty) if not left_out]
    return (
        [columns[index] for index in kept],
        [[line[index] for index in kept] for line in lines],
        [f"Columns without any value are left out: {'; '.join(parts)}."],
    )
