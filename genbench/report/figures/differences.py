"""Differences in test accuracy from the baseline."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from genbench.analysis import statistics
from genbench.report.figures.style import COLOURS, GREY, INK, Drawing, blank, plain
from genbench.report.format import wrapped
from genbench.report.model import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(table: Table, rows: Collection[str]) -> Drawing | None:
    """Draw the test accuracy of some rows, by label: difference from the baseline with interval, a panel per column."""
    columns = [i for i, column in enumerate(table.columns) if column.metric == "test/performance/accuracy"]
    base = table.baseline
    if base is None or not any(line[i].difference for line in table.cells for i in columns):
        return None
    shown = [row for row in range(len(table.rows)) if row != base and table.rows[row].label in rows]

    def effect(row: int) -> float:
        difference = table.cells[row][columns[0]].difference
        return -math.inf if difference is None else difference.value

    shown.sort(key=effect)
    beside = 0.065 * max((len(table.rows[row].label) for row in shown), default=0)
    width = max(7.6, beside + 1.9 * len(columns))
    characters = int((width - beside) / len(columns) / 0.07)
    figure, axes = blank(width, 1.1 + 0.24 * len(shown), 1, len(columns), sharey=True)
    for axis, index in zip(axes[0], columns, strict=True):
        column, mean = table.columns[index], table.cells[base][index].mean
        for y, row in enumerate(shown):
            cell = table.cells[row][index]
            if cell.difference is None:
                axis.text(0, y, f" {cell.status or 'not paired'}", color=GREY, va="center", fontsize=7)
                continue
            colour = COLOURS[0] if cell.significant else GREY
            if cell.difference.half_width is not None:
                low, high = cell.difference.low, cell.difference.high
                axis.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
            fill = colour if cell.significant else "white"
            axis.plot(cell.difference.value, y, "o", markersize=5, markerfacecolor=fill, markeredgecolor=colour)
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set_yticks(range(len(shown)), [plain(table.rows[row].label) for row in shown])
        axis.set_ylim(-0.7, len(shown) - 0.3)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        baseline = f" ({table.rows[base].label}: {mean.value:.{column.digits or 1}f})" if mean else ""
        axis.set_title(plain("\n".join(wrapped(column.title + baseline, characters))))
        axis.set_xlabel(plain("\n".join(wrapped(f"difference from {table.rows[base].label}", characters))))
        _limit(axis, [table.cells[row][index].difference for row in shown])
    return Drawing(
        "differences",
        f"Test accuracy, difference from {table.rows[base].label}",
        "Mean difference paired by seed with its Student-t 95 % interval, sorted by the first panel; filled and blue "
        "where p < 0.05 after Holm's correction within the panel. An interval that leaves the panel ends in an arrow.",
        figure,
    )


def _limit(axis: "Axes", differences: Sequence[statistics.Difference | None]) -> None:
    """Set the limits so that no single wide interval dominates them; mark intervals that are cut off."""
    present = [item for item in differences if item is not None]
    values = [item.value for item in present]
    halves = sorted(item.half_width for item in present if item.half_width is not None)
    if not values:
        return
    typical = halves[int(0.75 * (len(halves) - 1))] if halves else 0.0
    reach = max(typical, 0.05 * (max(values) - min(values)), 1e-9)
    low, high = min([0.0, *values]) - 1.3 * reach, max([0.0, *values]) + 1.3 * reach
    axis.set_xlim(low, high)
    for y, item in enumerate(differences):
        if item is None or item.half_width is None:
            continue
        for end, edge, marker in ((item.low, low, "<"), (item.high, high, ">")):
            if end is not None and (end < low if marker == "<" else end > high):
                axis.plot(edge, y, marker, color=GREY, markersize=4, clip_on=False)
