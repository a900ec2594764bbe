"""The figures of a report: learning curves, gap against flatness and norms, differences from the baseline.

Rows carry numbers besides their colours.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.analysis import statistics
from genbench.report import curves as asked
from genbench.report.drawing import COLOURS, GREY, INK, Drawing, blank, logarithmic, plain, settle
from genbench.report.model import Point, Table
from genbench.report.render import wrapped
from genbench.report.selection import LARGEST, Selection
from genbench.report.spec import RAW_MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = (
    "#0072B2", "#D55E00", "#009E73", "#AA4499", "#9A7200", "#3E9BD0", "#882255", "#44597A", "#117733", "#E0527A",
    "#6A51A3", "#8C510A", "#4D4D4D", "#01787B",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P")
_MOST = 40
"""Rows that a figure shows one by one, with a panel or a number each."""
_LINES = 60
"""Rows that take a line each."""
_BESIDE = 15
"""Rows that the legend of a panel holds."""
_DRAWN = ("performance/accuracy", "performance/cross_entropy")
_TITLE = 26
"""Characters of a line above a learning curve."""
_GAP = "test/gap/accuracy"
_FLATNESS = {
    "train/flatness/lambda_1": "largest Hessian eigenvalue λ₁",
    "train/flatness/trace": "Hessian trace",
    "train/flatness/sam_sharpness": "SAM sharpness (worst case)",
    "train/flatness/average_sharpness": "average-case sharpness",
    "train/flatness/adaptive_sharpness": "adaptive sharpness",
}
_NORMS = {"weights/norm/l2": "weight norm ‖w‖₂", "weights/norm/distance": "distance from initialization ‖w − w₀‖₂"}


def draw(loaded: Selection, table: Table, points: Sequence[Point]) -> Iterator[Drawing]:
    """Every figure for which there are data, and those that the experiment asked for; each is to be drawn within
    :func:`genbench.report.drawing.style`."""
    shown = [point for point in points if point.chosen]
    first, said = _few(table, _MOST)
    few = [point for point in shown if point.row in first]
    curves = _curves(loaded, few)
    # one at a time: each takes memory
    drawn: list[Callable[[], Drawing | None]] = [
        lambda: _forest(table),
        lambda: _said(_strengths([point for point in points if point.row in first], table), said),
        lambda: _said(_against(shown, first, _FLATNESS, "gap_flatness", "Generalization gap against flatness"), said),
        lambda: _said(_against(shown, first, _NORMS, "gap_norm", "Generalization gap against weight norms"), said),
        lambda: _said(_learning(curves, few, "accuracy", "Learning curves: accuracy"), said),
        lambda: _said(_learning(curves, few, "cross_entropy", "Learning curves: cross-entropy"), said),
        *(partial(_asked, curve, points, table) for curve in asked.parse(table.figures)),
    ]
    for make in drawn:
        if (drawing := make()) is not None:
            settle(drawing)
            yield drawing


def _few(table: Table, most: int) -> tuple[set[str], str]:
    """Rows that a figure shows where it cannot show all, by label, and a sentence that says which: the baseline, and
    those at both ends of the first column that has a best value."""
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
        which = f"the {half} with the lowest and the {half} with the highest {title}"
        chosen = {*base, *ranked[:half], *ranked[-half:]}
    else:
        which, chosen = f"the first {most}", set([*base, *labels][:most])
    return chosen, f" Of {len(labels)} rows {''.join(f'{label} and ' for label in base)}{which}; the table has all."


def _asked(curve: asked.Curve, points: Sequence[Point], table: Table) -> Drawing | None:
    """A figure that the experiment asked for; of the table's rows as many as have a look of their own."""
    if curve.lines:
        return asked.draw(curve, points)
    chosen, said = _few(table, asked.LINES)
    return _said(asked.draw(curve, [point for point in points if point.row in chosen]), said)


def _said(drawing: Drawing | None, more: str) -> Drawing | None:
    return drawing and replace(drawing, caption=drawing.caption + more)


def _forest(table: Table) -> Drawing | None:
    """Test accuracy: difference from the baseline with its interval, a panel a column of the table."""
    columns = [i for i, column in enumerate(table.columns) if column.metric == "test/performance/accuracy"]
    base = table.baseline
    if base is None or not any(line[i].difference for line in table.cells for i in columns):
        return None
    few, said = _few(table, _LINES)
    shown = [row for row in range(len(table.rows)) if row != base and table.rows[row].label in few]

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
        "where p < 0.05 after Holm's correction within the panel. An interval that leaves the panel ends in an arrow."
        + said,
        figure,
    )


