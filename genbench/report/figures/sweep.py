"""The figures of a sweep: learning curves, gap against flatness and norms, differences from the baseline.

Rows are numbered as well as coloured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from genbench.report.figures import custom, differences, effects, gap, learning, strengths
from genbench.report.figures.style import Drawing, settle
from genbench.report.model import Point, Table
from genbench.report.selection import Selection
from genbench.report.spec import Curve, curves_of

_PANELS = 40
"""Rows that a figure shows with a panel or a number each."""
_LINES = 60
"""Rows that a figure shows with a line each."""


def draw(selection: Selection, table: Table, points: Sequence[Point]) -> Iterator[Drawing]:
    """Yield every figure for which there are data, and those that the experiment asks for.

    Call it within :func:`genbench.report.figures.style.context`.
    """
    shown = [point for point in points if point.chosen]
    rows, note = _few(table, _PANELS)
    lines, lines_note = _few(table, _LINES)
    few = [point for point in shown if point.row in rows]
    tried = [point for point in points if point.row in rows]
    curves = learning.curves_of(selection, few)
    # one at a time: each takes memory
    figures: list[Callable[[], Drawing | None]] = [
        lambda: _noted(differences.draw(table, lines), lines_note),
        lambda: _noted(strengths.draw(tried, table), note),
        lambda: _noted(gap.against_flatness(shown, rows), note),
        lambda: _noted(gap.against_norms(shown, rows), note),
        lambda: _noted(gap.against_added(shown, rows), note),
        lambda: _noted(learning.accuracy(curves, few), note),
        lambda: _noted(learning.cross_entropy(curves, few), note),
    ]
    for make in figures:
        if (drawing := make()) is not None:
            settle(drawing)
            yield drawing
    yield from asked(table, points)


def asked(table: Table, points: Sequence[Point]) -> Iterator[Drawing]:
    """Yield the figures that the experiment asks for; see :func:`draw`."""
    if table.effects is not None and (drawing := effects.draw(table, table.effects)) is not None:
        settle(drawing)
        yield drawing
    for curve in curves_of(table.figures):
        if (drawing := _custom(curve, points, table)) is not None:
            settle(drawing)
            yield drawing


def _few(table: Table, most: int) -> tuple[set[str], str]:
    """Return the labels of at most ``most`` rows, and a sentence that names them unless they are all rows.

    They are the baseline and the rows at both ends of the first column with a best value.
    """
    labels = [row.label for row in table.rows]
    if len(labels) <= most:
        return set(labels), ""
    base = [] if table.baseline is None else [labels[table.baseline]]
    ranked: list[str] = []
    for index in [index for index, column in enumerate(table.columns) if column.best][:1]:
        means = {label: line[index].mean for label, line in zip(labels, table.cells, strict=True) if label not in base}
        values = {label: mean.value for label, mean in means.items() if mean}
        ranked = sorted(values, key=lambda label: values[label])
        title = table.columns[index].title
    if half := min(most - len(base), len(ranked)) // 2:
        ends = f"the {half} with the lowest and the {half} with the highest {title}"
        shown = ", ".join([*base, ends])
        chosen = {*base, *ranked[:half], *ranked[-half:]}
    else:
        shown, chosen = f"the first {most}", set([*base, *labels][:most])
    return chosen, f" Shown of {len(labels)} rows: {shown}; the table has all."


def _custom(curve: Curve, points: Sequence[Point], table: Table) -> Drawing | None:
    """Draw a figure that the experiment asks for, with at most as many of the table's rows as there are line styles."""
    if curve.lines or not isinstance(curve.y, str):
        return custom.draw(curve, points)
    rows, note = _few(table, custom.LINES)
    return _noted(custom.draw(curve, [point for point in points if point.row in rows]), note)


def _noted(drawing: Drawing | None, note: str) -> Drawing | None:
    return drawing and replace(drawing, caption=drawing.caption + note)
