"""A small result table: a cell is one configuration minus its seed."""

import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from genbench import records
from genbench.analysis import statistics
from genbench.checks import nearest
from genbench.privacy import clean
from genbench.report.best_setting import choose
from genbench.report.caption import caption_of, changes, of_another_scale, published_caption, scaled_down
from genbench.report.format import listed, natural
from genbench.report.lookup import Lookup, Values, extend, label, refuse_mixture
from genbench.report.model import Cell, Column, Point, Row, Table
from genbench.report.selection import SelectedRun, Selection
from genbench.report.spec import RAW_MEASURES, columns_of, further_of, order_of

_OTHER_NETWORK = "another network"
_UNFINISHED = ("failed", "diverged", "damaged", "running", "missing")
_UNMEASURED = "–"
_UNCONVERGED = "did not converge"
_NOT_RUN = "not run"  # and not planned
_STEP = re.compile(r"\bat step (\d+)\b")


def build(selection: Selection, spec: Mapping[str, Any] | None = None) -> Table:
    """Build the table of some runs.

    ``spec`` (default: the ``table`` of the sweep) has title, caption, rows, baseline, choose, columns and figures;
    defaults replace whatever is absent or null. ``choose`` holds a ``metric`` and whether ``best`` is max or min: if
    the runs of a row differ in settings that no column distinguishes, the row shows the setting with the best mean of
    the metric over all of its runs, and names it. Columns without any value are left out, and the caption says so.
    ``where`` chooses runs by their settings, ``best_in_row`` (max or min) marks the best mean of each row, and
    ``further`` has the specs of more tables.

    Raises:
        ValueError: a malformed spec, or a cell that would mix configurations; one line.
    """
    spec = _spec(selection, spec)
    columns, order = columns_of(spec), order_of(spec)
    if not selection.runs:
        raise ValueError(f"no runs to show in {selection.name}: it holds neither a readable record nor a plan")
    lookup = Lookup(selection.runs)
    where = spec.get("where") or {}
    for key in [*where, *(key for column in columns for key in (*column.where, *column.minus))]:
        lookup.require(key)
    runs = lookup.matching(selection.runs, where)
    keys = _row_keys(spec, runs, columns)
    for key in keys:
        lookup.require(key)
    found = lookup.rows(runs, keys)
    baseline_key = _baseline(spec, keys, found, lookup, order)
    problems = [f"{run.run_id}: {run.reason}; its row is unknown" for row in found if None in row for run in found[row]]
    row_keys = [row for row in found if None not in row]
    if not selection.sweep:
        row_keys.sort(key=lambda row: (row != baseline_key, [natural(str(part)) for part in row]))
    row_keys = _ordered(row_keys, order)
    baseline = row_keys.index(baseline_key) if baseline_key in row_keys else None
    chosen = choose(spec, columns, runs, keys)
    problems += chosen.problems
    if baseline_key is not None and baseline is None and (spec.get("baseline") or len(row_keys) > 1):
        problems.append(f"the baseline {'/'.join(map(str, baseline_key))} has no run here: nothing is compared with it")

    shown = lookup.rows(chosen.runs, keys)
    lines = [_line(shown.get(row, []), columns, lookup, label(row)) for row in row_keys]
    columns, lines, absent = _without_empty(columns, lines)
    lines, general = _without_general(columns, _shared(columns, lines))
    notes = _Notes()
    rows = []
    grid = []
    for row, line in zip(row_keys, lines, strict=True):
        marks = notes.add([*chosen.remarks.get(row, []), *_row_notes(shown.get(row, []))])
        rows.append(Row(label=order.get(label(row), label(row)), chosen=chosen.labels.get(row, ""), notes=marks))
        grid.append([replace(cell, notes=notes.add(texts)) for cell, texts in line])
    references = [next((run.record for run in shown.get(row, []) if run.record), None) for row in row_keys]
    reference = references[baseline if baseline is not None else 0] if references else None
    altered = [_alteration(record, reference) for record in references]
    shared = any(run.record is not None and _packed(run.record) for run in runs)
    labels = list(map(label, row_keys))
    problems += [
        f"published value of {column.title}, row {row}: the table has no such row; {nearest(row, labels)}"
        for column in columns
        for row in column.published
        if row not in labels
    ]
    changed = changes(selection, keys, columns)
    if of_another_scale(changed):
        columns = [replace(column, same_scale=False) for column in columns]
    compared = [
        # equal shares of a pack's seconds are not measurements: they have no spread, and are not tested
        _compare(column, cells, None if shared and _is_clock(column) else baseline, altered, labels)
        for column, cells in zip(columns, zip(*grid, strict=True) if grid else [()] * len(columns), strict=True)
    ]
    grid = [list(line) for line in zip(*compared, strict=True)]
    common = max((cell.mean.n for line in grid for cell in line if cell.mean), default=0)
    grid = [[_flag_n(cell, common) for cell in line] for line in grid]
    if across := spec.get("best_in_row"):
        grid = [_best_in_row(line, {"max": max, "min": min}[across]) for line in grid]
    return Table(
        title=clean(spec.get("title") or selection.name),
        caption=[
            *([clean(spec["caption"])] if spec.get("caption") else []),
            *([f"Changed by the command: {', '.join(changed)}."] if spec.get("caption") and changed else []),
            *caption_of(columns, rows, grid, baseline, altered, common),
            *([f"Bold: {across}imum of the means of its row."] if across else []),
            *published_caption(columns, rows, grid, scaled_down(selection)),
            *chosen.caption,
            *(
                f"{column.title}: for runs that trained in packs, equal shares of the pack's time."
                for column in columns
                if shared and _is_clock(column)
            ),
            *general,
            *absent,
        ],
        header=", ".join(key.rsplit(".", 1)[-1].replace("_", " ") for key in keys),
        rows=rows,
        columns=columns,
        cells=grid,
        baseline=baseline,
        notes=notes.texts,
        problems=[clean(problem) for problem in (*selection.left_out, *problems)],
        figures=spec.get("figures") or (),
        further=[build(replace(selection, left_out=()), node) for node in further_of(spec)],
    )