_OVER_STRENGTH = {
    "test/performance/accuracy": ("test accuracy (%)", 100),
    "test/gap/accuracy": ("gap (points)", 100),
    "train/flatness/lambda_1": ("sharpness λ₁", 1),
    "train/flatness/adaptive_sharpness": ("adaptive sharpness", 1),
}


def _strengths(points: Sequence[Point], table: Table) -> Drawing | None:
    """What was measured at every setting that was tried: a line of panels a row of the table."""
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
                axis.set_yscale("log")  # from one strategy to another it spans orders of magnitude
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
        "other rows in this measure. λ₁ changes when weights are rescaled and the function is not.",
        figure,
    )


def _ladder(points: Sequence[Point], row: str) -> list[float]:
    """The values that were tried for a row, in order; empty unless it was one number that was varied."""
    settings = [list(point.setting.values()) for point in points if point.row == row]
    numbers = all(len(s) == 1 and isinstance(s[0], int | float) and not isinstance(s[0], bool) for s in settings)
    return sorted({float(s[0]) for s in settings}) if numbers else []


def _rungs(axis: "Axes", points: Sequence[Point], metric: str, ladder: Sequence[float], colour: str) -> None:
    """One row under one condition: its mean at every value, with intervals."""
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


def _limit(axis: "Axes", differences: Sequence[statistics.Difference | None]) -> None:
    """Limits that a single wide interval cannot blow up; what is cut off is marked."""
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


