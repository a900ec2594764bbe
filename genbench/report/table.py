"""A small result table: a cell is one configuration minus its seed."""

import json
import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from genbench import records
from genbench.analysis import statistics
from genbench.checks import nearest
from genbench.records import clean

SIGNIFICANCE = 0.05

RAW_MEASURES = tuple(f"train/flatness/{name}" for name in ("lambda_1", "trace", "sam_sharpness", "average_sharpness"))
"""Measures that move when weights are rescaled and the network's outputs are not."""

_OTHER_NETWORK = "another network"

_ACCURACY = {"group": "accuracy (%)", "scale": 100, "digits": 1}
DEFAULT_COLUMNS: list[dict[str, Any]] = [
    {**_ACCURACY, "label": "test", "metric": "test/performance/accuracy", "best": "max"},
    {**_ACCURACY, "label": "train", "metric": "train/performance/accuracy"},
    {**_ACCURACY, "label": "gap", "metric": "test/gap/accuracy", "best": "min"},
    {"group": "sharpness", "label": "λ₁", "metric": "train/flatness/lambda_1"},
    {"group": "sharpness", "label": "trace", "metric": "train/flatness/trace"},
    {"group": "sharpness", "label": "SAM", "metric": "train/flatness/sam_sharpness"},
    {"group": "sharpness", "label": "adaptive", "metric": "train/flatness/adaptive_sharpness", "best": "min"},
    {"group": "weights", "label": "norm", "metric": "weights/norm/l2"},
    {"group": "weights", "label": "distance", "metric": "weights/norm/distance"},
    {"group": "cost", "label": "seconds", "metric": "seconds.fit"},
]

_ABSENT = "–"
_UNFINISHED = ("failed", "diverged", "damaged", "running", "missing")


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column shows: ``scale`` times ``metric`` of the runs that match ``where``.

    ``best`` (max or min) is set in bold. ``published`` maps rows to printed values, in the column's unit, which stand
    beside the measured ones and come from ``source``. ``digits`` are decimals (default: three significant digits of the
    column's median). ``group`` heads neighbouring columns.
    """

    label: str
    metric: str
    group: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)
    best: str | None = None
    scale: float = 1.0
    digits: int | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    @property
    def title(self) -> str:
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration: ``values`` by seed (scaled), their mean, and the difference from the baseline's.

    ``status`` is empty, ``n=2/3``, or the reason in one word when there is no value. ``p`` is Holm's. ``comparable`` is
    false where the column may not be compared with the other rows. ``notes`` index the table's.
    """

    values: Mapping[Hashable, float] = field(default_factory=dict)
    mean: statistics.Mean | None = None
    planned: int = 0
    status: str = ""
    difference: statistics.Difference | None = None
    p: float | None = None
    best: bool = False
    comparable: bool = True
    notes: tuple[int, ...] = ()
    published: str | None = None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANCE


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row's ``label``, and of the settings that were tried for it the one it shows (``chosen``)."""

    label: str
    chosen: str = ""
    notes: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.label} ({self.chosen})" if self.chosen else self.label


@dataclass(frozen=True, kw_only=True)
class Table:
    """``cells[row][column]``; ``notes`` are footnotes in the order of their letters, ``problems`` stand below them.

    ``figures`` are those that the experiment asked for: what :class:`genbench.report.curves.Curve` takes.
    """

    title: str
    caption: list[str]
    header: str
    rows: list[Row]
    columns: list[Column]
    cells: list[list[Cell]]
    baseline: int | None
    notes: list[str]
    problems: list[str]
    figures: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class _Run:
    """A run that has a record or is planned; ``values`` answer what it was, ``state`` how it ended."""

    run_id: str
    state: str
    reason: str
    record: Mapping[str, Any] | None
    overrides: Mapping[str, str]