def points(selection: Selection, spec: Mapping[str, Any] | None = None) -> list[Point]:
    """Return the completed runs for figures, ordered by the table's rows, then by condition and seed."""
    spec = _spec(selection, spec)
    runs = selection.runs
    columns, order = columns_of(spec), order_of(spec)
    keys = _row_keys(spec, runs, columns)
    choice = choose(spec, columns, runs, keys)
    others = extend(choice.runs, keys, [{}])[len(keys) :]
    lookup = Lookup(runs)
    shown = {run.run_id for run in choice.runs}
    found = lookup.rows(runs, keys)
    rows = {row: found[row] for row in _ordered([*found], order) if row in found}
    complete = [
        (index, row, lookup.row(run, others), run.record, run)
        for index, (row, members) in enumerate(rows.items())
        for run in members
        if run.record and run.record["status"] == "completed"
    ]
    complete.sort(key=lambda each: (each[0], [natural(str(part)) for part in each[2]], each[3]["seed"]))
    baseline = _baseline(spec, keys, rows, lookup, order)
    home = [each[3] for each in complete if each[1] == baseline] or [each[3] for each in complete]
    names = [key.rsplit(".", 1)[-1].replace("_", " ") for key in others]
    return [
        Point(
            record=record,
            config=run.config,
            names=run.names,
            row=order.get(label(row), label(row)),
            condition=", ".join(f"{name} {value}" for name, value in zip(names, condition, strict=True)),
            comparable=_alteration(record, home[0]) is None,
            setting=choice.settings.get(run.run_id, {}),
            chosen=run.run_id in shown,
        )
        for _, row, condition, record, run in complete
    ]