def _against(
    points: Sequence[Point], first: Collection[str], measures: dict[str, str], name: str, title: str
) -> Drawing | None:
    """The gap over each measure: a dot a run, and a numbered marker a configuration (mean of seeds); where not all rows
    are numbered, a dot each configuration of the others instead."""
    measures = {key: label for key, label in measures.items() if sum(_pair(p, key) is not None for p in points) > 2}
    if not measures:  # two points are no relation
        return None
    rows = list(dict.fromkeys(point.row for point in points))
    numbered = [row for row in rows if row in first]
    conditions = list(dict.fromkeys(point.condition for point in points))
    longest = max(map(len, numbered)) + max(map(len, conditions))
    beside = len(numbered) <= _BESIDE and longest <= 40  # in a panel of its own
    panels = len(measures) + beside
    columns = panels if panels < 5 else 3
    lines = math.ceil(panels / columns)
    handles = _handles(numbered, [] if beside else conditions)
    across = max(1, int(3.2 * columns / (0.35 + 0.06 * max(len(handle.get_label()) for handle in handles))))
    below = 0 if beside else 0.16 * math.ceil(len(handles) / across)
    figure, axes = blank(3.2 * columns, 3.0 * lines + below, lines, columns, sharey="row")
    flat = list(axes.flat)
    for axis, (key, label) in zip(flat, measures.items(), strict=False):
        raw = key in RAW_MEASURES
        heading = []
        for which, condition in enumerate(conditions):
            inside = [point for point in points if point.condition == condition and _pair(point, key)]
            by_row: dict[str, list[Point]] = {}
            for point in inside:
                by_row.setdefault(point.row, []).append(point)
            pairs = {row: [pair for p in members if (pair := _pair(p, key))] for row, members in by_row.items()}
            if others := [_middle(pairs[row]) for row in pairs if row not in first]:
                axis.plot(*zip(*others, strict=True), _MARKERS[which % len(_MARKERS)], color=GREY, markersize=2.4,
                          alpha=0.6, markeredgewidth=0)  # fmt: skip
            for number, row in enumerate(numbered):
                if row in pairs:
                    if len(numbered) == len(rows):
                        _runs(axis, pairs[row], number, which)
                    _configuration(axis, _middle(pairs[row]), number, which, raw and not by_row[row][0].comparable)
            heading.append(_association([point for point in inside if point.comparable or not raw], key, condition))
        axis.set_title("\n".join(filter(None, heading)), fontsize=7.5, color="#374151")
        axis.set_xlabel(label, weight="bold")
        xs = [pair[0] for point in points if (pair := _pair(point, key))]
        if min(xs) > 0 and max(xs) / min(xs) > 8:
            logarithmic(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("gap: train − test accuracy (points)")
    for axis in flat[len(measures) :]:
        axis.axis("off")
    look: dict[str, Any] = {"fontsize": 7.5, "borderaxespad": 0, "handletextpad": 0.3, "labelspacing": 0.25}
    if beside:
        legend = flat[len(measures)].legend(handles=handles, loc="upper left", **look)
        if any(conditions):
            flat[len(measures)].add_artist(legend)
            flat[len(measures)].legend(handles=_handles([], conditions), loc="upper right", **look)
    else:
        figure.legend(handles=handles, loc="outside lower left", ncols=across, **look)
    hollow = any(not point.comparable for point in points) and any(key in RAW_MEASURES for key in measures)
    return Drawing(
        name,
        title,
        (
            "Numbered markers are configurations (means over seeds), small dots are runs."
            if len(numbered) == len(rows)
            else f"Markers are configurations (means over seeds): {len(numbered)} are numbered, the others grey."
        )
        + " τ: Kendall's rank correlation (τ-b) over the n runs of one condition, with its 95 % interval from a "
        "bootstrap that resamples whole configurations. A correlation over these strategies is no evidence of a cause."
        + (
            " Hollow: not comparable in this measure (normalization, another loss), and left out of τ."
            if hollow
            else ""
        ),
        figure,
    )


def _pair(point: Point, key: str) -> tuple[float, float] | None:
    metrics = point.record["metrics"]
    x, y = metrics.get(key), metrics.get(_GAP)
    return None if x is None or y is None else (x, 100 * y)


def _middle(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return x, y


def _runs(axis: "Axes", pairs: Sequence[tuple[float, float]], number: int, which: int) -> None:
    look: dict[str, Any] = {"markersize": 2.4, "alpha": 0.6, "markeredgewidth": 0, "zorder": 2}
    axis.plot(*zip(*pairs, strict=True), _MARKERS[which % len(_MARKERS)], color=_ROWS[number % len(_ROWS)], **look)


def _configuration(axis: "Axes", middle: tuple[float, float], number: int, which: int, hollow: bool) -> None:
    colour, marker = _ROWS[number % len(_ROWS)], _MARKERS[which % len(_MARKERS)]
    x, y = middle
    face = "white" if hollow else colour
    ink, edge = (colour, colour) if hollow else ("white", "white")
    order = 3 + number / 100  # a number belongs to its own marker: a later marker covers both
    shape: dict[str, Any] = {"markersize": 9, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": 0.7}
    axis.plot(x, y, marker, zorder=order, **shape)
    centre: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 5.6, "weight": "bold"}
    axis.annotate(str(number + 1), (x, y), color=ink, zorder=order, **centre)


def _association(points: Sequence[Point], key: str, condition: str) -> str:
    pairs = [pair for point in points if (pair := _pair(point, key))]
    tau = statistics.kendall(*zip(*pairs, strict=True), groups=[point.row for point in points]) if pairs else None
    if tau is None or tau.value is None:
        return ""
    interval = f" [{tau.low:.2f}, {tau.high:.2f}]" if tau.low is not None else ""
    text = f"τ = {tau.value:.2f}{interval}, n = {tau.n}".replace("-", "−")
    return f"{plain(condition)}: {text}" if condition else text


def _handles(rows: Sequence[str], conditions: Sequence[str]) -> list[Any]:
    """Of a legend: the rows with their numbers, the shapes of the conditions where they have names."""
    from matplotlib.lines import Line2D

    looks = [("o", _ROWS[number % len(_ROWS)], f"{number + 1}  {plain(row)}") for number, row in enumerate(rows)]
    if any(conditions):
        looks += [(_MARKERS[i % len(_MARKERS)], GREY, plain(condition)) for i, condition in enumerate(conditions)]
    return [
        Line2D([], [], marker=marker, color="none", markerfacecolor=colour, markeredgecolor=colour, markersize=7,
               label=label)
        for marker, colour, label in looks
    ]  # fmt: skip


def _curves(loaded: Selection, points: Sequence[Point]) -> dict[str, Any]:
    """run_id → what is drawn of its history, by epoch; runs whose history is damaged or absent are left out."""
    import numpy as np
    import pandas as pd

    found = {}
    for point in points:
        try:
            run_id = point.record["run_id"]
            history = records.history(loaded.folder / run_id, point.record)
            history = history.drop_duplicates("epoch")
            drawn = [key for key in history if str(key).endswith(_DRAWN)]
            values = history[drawn].to_numpy(float)
            values[~(np.abs(values) <= LARGEST)] = math.nan
            found[run_id] = pd.DataFrame(values, history["epoch"].to_numpy(float), drawn)
        except (records.RecordError, KeyError, ValueError):
            continue
    return found


def _learning(curves: dict[str, Any], points: Sequence[Point], name: str, title: str) -> Drawing | None:
    """Train and test over epochs, a panel a row; mean over seeds and the range they span."""
    import pandas as pd
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, NullLocator

    keys = {"train": f"train/performance/{name}", "test": f"test/performance/{name}"}
    present = [
        p for p in points if p.record["run_id"] in curves and set(keys.values()) <= set(curves[p.record["run_id"]])
    ]
    if not present:
        return None
    rows = list(dict.fromkeys(point.row for point in present))
    conditions = list(dict.fromkeys(point.condition for point in points))
    columns = min(5, len(rows))
    lines = math.ceil(len(rows) / columns)
    titles = [wrapped(row, _TITLE) for row in rows]
    height = 1.6 + 0.14 * (max(map(len, titles)) - 1)
    figure, axes = blank(max(4.2, 1.95 * columns), 0.7 + height * lines, lines, columns, sharex=True, sharey=True)
    scale = 100 if name == "accuracy" else 1
    lowest, highest, longest = math.inf, 0.0, 0
    epochs: set[float] = set()
    for axis, row, heading in zip(axes.flat, rows, titles, strict=False):
        for which, condition in enumerate(conditions):
            members = [p for p in present if p.row == row and p.condition == condition]
            for split, key in keys.items():
                seeds = [curves[p.record["run_id"]][key].dropna() * scale for p in members]
                if not seeds:
                    continue
                frame = pd.concat(seeds, axis=1).dropna()  # a mean over fewer seeds would jump
                colour = COLOURS[which % len(COLOURS)]
                dash = "-" if split == "test" else (0, (2.2, 1.2))
                lowest = min(lowest, *frame.mean(axis=1), math.inf)
                highest = max(highest, *frame.mean(axis=1), 0.0)
                longest = max(longest, len(frame))
                epochs |= set(frame.index)
                axis.plot(frame.index, frame.mean(axis=1), color=colour, linestyle=dash, linewidth=1.3)
                axis.fill_between(
                    frame.index, frame.min(axis=1), frame.max(axis=1), color=colour, alpha=0.18, linewidth=0
                )
        axis.set_title(plain("\n".join(heading)), pad=3)
    for index in range(len(rows), lines * columns):
        axes.flat[index].axis("off")
        if index >= columns:  # the lowest of its column
            axes.flat[index - columns].tick_params(labelbottom=True)
    if longest < 2:  # measured at the ends of runs only
        return None
    if max(epochs) > 50 * min(epochs) and len(epochs) < 50:  # measured at powers of two
        for axis in axes.flat:
            logarithmic(axis)
    else:
        axes[0, 0].xaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 2.5, 5, 10), integer=True))
    logarithm = name == "cross_entropy" and 0 < 10 * lowest < highest
    if logarithm:
        axes[0, 0].set_yscale("log")
        if highest > 100 * lowest:  # dozens of small ticks a panel, which none needs
            axes[0, 0].yaxis.set_minor_locator(NullLocator())
    unit = "accuracy (%)" if name == "accuracy" else "cross-entropy (nats)"
    figure.supylabel(unit, fontsize=8)
    figure.supxlabel("epoch", fontsize=8)
    handles: list[Any] = [
        Line2D([], [], color=INK, linestyle="-", label="test"),
        Line2D([], [], color=INK, linestyle=(0, (2.2, 1.2)), label="train"),
    ]
    if any(conditions):
        handles += [Patch(color=COLOURS[i % len(COLOURS)], label=plain(c)) for i, c in enumerate(conditions)]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8)
    return Drawing(
        f"learning_{name}",
        title,
        "Full passes over both splits with the current weights. Lines: mean over seeds, as long as all of them train; "
        "bands: from the lowest to the highest seed." + (" Logarithmic axis." if logarithm else ""),
        figure,
    )