def build(loaded: records.Records, spec: Mapping[str, Any] | None = None) -> Table:
    """The table of a folder of records.

    ``spec`` (default: the ``table`` of the sweep) has title, caption, rows, baseline, choose and columns; whatever is
    absent or null is derived. With ``choose``, a ``metric`` of which ``best`` is max or min, a row whose runs differ in
    settings that no column tells apart shows the setting with the best mean of that metric over all of its runs, and
    says which. Raises ``ValueError`` (one line) for a malformed spec and for a cell that would mix configurations.
    """
    spec = _spec(loaded, spec)
    columns = _columns(spec)
    problems = [f"{path} {reason}" for path, reason in loaded.problems]
    runs, left_out = _runs(loaded)
    problems += left_out
    if not runs:
        raise ValueError(f"no runs to show in {loaded.folder.name}: it holds neither a readable record nor a plan")
    keys = _row_keys(spec, runs, columns)
    lookup = _Lookup(runs)
    for key in [*keys, *(key for column in columns for key in column.where)]:
        lookup.require(key)
    baseline_key = _baseline(spec, keys)
    found = list(dict.fromkeys(lookup.row(run, keys) for run in runs))
    problems += [f"{run.run_id}: {run.reason}; its row is unknown" for run in runs if None in lookup.row(run, keys)]
    row_keys = [row for row in found if None not in row]
    if not loaded.sweep:
        row_keys.sort(key=lambda row: (row != baseline_key, [_natural(str(part)) for part in row]))
    baseline = row_keys.index(baseline_key) if baseline_key in row_keys else None
    chosen = _choose(spec, columns, runs, keys)
    problems += chosen.problems
    if baseline_key is not None and baseline is None:
        problems.append(f"the baseline {'/'.join(map(str, baseline_key))} has no run here: nothing is compared with it")

    notes = _Notes()
    rows: list[Row] = []
    grid: list[list[Cell]] = []
    references: list[Mapping[str, Any] | None] = []
    for row in row_keys:
        members = [run for run in chosen.runs if lookup.row(run, keys) == row]
        remarks = notes.add(chosen.remarks.get(row, []))
        marks = tuple(sorted({*remarks, *_row_notes(members, notes)}))
        rows.append(Row(label=_label(row), chosen=chosen.labels.get(row, ""), notes=marks))
        references.append(next((run.record for run in members if run.record), None))
        line = []
        for column in columns:
            inside = [run for run in members if lookup.matches(run, column.where)]
            line.append(_cell(inside, column, f"column {column.title!r}, row {rows[-1].label!r}", notes))
        grid.append(line)
    reference = references[baseline if baseline is not None else 0] if references else None
    altered = [_alteration(record, reference) for record in references]
    by_column = zip(*grid, strict=True)
    labels = [row.label for row in rows]
    shared = any(run.record is not None and _packed(run.record) for run in runs)
    compared = [
        # a share of a pack's seconds is no measurement of its own: it has no spread, and is tested against nothing
        _compare(column, cells, None if shared and _is_clock(column) else baseline, altered, labels)
        for column, cells in zip(columns, by_column, strict=True)
    ]
    grid = [list(line) for line in zip(*compared, strict=True)]
    common = max((cell.mean.n for line in grid for cell in line if cell.mean), default=0)
    grid = [[_flag_n(cell, common) for cell in line] for line in grid]
    return Table(
        title=clean(spec.get("title") or _experiment(loaded)),
        caption=_caption(spec, columns, rows, grid, baseline, altered, common)
        + chosen.caption
        + [
            f"{column.title}: of runs that were trained in packs, equal shares of their packs' time."
            for column in columns
            if shared and _is_clock(column)
        ],
        header=", ".join(key.rsplit(".", 1)[-1].replace("_", " ") for key in keys),
        rows=rows,
        columns=columns,
        cells=grid,
        baseline=baseline,
        notes=notes.texts,
        problems=[clean(problem) for problem in problems],
        figures=spec.get("figures") or (),
    )


@dataclass(frozen=True)
class Point:
    """A completed run with its place: the row's label and the condition (whatever else varies besides the seed).

    ``setting`` is what was tried for its row, by dotted key, and empty where there was nothing to choose; ``chosen``
    tells whether the table shows it.
    """

    record: Mapping[str, Any]
    row: str
    condition: str
    comparable: bool  # in raw measures, with the baseline's row
    setting: Mapping[str, Any]
    chosen: bool