def _spec(selection: Selection, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(spec if spec is not None else (selection.sweep or {}).get("table") or {})


class _Notes:
    """Footnotes; equal texts share one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)

    def add(self, texts: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted({self._numbers.setdefault(text, len(self._numbers)) for text in texts}))


def _row_keys(spec: Mapping[str, Any], runs: Sequence[SelectedRun], columns: Sequence[Column]) -> list[str]:
    """Return the spec's rows; by default as few settings, groups first, as give each cell one configuration."""
    if spec.get("rows"):
        return list(spec["rows"])
    lookup = Lookup(runs)
    recorded = [run for run in runs if run.record]
    groups = sorted({name for run in recorded if run.record for name in run.record["choices"]})
    wheres = list({repr(column.where): column.where for column in columns}.values())
    varying = [name for name in groups if len({lookup.value(run, name) for run in recorded}) > 1]
    keys = extend(runs, [key for key in varying if not all(key in where for where in wheres)], wheres)
    return keys or (["regularization"] if "regularization" in groups or not groups else groups[:1])


def _ordered(rows: Sequence[Values], order: Mapping[str, str]) -> list[Values]:
    """Return the rows that the order names, also those without runs, then the others."""
    by_label = {label(row): row for row in rows}
    return [*(by_label.get(name, (name,)) for name in order), *(row for row in rows if label(row) not in order)]


def _baseline(
    spec: Mapping[str, Any], keys: Sequence[str], rows: Collection[Values], lookup: Lookup, order: Mapping[str, str]
) -> Values | None:
    """Return the baseline's row, which the spec names by its label or by its values."""
    given = spec.get("baseline")
    if isinstance(given, str):
        labels = {label(row): row for row in rows if None not in row}
        labels |= {order[name]: row for name, row in labels.items() if name in order}
        if (name := lookup.shown(given)) not in labels:
            raise ValueError(f"there is no row {given!r} to be the baseline; {nearest(given, [*labels])}")
        return labels[name]
    if given is None:
        return ("none",) if list(keys) == ["regularization"] and "baseline" not in spec else None
    if len(given) != len(keys):
        raise ValueError(f"table: baseline {given!r} must have one value for each of the rows' keys {list(keys)!r}")
    return tuple(map(lookup.shown, given))


_Line = list[tuple[Cell, list[str]]]


def _line(runs: Sequence[SelectedRun], columns: Sequence[Column], lookup: Lookup, row: str) -> _Line:
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
        if note := clean(record["notes"].get(column.metric, "")):
            for text in [note] if value is None else note.split("; "):
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


def _shared(columns: Sequence[Column], lines: Sequence[_Line]) -> list[_Line]:
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


def _without_general(columns: Sequence[Column], lines: Sequence[_Line]) -> tuple[list[_Line], list[str]]:
    """Move notes that every value of a column shares into sentences; return both."""
    general: dict[str, list[int]] = {}
    counts = [sum(bool(line[index][0].values) for line in lines) for index in range(len(columns))]
    for index in range(len(columns)):
        said = [texts for cell, texts in (line[index] for line in lines) if cell.values]
        for text in said[0] if said else []:
            if all(text in texts for texts in said):
                general.setdefault(text, []).append(index)
    general = {text: of for text, of in general.items() if sum(counts[index] for index in of) > 1}
    cut: list[_Line] = [
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


def _without_empty(columns: Sequence[Column], lines: Sequence[_Line]) -> tuple[list[Column], list[_Line], list[str]]:
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


def _is_clock(column: Column) -> bool:
    return column.metric.startswith("seconds.")


def _packed(record: Mapping[str, Any]) -> bool:
    """Whether a run trained in a pack with others."""
    return record["provenance"].get("lanes", 1) > records.members(record["config"])


def _alteration(record: Mapping[str, Any] | None, reference: Mapping[str, Any] | None) -> str | None:
    """Return why raw measures of a row may not be compared with those of the reference row, or None."""
    if record is None or reference is None:
        return None
    ours, usual = record["altered"], reference["altered"]
    if differ := sorted(ours.keys() ^ usual.keys()):
        return {**ours, **usual}[differ[0]]
    if record["choices"].get("model") != reference["choices"].get("model"):
        return _OTHER_NETWORK
    norms = [dict(item["config"].get("model") or {}).get("normalization") for item in (record, reference)]
    return records.SCALE_FREE if norms[0] != norms[1] else None


def _compare(
    column: Column, cells: Sequence[Cell], baseline: int | None, altered: Sequence[str | None], labels: Sequence[str]
) -> list[Cell]:
    """Return a column's cells with differences from the baseline, corrected p values and the best mean marked."""
    raw = column.metric in RAW_MEASURES
    norm = column.metric.startswith("weights/norm/") and not column.metric.endswith("/params")  # a count is not a norm
    # the scale of weights before a normalization layer is arbitrary, and the layer's own scales count as weights
    comparable = [
        not (reason and (raw or (norm and reason in (records.SCALE_FREE, _OTHER_NETWORK)))) for reason in altered
    ]
    differences: list[statistics.Difference | None] = [None] * len(cells)
    if baseline is not None:
        differences = [
            statistics.paired_difference(cell.values, cells[baseline].values)
            if row != baseline and comparable[row]
            else None
            for row, cell in enumerate(cells)
        ]
    adjusted = statistics.holm([None if difference is None else difference.p for difference in differences])
    means = [cell.mean.value for row, cell in enumerate(cells) if cell.mean and comparable[row]]
    best = {"max": max, "min": min}[column.best](means) if column.best and means and len(cells) > 1 else None
    return [
        replace(
            cell,
            difference=differences[row],
            p=adjusted[row],
            comparable=comparable[row] or cell.mean is None,
            best=best is not None and comparable[row] and cell.mean is not None and cell.mean.value == best,
            published=column.published.get(labels[row]),
        )
        for row, cell in enumerate(cells)
    ]


def _best_in_row(cells: Sequence[Cell], best: Callable[[list[float]], float]) -> list[Cell]:
    means = [cell.mean.value for cell in cells if cell.mean]
    return [replace(cell, best=cell.mean is not None and cell.mean.value == best(means)) for cell in cells]


def _row_notes(runs: Sequence[SelectedRun]) -> list[str]:
    """Return the notes that belong to no metric: they concern the whole row."""
    named = [(run.record, *item) for run in runs if run.record for item in run.record["notes"].items()]
    return [
        clean(text) for record, name, text in named if name not in record["metrics"] and not name.startswith("seconds.")
    ]


def _flag_n(cell: Cell, common: int) -> Cell:
    if cell.mean and not cell.status and cell.mean.n != common:
        return replace(cell, status=f"n={cell.mean.n}")
    return cell
