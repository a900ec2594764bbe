"""Metrics at every strength that was tried."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genbench.analysis import statistics
from genbench.report.figures.style import COLOURS, GREY, Drawing, blank, plain
from genbench.report.format import wrapped
from genbench.report.model import Point, Table
from genbench.report.spec import RAW_MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OVER_STRENGTH = {
    "test/performance/accuracy": ("test accuracy (%)", 100),
    "test/gap/accuracy": ("gap (points)", 100),
    "train/flatness/lambda_1": ("sharpness λ₁", 1),
    "train/flatness/adaptive_sharpness": ("adaptive sharpness", 1),
}


def draw(points: Sequence[Point], table: Table) -> Drawing | None:
    """Draw the metrics of every setting that was tried: one line of panels per row of the table."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ladders = {row: ladder for row in dict.fromkeys(p.row for p in points) if (ladder := _ladder(points, row))}
    metrics = [key for key in _OVER_STRENGTH if any(point.record["metrics"].get(key) is not None for point in points)]
    if not ladders or not metrics:
        return None
    conditions = list(dict.fromkeys(point.condition for point in points))
    base = None if table.baseline is None else table.rows[table.baseline].label
    figure, axes = blank(0.9 + 1.75 * len(metrics), 0.5 + 1.08 * len(ladders), len(ladders), len(metrics))
    for line, (row, ladder) in zip(axes, ladders.items(), strict=True):
        for axis, metric in zip(line, metrics, strict=True):
            for which, condition in enumerate(conditions):
                inside = [point for point in points if point.condition == condition]
                if (usual := _mean([point for point in inside if point.row == base], metric)) is not None:
                    axis.axhline(usual.value, color=COLOURS[which % len(COLOURS)], linewidth=0.9, linestyle=(0, (3, 2)))
                _rungs(axis, [p for p in inside if p.row == row], metric, ladder, COLOURS[which % len(COLOURS)])
            if min(ladder) > 0 and max(ladder) / min(ladder) > 10:
                axis.set_xscale("log")
            if metric in RAW_MEASURES and min(min(drawn.get_ydata()) for drawn in axis.lines) > 0:
                axis.set_yscale("log")  # it spans orders of magnitude between strategies
            axis.margins(x=0.08, y=0.12)
            axis.set_xticks(list(ladder), [f"{value:g}" for value in ladder], fontsize=6)
            axis.tick_params(axis="y", labelsize=6.5)
            axis.minorticks_off()
        names = next(point.setting for point in points if point.row == row)
        name = next(iter(names)).rsplit(".", 1)[-1].replace("_", " ")
        words = [row] if name in row else [f"{row}:", name]
        line[0].set_ylabel(plain("\n".join(part for word in words for part in wrapped(word, 20))), fontsize=7.5)
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.set_title(_OVER_STRENGTH[metric][0], weight="bold")
    handles: list[Any] = [Patch(color=COLOURS[i % len(COLOURS)], label=plain(c)) for i, c in enumerate(conditions) if c]
    handles.append(Line2D([], [], marker="*", color=GREY, linewidth=0, markersize=8, label="chosen for the table"))
    if base is not None:
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (3, 2)), linewidth=0.9, label=plain(base)))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8)
    return Drawing(
        "strengths",
        "Every strength that was tried",
        "Means over seeds with their Student-t 95 % intervals, which may leave a panel. Hollow: not comparable with "
        "other rows in this measure. λ₁ changes when weights are rescaled, although the function does not.",
        figure,
    )


def _ladder(points: Sequence[Point], row: str) -> list[float]:
    """Return the sorted values tried for a row; empty unless exactly one number was varied."""
    settings = [list(point.setting.values()) for point in points if point.row == row]
    numbers = all(len(s) == 1 and isinstance(s[0], int | float) and not isinstance(s[0], bool) for s in settings)
    return sorted({float(s[0]) for s in settings}) if numbers else []


def _rungs(axis: "Axes", points: Sequence[Point], metric: str, ladder: Sequence[float], colour: str) -> None:
    """Draw one row under one condition: its mean at every value, with intervals."""
    found = []
    for value in ladder:
        there = [point for point in points if float(next(iter(point.setting.values()))) == value]
        if (mean := _mean(there, metric)) is not None:
            found.append((value, mean, there[0]))
    if not found:
        return
    xs, ys = [value for value, _, _ in found], [mean.value for _, mean, _ in found]
    axis.plot(xs, ys, color=colour, linewidth=1.2)
    for x, (_, mean, point) in zip(xs, found, strict=True):
        axis.errorbar(x, mean.value, mean.half_width, color=colour, linewidth=0.9)
        hollow = metric in RAW_MEASURES and not point.comparable
        shape: dict[str, Any] = {"markersize": 8 if point.chosen else 3.4, "markeredgewidth": 0.7}
        shape |= {"markeredgecolor": colour, "markerfacecolor": "white" if hollow else colour}
        axis.plot(x, mean.value, "*" if point.chosen else "o", zorder=3, **shape)


def _mean(points: Sequence[Point], metric: str) -> statistics.Mean | None:
    scale = _OVER_STRENGTH[metric][1]
    values = [value * scale for point in points if (value := point.record["metrics"].get(metric)) is not None]
    return statistics.mean_interval(values) if values else None