def points(loaded: records.Records, spec: Mapping[str, Any] | None = None) -> list[Point]:
    """The completed runs, in the order of the table's rows, then of conditions and seeds; for figures."""
    spec = _spec(loaded, spec)
    runs, _ = _runs(loaded)
    columns = _columns(spec)
    keys = _row_keys(spec, runs, columns)
    choice = _choose(spec, columns, runs, keys)
    others = _extend(choice.runs, keys, [{}])[len(keys) :]
    lookup = _Lookup(runs)
    shown = {run.run_id for run in choice.runs}
    complete = [run for run in runs if run.record and run.record["status"] == "completed"]
    rows = list(dict.fromkeys(lookup.row(run, keys) for run in runs))
    baseline = _baseline(spec, keys)
    home = [run.record for run in complete if lookup.row(run, keys) == baseline] or [run.record for run in complete]
    conditions = {run.run_id: lookup.row(run, others) for run in complete}
    names = [key.rsplit(".", 1)[-1].replace("_", " ") for key in others]
    found = []
    for run in sorted(
        complete,
        key=lambda run: (
            rows.index(lookup.row(run, keys)),
            [_natural(str(part)) for part in conditions[run.run_id]],
            (run.record or {})["seed"],
        ),
    ):
        assert run.record is not None
        found.append(
            Point(
                record=run.record,
                row=_label(lookup.row(run, keys)),
                condition=", ".join(
                    f"{name} {value}" for name, value in zip(names, conditions[run.run_id], strict=True)
                ),
                comparable=_alteration(run.record, home[0]) is None,
                setting=choice.settings.get(run.run_id, {}),
                chosen=run.run_id in shown,
            )
        )
    return found


def _label(row: Sequence[str | None]) -> str:
    return "/".join(map(str, row))


_Values = tuple[str | None, ...]  # of some settings, as shown


