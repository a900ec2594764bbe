"""``report.html``: one file that opens without a network. The template escapes all text."""

import base64
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.privacy import clean
from genbench.records.settings import show
from genbench.report import render
from genbench.report.format import decimals, half, letter, number
from genbench.report.model import Point, Table, VerdictRow, Verdicts
from genbench.report.selection import Selection

if TYPE_CHECKING:
    from jinja2 import Environment

_LIBRARIES = ("genbench", "matplotlib", "numpy", "pandas", "scipy")
_MOST = 20
"""Runs that a line of details names."""
# keys that are never shown: they may name a person, a machine or a path
_PRIVATE = re.compile(r"host|user|home|path|dir|argv|token|key|secret", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    caption: str
    svg: bytes

    @property
    def data(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()

    @property
    def width(self) -> int:
        """The width in pixels: 4/3 of the file's width in points."""
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', self.svg)
        return round(float(found[1]) * 4 / 3) if found else 640


def environment() -> "Environment":
    """Return the templates of this package; they escape all text, and a missing name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("genbench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(
    selection: Selection,
    table: Table,
    points: Sequence[Point],
    pictures: Sequence[Picture],
    verdicts: Verdicts | None = None,
) -> str:
    """Return the whole report as HTML."""
    templates = environment()
    templates.globals |= {
        "letter": letter,
        "heading": render.heading,
        "verdict_details": verdict_details,
        "numbered": render.numbered,
    }
    shared, varied = _settings([run.config for run in selection.runs if run.record])
    return templates.get_template("report.html.j2").render(
        table=table,
        tables=[(each, render.spans(each), render.texts(each)) for each in (table, *table.further)],
        verdicts=verdicts,
        spans=render.spans(table),
        differences=_differences(table),
        pictures=pictures,
        counts=_counts(selection),
        command=shlex.join(["genbench", *map(clean, selection.sweep["command"])]) if selection.sweep else None,
        searches=_searches(selection, table),
        shared=shared,
        varied=varied,
        provenance=public([point.record["provenance"] for point in points]),
        versions=versions(),
    )


def verdict_details(row: VerdictRow) -> list[tuple[str, str]]:
    """Return what a claim's row opens to, below its rule, as names and texts; what there is not is left out."""
    numbers = dict(zip(render.VERDICT_HEAD, render.verdict_numbers(row), strict=True))
    measured = "" if row.statistic is None else f"{row.statistic:.4g}"
    pairs = [
        ("measured", measured if row.interval is None else f"{measured}, 95 % interval {numbers['95 % interval']}"),
        *((name, numbers[name]) for name in ("n", "p for", "p against")),
        ("missing runs", "; ".join(row.missing)),
        ("runs without a number", "; ".join(row.unknown)),
        ("source", row.source),
    ]
    return [(name, text) for name, text in pairs if text not in ("", "–")]


def _differences(table: Table) -> list[list[str]]:
    """Return the differences from the baseline with interval and p as text, rows × columns."""
    body = []
    for line, digits in zip(table.cells, decimals(table), strict=True):
        cells = []
        for cell, places in zip(line, digits, strict=True):
            item = cell.difference
            if item is None:
                cells.append("")
                continue
            text = number(item.value, places)
            text = "+" + text if item.value > 0 else text
            if item.half_width is not None:
                text += f" ± {half(item.half_width, places)}"
            cells.append(text + (f" (p = {cell.p:.2g})" if cell.p is not None else ""))
        body.append(cells)
    return body


def _counts(selection: Selection) -> str:
    """Count the runs by status, in words."""
    by_status = dict.fromkeys(records.STATUSES, 0)
    for record in selection.records:
        by_status[record["status"]] += 1
    planned = {run["run_id"] for run in selection.sweep["runs"]} if selection.sweep else set()
    if absent := len(planned - {record["run_id"] for record in selection.records}):
        by_status["without a record"] = absent
    return ", ".join(f"{count} {status}" for status, count in by_status.items() if count)


def _searches(selection: Selection, table: Table) -> dict[str, str]:
    """Describe how the searches for a column's values went, by the column's title."""
    found = {}
    for column in {column.metric: column for column in table.columns}.values():
        notes = {run.run_id: run.record["notes"].get(column.metric, "") for run in selection.runs if run.record}
        said = [
            f"{run_id} {text.removeprefix(records.SEARCH)}"
            for run_id, note in notes.items()
            for text in note.split("; ")
            if text.startswith(records.SEARCH)
        ]
        if said:
            more = [f"and {len(said) - _MOST} more, in the records"] if len(said) > _MOST else []
            found[column.title] = clean("; ".join([*said[:_MOST], *more]))
    return found


def _settings(flat: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings that all runs share, and the values of those that vary, by dotted key."""
    shared, varied = {}, {}
    for key in sorted({key for config in flat for key in config}):
        present = [config[key] for config in flat if key in config]
        values = list(dict.fromkeys(map(show, _distinct(present))))
        everywhere = len(present) == len(flat)
        if len(values) == 1 and everywhere:
            shared[key] = values[0]
        else:
            varied[key] = ", ".join(values) + ("" if everywhere else " (where it applies)")
    return shared, varied


def public(provenances: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the provenance that may be shown: all values that occur, by dotted key."""
    found: dict[str, list[Any]] = {}
    for provenance in provenances:
        for key, value in records.flatten(provenance).items():
            found.setdefault(key, []).append(value)
    return {
        key: ", ".join(
            dict.fromkeys(clean(value if isinstance(value, str) else json.dumps(value)) for value in _distinct(values))
        )
        for key, values in sorted(found.items())
        if not _PRIVATE.search(key)
    }


def _distinct(values: Sequence[Any]) -> Collection[Any]:
    """Return the distinct values in order; ``1`` and ``True`` differ."""
    return [value for _, value in dict.fromkeys(zip(map(type, values), values, strict=True))]


def versions() -> dict[str, str]:
    """Return the versions of the libraries that make a page."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    return found
