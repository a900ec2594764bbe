"""What each row does in every condition: its differences from the baseline as a map, a panel a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench.report.figures.style import COLOURS, GREY, INK, Drawing, blank, plain
from genbench.report.format import number, wrapped
from genbench.report.model import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 60
"""Rows of a map."""


def draw(table: Table, metric: str) -> Drawing | None:
    """Draw the differences of a metric from the baseline, in the table and those below it; None without any."""
    panels = [each for each in (table, *table.further) if each.baseline is not None and _columns(each, metric)]
    panels = [each for each in panels if any(cell.difference for _, line in _lines(each, metric) for cell in line)]
    if not panels:
        return None
    reach = max(
        abs(c.difference.value) for each in panels for _, line in _lines(each, metric) for c in line if c.difference
    )
    labels = list(dict.fromkeys(label for each in panels for label, _ in _lines(each, metric)))
    rows = labels[:_MOST]
    beside = 0.065 * max(map(len, rows))
    counts = [len(_columns(each, metric)) for each in panels]
    figure, axes = blank(
        beside + 0.5 * sum(counts) + 0.3, 1.5 + 0.24 * len(rows), 1, len(panels), sharey=True, width_ratios=counts
    )
    for axis, each in zip(axes[0], panels, strict=True):
        _panel(axis, each, metric, rows, reach or 1.0)
    base = {each.rows[each.baseline].label for each in panels if each.baseline is not None}
    few = (
        "" if len(rows) == len(labels) else f" Shown are the first {_MOST} of {len(labels)} rows; the tables have all."
    )
    return Drawing(
        "effects",
        f"Difference from {' or '.join(sorted(base))} in every condition",
        "Mean differences paired by seed, as in the tables, blue above and orange below 0. In bold those with p < 0.05 "
        f"after Holm's correction within the column; the others are undecided.{few}",
        figure,
    )


def _panel(axis: "Axes", table: Table, metric: str, rows: Sequence[str], reach: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("effects", [COLOURS[1], "white", COLOURS[0]])
    columns = _columns(table, metric)
    for label, line in _lines(table, metric):
        if label not in rows:
            continue
        for x, cell in enumerate(line):
            y = rows.index(label)
            if cell.difference is None:
                axis.text(x, y, cell.status or "–", ha="center", va="center", fontsize=5.5, color=GREY)
                continue
            value = cell.difference.value
            strength = 0.5 + 0.5 * max(-1.0, min(1.0, value / reach))
            axis.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=colours(strength), linewidth=0)
            dark = abs(value) > 0.6 * reach
            axis.text(
                x, y, _signed(value, table.columns[columns[x]].digits),
                ha="center", va="center", fontsize=6.5, weight="bold" if cell.significant else "normal",
                color="white" if dark else INK,
            )  # fmt: skip
    groups = [table.columns[i].group or "" for i in columns]
    for x in range(1, len(columns)):
        if groups[x] != groups[x - 1]:
            axis.axvline(x - 0.5, color=INK, linewidth=0.9)
    for group in dict.fromkeys(filter(None, groups)):
        places = [x for x, name in enumerate(groups) if name == group]
        words = "\n".join(wrapped(group, max(6, 8 * len(places))))
        middle = sum(places) / len(places)
        axis.text(middle, -0.6, plain(words), ha="center", va="bottom", fontsize=7)
    axis.set_title(plain("\n".join(wrapped(table.title, 7 * len(columns)))), pad=22, weight="bold")
    axis.set_xticks(range(len(columns)), [plain(table.columns[i].label) for i in columns], fontsize=7)
    axis.set_yticks(range(len(rows)), [plain(row) for row in rows])
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _signed(value: float, digits: int | None) -> str:
    """A difference with its sign. Small ones are rounded to zero, as a map has no room for the digits of the table."""
    text = number(value, None) if digits is None else f"{value:.{digits}f}".replace("-", "−")
    return f"+{text}" if value > 0 else text


def _columns(table: Table, metric: str) -> list[int]:
    return [i for i, column in enumerate(table.columns) if column.metric == metric]


def _lines(table: Table, metric: str) -> list[tuple[str, list[Cell]]]:
    """The rows but the baseline, with their cells of the metric."""
    columns = _columns(table, metric)
    return [
        (row.label, [line[i] for i in columns])
        for index, (row, line) in enumerate(zip(table.rows, table.cells, strict=True))
        if index != table.baseline
    ]