@dataclass(frozen=True)
class _Choice:
    """What ``choose`` came to: the ``runs`` to show, a row's chosen setting in words and what is to be noted of it, of
    each run that was one of several what distinguishes it."""

    runs: Sequence[_Run]
    labels: Mapping[_Values, str] = field(default_factory=dict)
    remarks: Mapping[_Values, list[str]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    caption: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _choose(spec: Mapping[str, Any], columns: Sequence[Column], runs: Sequence[_Run], keys: Sequence[str]) -> _Choice:
    """Of the settings that were tried for each row, the one with the best mean.

    A mean that some run has no part in is not compared with one of all runs: such a setting is chosen only where there
    is no other, and what failed is said. Of equal ones the first in natural order, the smallest, is chosen.
    """
    rule = spec.get("choose")
    if not rule:
        return _Choice(runs)
    lookup = _Lookup(runs)
    places = sorted({key for column in columns for key in column.where})
    rows: dict[_Values, list[_Run]] = {}
    for run in runs:
        rows.setdefault(lookup.row(run, keys), []).append(run)
    kept: list[_Run] = []
    labels, remarks, settings, problems = {}, {}, {}, []
    counts: set[int] = set()
    for row, members in rows.items():
        tried = sorted(set(_differences([run.record for run in members if run.record])) - {*keys, *places})
        groups: dict[_Values, list[_Run]] = {}
        for run in members:
            groups.setdefault(lookup.row(run, tried), []).append(run)
        if len(groups) == 1:
            kept += members
            continue
        groups = {group: groups[group] for group in sorted(groups, key=lambda g: [_natural(str(part)) for part in g])}
        validated: dict[_Values, dict[Hashable, float]] = {}
        for group, inside in groups.items():
            values: dict[Hashable, float] = {
                (run.record["seed"], lookup.row(run, places)): value
                for run in inside
                if run.record and (value := _chosen_by(run, rule["metric"])) is not None
            }
            if len(values) == len(inside):
                validated[group] = values
            else:
                lost = f"{len(inside) - len(values)} of {len(inside)} runs have no {rule['metric']}"
                problems.append(
                    f"{_label(row)}, {_setting(tried, group)}: {lost}; not among those that are chosen from"
                )
        best = _best(validated, rule["best"]) if validated else next(iter(groups))
        kept += groups[best]
        counts.add(len(groups))
        labels[row], remarks[row] = _setting(tried, best), [*_end(best, groups), *_alike(best, validated)]
        for run in members:
            if run.record:
                settings[run.run_id] = {key: _value(run.record, key) for key in tried}
    caption = []
    if labels:
        many = _and([str(count) for count in sorted(counts)])
        caption.append(
            f"In parentheses the setting shown: of {many} tried for each such row the one with the "
            f"{'highest' if rule['best'] == 'max' else 'lowest'} {rule['metric']}, mean over seeds and conditions; "
            "a row says nothing about another setting that validates as well."
        )
    order = {run.run_id: index for index, run in enumerate(runs)}
    return _Choice(sorted(kept, key=lambda run: order[run.run_id]), labels, remarks, settings, caption, problems)


def _chosen_by(run: _Run, metric: str) -> float | None:
    return None if run.record is None or run.record["status"] != "completed" else _measured(run.record, metric)


def _setting(keys: Sequence[str], values: Sequence[str | None]) -> str:
    """Settings in words: ``strength 0.01``."""
    named = zip(keys, values, strict=True)
    return ", ".join(f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {value}" for key, value in named)


def _best(validated: Mapping[_Values, Mapping[Hashable, float]], best: str) -> _Values:
    """Whose mean is the largest (max) or smallest (min); the first of those that are equal but for rounding."""
    means = {group: sum(values.values()) / len(values) for group, values in validated.items()}
    top = {"max": max, "min": min}[best](means.values())
    return next(group for group, mean in means.items() if math.isclose(mean, top, rel_tol=1e-6))


def _alike(best: _Values, validated: Mapping[_Values, Mapping[Hashable, float]]) -> list[str]:
    """How many other settings the runs do not tell from the chosen one: another seed may choose one of them."""

    def undecided(values: Mapping[Hashable, float]) -> bool:
        difference = statistics.paired_difference(values, validated[best])
        return difference is None or difference.p is None or difference.p >= SIGNIFICANCE

    n = sum(group != best and undecided(values) for group, values in validated.items())
    return [f"not told from {n} other{'s' * (n > 1)} of its settings (paired by run, p ≥ {SIGNIFICANCE})"] if n else []


def _end(best: _Values, groups: Collection[_Values]) -> list[str]:
    """That a setting is the first or last along a single number: beyond it may lie a better one."""
    try:
        tried = sorted(float(value or "nan") for (value,) in groups)
        place = tried.index(float(best[0] or "nan"))
    except ValueError:  # several numbers, or none
        return []
    ends = {0: "smallest", len(tried) - 1: "largest"}
    return [f"its setting is the {ends[place]} tried"] if place in ends else []


def _value(record: Mapping[str, Any], key: str) -> Any:
    return records.flatten(record["config"]).get(key, record["choices"].get(key))


def show(value: Any) -> str:
    """A setting as it is written in a table.

    >>> show(0.0), show(["l2", "sam"]), show([]), show(None), show(1e-4)
    ('0', 'l2+sam', 'none', 'none', '0.0001')
    """
    if isinstance(value, list | tuple):
        return "+".join(show(item) for item in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value)


def decimals(table: Table) -> list[list[int | None]]:
    """Decimals of every cell, rows × columns; ``None`` for scientific notation.

    A column's ``digits`` where it has them. Else three significant digits of its largest mean, and more in a cell that
    would show fewer than two of its own: sharpness spans orders of magnitude within a column.
    """

    def exponent(cell: Cell) -> int | None:
        return math.floor(math.log10(abs(cell.mean.value))) if cell.mean and cell.mean.value else None

    def places(cell: Cell, column: Column, largest: int) -> int | None:
        if column.digits is not None:
            return column.digits
        own = exponent(cell)
        if not -4 <= (largest if own is None else own) <= 5:
            return None
        return max(0, 2 - largest, 0 if own is None else 1 - own)

    exponents = [[exponent(cell) for cell in column] for column in zip(*table.cells, strict=True)]
    largest = [max((e for e in column if e is not None), default=2) for column in exponents]
    return [
        [places(cell, column, top) for cell, column, top in zip(line, table.columns, largest, strict=True)]
        for line in table.cells
    ]


def number(value: float, digits: int | None) -> str:
    """``value`` with ``digits`` decimals; two significant digits where these would show a zero that is none.

    >>> number(67.28, 1), number(-0.04, 1), number(123456.0, None), number(0.0, 1)
    ('67.3', '−0.04', '1.2e5', '0.0')
    """
    text = f"{value:.{digits}f}" if digits is not None else f"{value:.1e}"
    if value and digits is not None and not float(text):
        text = f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"
        text = text if "e" in text else text.rstrip("0") if "." in text else text
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def letter(index: int) -> str:
    """The letter of a footnote: a … z, aa …

    >>> letter(0), letter(25), letter(26)
    ('a', 'z', 'aa')
    """
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


class _Notes:
    """Footnotes, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, texts: Sequence[str]) -> tuple[int, ...]:
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        return tuple(sorted({self.texts.index(text) for text in texts}))


class _Lookup:
    """Answers what a setting of a run was, also of one that left no record: its overrides, or what all others share."""

    def __init__(self, runs: Sequence[_Run]) -> None:
        self.runs = runs
        self._defaults: dict[str, str | None] = {}

    def require(self, key: str) -> None:
        if all(self._own(run, key) is None for run in self.runs):
            known = sorted({name for run in self.runs if run.record for name in run.record["choices"]})
            raise ValueError(
                f"the table names the setting {key!r}, which no run has; accepted: a group "
                f"({', '.join(known) or 'none'}) or a dotted configuration key"
            )

    def value(self, run: _Run, key: str) -> str | None:
        """As shown; ``None`` where unknown (a run without record whose overrides do not tell)."""
        own = self._own(run, key)
        if own is not None:
            return own
        return _ABSENT if run.record else self._default(key)

    def row(self, run: _Run, keys: Sequence[str]) -> tuple[str | None, ...]:
        return tuple(self.value(run, key) for key in keys)

    def matches(self, run: _Run, where: Mapping[str, Any]) -> bool:
        return all(self.value(run, key) == show(value) for key, value in where.items())

    def _default(self, key: str) -> str | None:
        if key not in self._defaults:
            found = {self._own(run, key) or _ABSENT for run in self.runs if run.record}
            self._defaults[key] = found.pop() if len(found) == 1 else None
        return self._defaults[key]

    @staticmethod
    def _own(run: _Run, key: str) -> str | None:
        if run.record is None:
            return run.overrides.get(key)
        if key in run.record["choices"]:
            return show(run.record["choices"][key])
        value: Any = run.record["config"]
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return None if isinstance(value, dict) else show(value)


def _spec(loaded: records.Records, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(spec if spec is not None else (loaded.sweep or {}).get("table") or {})


def _columns(spec: Mapping[str, Any]) -> list[Column]:
    accepted = ("title", "caption", "rows", "baseline", "choose", "columns", "figures")
    if unknown := [key for key in spec if key not in accepted]:
        raise ValueError(f"table: unknown key {unknown[0]!r}; {nearest(unknown[0], accepted)}")
    if not isinstance(spec.get("rows"), list | None) or not isinstance(spec.get("baseline"), list | None):
        raise ValueError("table: rows and baseline must be lists or null")
    rule = spec.get("choose")
    if rule and (
        not isinstance(rule, Mapping) or set(rule) != {"metric", "best"} or rule["best"] not in ("max", "min")
    ):
        raise ValueError(f"table: choose is {rule!r}; accepted: {{metric: a metric, best: max or min}}, or null")
    nodes = spec.get("columns") or DEFAULT_COLUMNS
    columns = []
    fields = Column.__dataclass_fields__
    for node in nodes:
        if not isinstance(node, Mapping) or not {"label", "metric"} <= set(node):
            raise ValueError(f"table: a column needs label and metric, got {node!r}")
        if unknown := [key for key in node if key not in fields]:
            raise ValueError(
                f"table: column {node['label']!r} has the unknown key {unknown[0]!r}; {nearest(unknown[0], [*fields])}"
            )
        given = {key: value for key, value in node.items() if value is not None}
        if given.get("best") not in (None, "max", "min"):
            raise ValueError(f"table: column {node['label']!r}: best must be max, min or null, got {given['best']!r}")
        if given.get("published") and not given.get("source"):
            raise ValueError(f"table: column {node['label']!r}: published values need their source")
        for name in ("label", "group", "source"):
            if name in given:
                given[name] = clean(given[name])
        given["published"] = {show(key): show(value) for key, value in given.get("published", {}).items()}
        columns.append(Column(**given))
    return columns


def check(spec: Mapping[str, Any] | None, config: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    """Raise ValueError (one line) where a table's spec is malformed or names settings that a run does not have."""
    from genbench.report import curves

    spec = spec or {}
    known = sorted({*choices, *records.flatten(config)})
    read = [key for column in _columns(spec) for key in column.where]
    read += [key for curve in curves.parse(spec.get("figures")) for key in curve.keys]
    for key in [*(spec.get("rows") or []), *read]:
        if key not in known:
            raise ValueError(f"table: {key!r} is neither a group nor a setting of the runs; {nearest(key, known)}")


def _runs(loaded: records.Records) -> tuple[list[_Run], list[str]]:
    """Planned runs in the plan's order, then the others; and what was left out, said in a line each."""
    by_id = {record["run_id"]: record for record in loaded.records}
    damaged = {path.split("/")[0] for path, _ in loaded.problems}
    runs, left_out = [], []
    if earlier := records.earlier_code(loaded):
        left_out.append(f"{len(earlier)} run{'s' * (len(earlier) > 1)} of earlier code left out")
        by_id = {run_id: record for run_id, record in by_id.items() if run_id not in earlier}
    for plan in (loaded.sweep or {}).get("runs", []):
        run_id = plan["run_id"]
        record = by_id.pop(run_id, None)
        overrides = _overrides(plan.get("overrides", []))
        if record is not None:
            runs.append(_run(record, overrides))
            continue
        if run_id in damaged:
            state, reason = "damaged", "record damaged"
        elif records.running(loaded.folder / run_id):
            state, reason = "running", "still running"
        else:
            state, reason = "missing", "not run yet"
        runs.append(_Run(run_id, state, reason, None, overrides))
    for record in by_id.values():
        if record["status"] == "failed" and loaded.sweep:  # of an earlier plan: it has no numbers to show
            left_out.append(f"{record['run_id']}: not in the last sweep; failed: {record['error']}")
        else:
            runs.append(_run(record, {}))
    return runs, left_out


def _run(record: Mapping[str, Any], overrides: Mapping[str, str]) -> _Run:
    error = clean(record["error"] or "")
    reason = error if error.startswith(record["status"]) else f"{record['status']}: {error}".rstrip(": ")
    return _Run(record["run_id"], record["status"], reason, record, overrides)


def _overrides(texts: Sequence[str]) -> dict[str, str]:
    """Hydra overrides as shown values by key.

    >>> _overrides(["regularization=[mixup,l2]", "data.label_noise=0.20", "+x='a'"])
    {'regularization': 'l2+mixup', 'data.label_noise': '0.2', 'x': 'a'}
    """
    values = {}
    for text in texts:
        key, _, value = text.lstrip("+~").partition("=")
        key = key.split("@")[0]
        try:
            parsed: Any = json.loads(value)
        except ValueError:
            parsed = value.strip("'\"")
            if value.startswith("[") and value.endswith("]"):
                parsed = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        # a group's choices are recorded sorted
        values[key] = show(sorted(parsed, key=str) if isinstance(parsed, list) and "." not in key else parsed)
    return values


def _differences(members: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Configuration keys in which records differ although their seed does not explain it, with the shown values."""
    flat = [records.flatten(record["config"]) for record in members]
    seeds = [record["seed"] for record in members]
    differing = {}
    for key in sorted({key for config in flat for key in config}):
        values = [config.get(key, _ABSENT) for config in flat]
        if any(value != values[0] for value in values) and values != seeds:
            differing[key] = list(dict.fromkeys(show(value) for value in values))
    return differing


def _refuse_mixture(members: Sequence[Mapping[str, Any]], where: str) -> None:
    if differing := _differences(members):
        shown = [f"{key} is {' and '.join(values)}" for key, values in list(differing.items())[:3]]
        more = f" (and {len(differing) - 3} keys more)" if len(differing) > 3 else ""
        raise ValueError(
            f"{where} mixes configurations: {'; '.join(shown)}{more}; "
            "name them in the table's rows or the column's where, or keep the runs apart with name="
        )
    seen: dict[int, str] = {}
    for record in members:
        if (other := seen.setdefault(record["seed"], record["run_id"])) != record["run_id"]:
            raise ValueError(
                f"{where} holds seed {record['seed']} twice ({other}, {record['run_id']}) with one configuration: "
                "their inputs differ; remove one of the two or keep the runs apart with name="
            )


def _row_keys(spec: Mapping[str, Any], runs: Sequence[_Run], columns: Sequence[Column]) -> list[str]:
    """The spec's rows; without them the fewest settings, groups first, that leave one configuration a cell."""
    if spec.get("rows"):
        return list(spec["rows"])
    lookup = _Lookup(runs)
    groups = sorted({name for run in runs if run.record for name in run.record["choices"]})
    wheres = list({repr(column.where): column.where for column in columns}.values())
    varying = [name for name in groups if len({lookup.value(run, name) for run in runs if run.record}) > 1]
    keys = _extend(runs, [key for key in varying if not all(key in where for where in wheres)], wheres)
    return keys or (["regularization"] if "regularization" in groups or not groups else groups[:1])


def _extend(runs: Sequence[_Run], keys: Sequence[str], wheres: Sequence[Mapping[str, Any]]) -> list[str]:
    """``keys`` and the further settings it takes to tell all configurations of each ``where`` apart."""
    lookup, keys = _Lookup(runs), list(keys)
    while True:
        cells: dict[Any, list[Mapping[str, Any]]] = {}
        for index, where in enumerate(wheres):
            for run in runs:
                if run.record and lookup.matches(run, where):
                    cells.setdefault((index, lookup.row(run, keys)), []).append(run.record)
        differing = next(filter(None, map(_differences, cells.values())), None)
        if not differing:
            return keys
        keys.append(next(iter(differing)))


def _baseline(spec: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...] | None:
    given = spec.get("baseline")
    if given is None:
        return ("none",) if list(keys) == ["regularization"] and "baseline" not in spec else None
    if len(given) != len(keys):
        raise ValueError(f"table: baseline {given!r} must have one value for each of the rows' keys {list(keys)!r}")
    return tuple(show(value) for value in given)


def _cell(runs: Sequence[_Run], column: Column, where: str, notes: _Notes) -> Cell:
    members = [run.record for run in runs if run.record]
    _refuse_mixture(members, where)
    values: dict[Hashable, float] = {}
    reasons: dict[str, list[str]] = {}
    remarks: dict[str, list[str]] = {}  # on values that there are
    for run in runs:
        seed = str(run.record["seed"] if run.record else run.overrides.get("seed", "?"))
        if run.record is None or run.record["status"] != "completed":
            reasons.setdefault(run.reason, []).append(seed)
            continue
        record = run.record
        value = _measured(record, column.metric)
        if value is not None:
            values[record["seed"]] = value * column.scale
        elif column.metric not in record["notes"]:
            reasons.setdefault(f"{column.metric} was not measured", []).append(seed)
        if note := clean(record["notes"].get(column.metric, "")):
            for text in [note] if value is None else note.split("; "):
                (reasons if value is None else remarks).setdefault(text, []).append(seed)
        if record["converged"].get(column.metric) is False:
            reasons.setdefault("did not converge", []).append(seed)
    # what a search says of itself is another text in each run: the flag above stands for it, the record has it whole
    searched = any(run.record and column.metric in run.record["converged"] for run in runs)
    for text, seeds in remarks.items():
        if len(seeds) == len(runs) or not searched:
            reasons.setdefault(text, []).extend(seeds)
    texts = [
        text if len(seeds) == len(runs) else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {text}"
        for text, seeds in reasons.items()
    ]
    if not runs:
        texts = ["no such run was planned"]
    status = ""
    if not values:
        states = {run.state for run in runs}
        status = next((state for state in _UNFINISHED if state in states), "–" if runs else "missing")
    elif len(values) < len(runs):
        status = f"n={len(values)}/{len(runs)}"
    return Cell(
        values=values,
        mean=statistics.mean_interval(list(values.values())) if values else None,
        planned=len(runs),
        status=status,
        notes=notes.add(texts),
    )


def _measured(record: Mapping[str, Any], metric: str) -> float | None:
    if metric.startswith("seconds."):
        return record["seconds"].get(metric.removeprefix("seconds."))
    return record["metrics"].get(metric)


def _is_clock(column: Column) -> bool:
    return column.metric.startswith("seconds.")


def _packed(record: Mapping[str, Any]) -> bool:
    """Whether a run trained together with others."""
    return record["provenance"].get("lanes", 1) > records.members(record["config"])


def _alteration(record: Mapping[str, Any] | None, reference: Mapping[str, Any] | None) -> str | None:
    """Why raw measures of a row may not be compared with the reference row's."""
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
    """A column's cells with their differences from the baseline, corrected p values, and the best in bold."""
    raw = column.metric in RAW_MEASURES
    norm = column.metric.startswith("weights/norm/") and not column.metric.endswith("/params")  # a count is none
    # before a normalization the scale of weights means nothing, and its own scales count as weights
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
    best = {"max": max, "min": min}[column.best](means) if column.best and means else None
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


def _row_notes(runs: Sequence[_Run], notes: _Notes) -> tuple[int, ...]:
    """Notes that belong to no metric concern the whole row."""
    named = [(run.record, *item) for run in runs if run.record for item in run.record["notes"].items()]
    return notes.add([clean(text) for record, name, text in named if name not in record["metrics"]])


def _flag_n(cell: Cell, common: int) -> Cell:
    if cell.mean and not cell.status and cell.mean.n != common:
        return replace(cell, status=f"n={cell.mean.n}")
    return cell


def _caption(
    spec: Mapping[str, Any],
    columns: Sequence[Column],
    rows: Sequence[Row],
    grid: Sequence[Sequence[Cell]],
    baseline: int | None,
    altered: Sequence[str | None],
    common: int,
) -> list[str]:
    cells = [cell for line in grid for cell in line]
    caption = [clean(spec["caption"])] if spec.get("caption") else []
    if common > 1:
        unless = " unless a cell says otherwise" if any(cell.status for cell in cells) else ""
        caption.append(f"Mean ± half-width of the Student-t 95 % interval over n = {common} seeds{unless}.")
    elif common == 1:
        caption.append("One seed: no intervals, no tests.")
    if baseline is not None and common > 1:
        families = [sum(line[i].p is not None for line in grid) for i in range(len(columns))]
        caption.append(
            f"* differs from {rows[baseline].label}: paired by seed, t test, p < {SIGNIFICANCE} after Holm's "
            f"correction within the column ({_comparisons(columns, families)}); no mark: undecided, not equal."
        )
    directions = {column.best for column in columns if column.best}
    if directions:
        sense = (
            "highest (↑) or lowest (↓)"
            if len(directions) == 2
            else "highest (↑)"
            if directions == {"max"}
            else "lowest (↓)"
        )
        caption.append(f"Bold: {sense} mean of its column, which alone is no evidence of a difference.")
    raw = [column for column in columns if column.metric in RAW_MEASURES]
    if raw:
        names = list(dict.fromkeys(column.label for column in raw))
        caption.append(
            f"{_and(names)} change when weights are rescaled and the function is not: compare them only between rows "
            "of similar weight norm, and adaptive sharpness instead."
        )
        reasons: dict[str, list[str]] = {}
        for row, reason in zip(rows, altered, strict=True):
            if reason:
                reasons.setdefault(reason, []).append(row.label)
        if reasons and any(not cell.comparable for cell in cells):
            because = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items())
            caption.append(f"† not comparable with the other rows, so neither tested nor set in bold ({because}).")
    for column in columns:
        if column.published:
            caption.append(f"Published values of {column.title}: {column.source}.")
    return caption


def _comparisons(columns: Sequence[Column], families: Sequence[int]) -> str:
    """How many comparisons each column's correction is for: the usual number, then the columns that have another."""
    tested = [family for family in families if family]
    usual = max(set(tested), key=tested.count, default=0)
    text = f"{usual} comparison{'s' * (usual != 1)}"
    labels = [column.label for column in columns]
    others: dict[int, list[str]] = {}
    for column, family in zip(columns, families, strict=True):
        if family not in (0, usual):
            others.setdefault(family, []).append(column.label if labels.count(column.label) == 1 else column.title)
    return "; ".join([text, *(f"{family} of {_and(names)}" for family, names in others.items())])


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _experiment(loaded: records.Records) -> str:
    named = loaded.sweep or (loaded.records[0] if loaded.records else {})
    return str(named.get("experiment") or loaded.folder.name)


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts numbers in text by value: 2 before 10."""
    if re.fullmatch(r"\d+\.?\d*e[+-]?\d+", text):
        return [(0, float(text), "")]
    parts = re.split(r"(\d+\.?\d*)", text)
    return [(0, float(part), "") if re.fullmatch(r"\d+\.?\d*", part) else (1, 0.0, part) for part in parts if part]
