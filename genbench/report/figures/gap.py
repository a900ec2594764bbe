"""The generalization gap against flatness and against weight norms."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genbench.analysis import statistics
from genbench.report.figures.style import GREY, Drawing, blank, logarithmic, plain
from genbench.report.model import Point
from genbench.report.spec import RAW_MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = (
    "#0072B2", "#D55E00", "#009E73", "#AA4499", "#9A7200", "#3E9BD0", "#882255", "#44597A", "#117733", "#E0527A",
    "#6A51A3", "#8C510A", "#4D4D4D", "#01787B",
)  # fmt: skip


_MARKERS = ("o", "s", "^", "D", "v", "P")


_BESIDE = 15
"""Most rows for which the legend fits into a panel."""


_ADDED = 20
"""Most panels of measures that were added."""


_GAP = "test/gap/accuracy"


Pair = tuple[float, float]
"""A measure and the gap of a run, or their means."""


_FLATNESS = {
    "train/flatness/lambda_1": "largest Hessian eigenvalue λ₁",
    "train/flatness/trace": "Hessian trace",
    "train/flatness/sam_sharpness": "SAM sharpness (worst case)",
    "train/flatness/average_sharpness": "average-case sharpness",
    "train/flatness/adaptive_sharpness": "adaptive sharpness",
}


_NORMS = {"weights/norm/l2": "weight norm ‖w‖₂", "weights/norm/distance": "distance from initialization ‖w − w₀‖₂"}


def against_flatness(points: Sequence[Point], first: Collection[str]) -> Drawing | None:
    """Draw the gap against each measure of flatness; the rows ``first`` are numbered."""
    return _against(points, first, _FLATNESS, "gap_flatness", "Generalization gap against flatness")


def against_norms(points: Sequence[Point], first: Collection[str]) -> Drawing | None:
    """Draw the gap against weight norms; the rows ``first`` are numbered."""
    return _against(points, first, _NORMS, "gap_norm", "Generalization gap against weight norms")


def against_added(points: Sequence[Point], first: Collection[str]) -> Drawing | None:
    """Draw the gap against each measure of a whole network that was added to finished runs, if its values differ."""
    found: dict[str, list[Point]] = {}
    for point in points:
        for key in point.record.get("added_metrics", ()):
            if _pair(point, key) and "." not in key:  # a layer's
                found.setdefault(key, []).append(point)
    varied = [key for key, runs in found.items() if len({run.record["metrics"][key] for run in runs}) > 1]
    shown = {key: _label(key) for key in varied[:_ADDED]}
    drawing = _against(points, first, shown, "gap_added", "Generalization gap against added measures")
    if drawing is None:
        return None
    open_ends = {key: sum(run.record["converged"].get(key) is False for run in found[key]) for key in shown}
    told = [f"{shown[key]} in {n} of {len(found[key])} runs" for key, n in open_ends.items() if n]
    said = [f" Did not converge: {', '.join(told)}."] if told else []
    if len(varied) > _ADDED:
        said.append(f" The first {_ADDED} of {len(varied)} measures.")
    return replace(drawing, caption="".join([drawing.caption, *said]))


def _label(key: str) -> str:
    """Return the name of a measure with its split.

    >>> _label("train/norm/path_norm")
    'path norm (train)'
    """
    split, _, name = key.split("/", 2)
    return f"{name.replace('_', ' ')} ({split})"


def _against(
    points: Sequence[Point], first: Collection[str], measures: dict[str, str], name: str, title: str
) -> Drawing | None:
    """Draw the gap against each measure: a dot per run and a numbered marker per configuration (mean over seeds).

    If not all rows are numbered, the others get one grey dot per configuration, and runs get none. More conditions than
    there are markers are not told apart.
    """
    measured = {key: [(point, pair) for point in points if (pair := _pair(point, key))] for key in measures}
    measures = {key: label for key, label in measures.items() if len(measured[key]) > 2}
    if not measures:  # two points show no relation
        return None
    rows = list(dict.fromkeys(point.row for point in points))
    numbered = [row for row in rows if row in first]
    told = len({point.condition for point in points}) <= len(_MARKERS)
    conditions = list(dict.fromkeys(point.condition for point in points)) if told else [""]
    longest = max(map(len, numbered)) + max(map(len, conditions))
    beside = len(numbered) <= _BESIDE and longest <= 40  # the legend gets a panel of its own
    panels = len(measures) + beside
    columns = panels if panels < 5 else 3 if panels < 10 else 4
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
            inside = [(point, pair) for point, pair in measured[key] if not told or point.condition == condition]
            pairs: dict[str, list[Pair]] = {}
            for point, pair in inside:
                pairs.setdefault(point.row, []).append(pair)
            comparable = {point.row: point.comparable for point, _ in reversed(inside)}  # that of the first
            if others := [_middle(pairs[row]) for row in pairs if row not in first]:
                axis.plot(*zip(*others, strict=True), _MARKERS[which % len(_MARKERS)], color=GREY, markersize=2.4,
                          alpha=0.6, markeredgewidth=0)  # fmt: skip
            for number, row in enumerate(numbered):
                if row in pairs:
                    if len(numbered) == len(rows):
                        _runs(axis, pairs[row], number, which)
                    _configuration(axis, _middle(pairs[row]), number, which, raw and not comparable[row])
            heading.append(_association([each for each in inside if each[0].comparable or not raw], condition))
        axis.set_title("\n".join(filter(None, heading)), fontsize=7.5, color="#374151", y=1)
        axis.set_xlabel(label, weight="bold")
        xs = [x for _, (x, _) in measured[key]]
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
            "Numbered markers are means, small dots are runs, whose other settings are not told apart."
            if not told
            else "Numbered markers are configurations (means over seeds), small dots are runs."
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


def _pair(point: Point, key: str) -> Pair | None:
    metrics = point.record["metrics"]
    x, y = metrics.get(key), metrics.get(_GAP)
    return None if x is None or y is None else (x, 100 * y)


def _middle(pairs: Sequence[Pair]) -> Pair:
    x, y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return x, y


def _runs(axis: "Axes", pairs: Sequence[Pair], number: int, which: int) -> None:
    look: dict[str, Any] = {"markersize": 2.4, "alpha": 0.6, "markeredgewidth": 0, "zorder": 2}
    axis.plot(*zip(*pairs, strict=True), _MARKERS[which % len(_MARKERS)], color=_ROWS[number % len(_ROWS)], **look)


def _configuration(axis: "Axes", middle: Pair, number: int, which: int, hollow: bool) -> None:
    colour, marker = _ROWS[number % len(_ROWS)], _MARKERS[which % len(_MARKERS)]
    x, y = middle
    face = "white" if hollow else colour
    ink, edge = (colour, colour) if hollow else ("white", "white")
    order = 3 + number / 100  # a later marker covers an earlier one together with its number
    shape: dict[str, Any] = {"markersize": 9, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": 0.7}
    axis.plot(x, y, marker, zorder=order, **shape)
    centre: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 5.6, "weight": "bold"}
    axis.annotate(str(number + 1), (x, y), color=ink, zorder=order, **centre)


def _association(measured: Sequence[tuple[Point, Pair]], condition: str) -> str:
    groups = [f"{point.row} {point.condition}" for point, _ in measured]
    pairs = [pair for _, pair in measured]
    tau = statistics.kendall(*zip(*pairs, strict=True), groups=groups) if pairs else None
    if tau is None or tau.value is None:
        return ""
    interval = f" [{tau.low:.2f}, {tau.high:.2f}]" if tau.low is not None else ""
    text = f"τ = {tau.value:.2f}{interval}, n = {tau.n}".replace("-", "−")
    return f"{plain(condition)}: {text}" if condition else text


def _handles(rows: Sequence[str], conditions: Sequence[str]) -> list[Any]:
    """Return the handles of a legend: rows with their numbers, and markers of conditions that have names."""
    from matplotlib.lines import Line2D

    looks = [("o", _ROWS[number % len(_ROWS)], f"{number + 1}  {plain(row)}") for number, row in enumerate(rows)]
    if any(conditions):
        looks += [(_MARKERS[i % len(_MARKERS)], GREY, plain(condition)) for i, condition in enumerate(conditions)]
    return [
        Line2D([], [], marker=marker, color="none", markerfacecolor=colour, markeredgecolor=colour, markersize=7,
               label=label)
        for marker, colour, label in looks
    ]  # fmt: skip
