"""A small result table: a cell is one configuration minus its seed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from genbench import records
from genbench.analysis import statistics
from genbench.checks import nearest
from genbench.privacy import clean
from genbench.report.best_setting import choose
from genbench.report.caption import caption_of, changes, of_another_scale, published_caption, scaled_down
from genbench.report.cells import row_of_cells, with_shared_notes, without_empty, without_general
from genbench.report.format import natural
from genbench.report.lookup import Lookup, Values, extend, label
from genbench.report.model import Cell, Column, Point, Row, Table
from genbench.report.selection import SelectedRun, Selection
from genbench.report.sign_errors import build as sign_errors
from genbench.report.spec import RAW_MEASURES, columns_of, further_of, order_of

_OTHER_NETWORK = "another network"


def build(selection: Selection, spec: Mapping[str, Any] | None = None) -> Table:
    """Build the table of some runs.

    ``spec`` (default: the ``table`` of the sweep) has title, caption, rows, baseline, choose, columns and figures;
    defaults replace whatever is absent or null. ``choose`` holds a ``metric`` and whether ``best`` is max or min: if
    the runs of a row differ in settings that no column distinguishes, the row shows the setting with the best mean of
    the metric over all of its runs, or with ``apart`` in each condition, and names it. Columns without any value are
    left out, and the caption says so. ``where`` chooses runs by their settings, ``best_in_row`` (max or min) marks the
    best mean of each row, ``further`` has the specs of more tables, and ``effects`` names the metric whose differences
    from the baseline in all of them are drawn.

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
    if not runs and not order:
        raise ValueError(f"table: no run has the settings {dict(where)!r} of where; accepted: those of some runs")
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
    lines = [row_of_cells(shown.get(row, []), columns, lookup, label(row)) for row in row_keys]
    columns, lines, absent = without_empty(columns, lines)
    lines, general = without_general(columns, with_shared_notes(columns, lines))
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
        header=_header(keys, labels, order),
        rows=rows,
        columns=columns,
        cells=grid,
        baseline=baseline,
        notes=notes.texts,
        problems=[clean(problem) for problem in (*selection.left_out, *problems)],
        figures=spec.get("figures") or (),
        effects=spec.get("effects"),
        further=[
            (sign_errors if node.get("sign_errors") else build)(replace(selection, left_out=()), node)
            for node in further_of(spec)
        ],
    )


def points(selection: Selection, spec: Mapping[str, Any] | None = None) -> list[Point]:
    """Return the completed runs for figures, ordered by the table's rows, then by condition and seed."""
    spec = _spec(selection, spec)
    runs = selection.runs
    if spec.get("choose"):  # the settings of other runs are not those that were tried for the table's
        runs = Lookup(runs).matching(runs, spec.get("where") or {})
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


def _header(keys: Sequence[str], labels: Sequence[str], order: Mapping[str, str]) -> str:
    """Return the heading of the rows: their settings, or nothing if they are several and each row has a name that says
    what it is."""
    if len(keys) > 1 and labels and all(order.get(label, label) != label for label in labels):
        return ""
    return ", ".join(key.rsplit(".", 1)[-1].replace("_", " ") for key in keys)


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
