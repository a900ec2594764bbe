"""Learning curves."""

import math
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from genbench import records
from genbench.analysis.statistics import LARGEST
from genbench.report.figures.style import COLOURS, INK, Drawing, alike, blank, logarithmic, plain
from genbench.report.format import wrapped
from genbench.report.model import Point
from genbench.report.selection import Selection

Curves = Mapping[str, np.ndarray]
"""The epochs at which a run was measured and the values there [2, epochs], in the order of the epochs, by metric."""


_TITLE = 26
"""Most characters in a line of a panel's title."""


def _keys(name: str) -> dict[str, str]:
    return {split: f"{split}/performance/{name}" for split in ("train", "test")}


def curves_of(loaded: Selection, points: Sequence[Point]) -> dict[str, Curves]:
    """Return the drawn columns of each run's history, by run id; runs with a damaged or absent history are left out."""
    drawn = [key for name in ("accuracy", "cross_entropy") for key in _keys(name).values()]
    found: dict[str, Curves] = {}
    for point in points:
        run_id = point.record["run_id"]
        try:
            columns = records.curves(loaded.folder / run_id, point.record, {"epoch", *drawn})
            epochs = columns.pop("epoch")
        except (records.RecordError, KeyError):
            continue
        found[run_id] = {key: _measured(epochs, values) for key, values in columns.items()}
    return found


def accuracy(curves: Mapping[str, Curves], points: Sequence[Point]) -> Drawing | None:
    """Draw accuracy over epochs."""
    return _over_epochs(curves, points, "accuracy", "Learning curves: accuracy")


def cross_entropy(curves: Mapping[str, Curves], points: Sequence[Point]) -> Drawing | None:
    """Draw cross-entropy over epochs."""
    return _over_epochs(curves, points, "cross_entropy", "Learning curves: cross-entropy")


def _over_epochs(curves: Mapping[str, Curves], points: Sequence[Point], name: str, title: str) -> Drawing | None:
    """Draw train and test over epochs, one panel per row: the mean over seeds and their range."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, NullLocator

    keys = _keys(name)
    conditions = list(dict.fromkeys(point.condition for point in points))
    runs: dict[str, dict[str, list[Curves]]] = {}
    for point in points:
        own = curves.get(point.record["run_id"], {})
        if set(keys.values()) <= set(own):
            runs.setdefault(point.row, {}).setdefault(point.condition, []).append(own)
    scale = 100 if name == "accuracy" else 1
    drawn = {
        row: {
            (condition, split): _together([own[key] for own in found[condition]], scale)
            for condition in conditions
            if condition in found
            for split, key in keys.items()
        }
        for row, found in runs.items()
    }
    every = [line for lines in drawn.values() for line in lines.values()]
    epochs = {float(epoch) for at, _ in every for epoch in at}
    if max((len(at) for at, _ in every), default=0) < 2:  # measured only at the ends of runs
        return None
    means = [float(mean) for _, values in every for mean in values.mean(1)]
    lowest, highest = min(means), max(0.0, *means)
    columns = min(5, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    titles = [wrapped(row, _TITLE) for row in drawn]
    height = 1.6 + 0.14 * (max(map(len, titles)) - 1)
    figure, axes = blank(max(4.2, 1.95 * columns), 0.7 + height * lines, lines, columns)
    for axis, heading, found in zip(axes.flat, titles, drawn.values(), strict=False):
        for (condition, split), (at, values) in found.items():
            colour = COLOURS[conditions.index(condition) % len(COLOURS)]
            dash = "-" if split == "test" else (0, (2.2, 1.2))
            axis.plot(at, values.mean(1), color=colour, linestyle=dash, linewidth=1.3)
            axis.fill_between(at, values.min(1), values.max(1), color=colour, alpha=0.18, linewidth=0)
        axis.set_title(plain("\n".join(heading)), pad=3, y=1)
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    panels = axes.flat[: len(drawn)]
    alike(panels, columns)
    logarithm = name == "cross_entropy" and 0 < 10 * lowest < highest
    for axis in panels:
        if max(epochs) > 50 * min(epochs) and len(epochs) < 50:  # measured at powers of two
            logarithmic(axis)
        else:
            axis.xaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 2.5, 5, 10), integer=True))
        if logarithm:
            axis.set_yscale("log")
            if highest > 100 * lowest:  # minor ticks would fill the axis
                axis.yaxis.set_minor_locator(NullLocator())
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


def _together(curves: Sequence[np.ndarray], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs that all curves have, as the mean would jump where one ends, and the values there [epochs,
    curves]."""
    epochs = reduce(partial(np.intersect1d, assume_unique=True), (curve[0] for curve in curves))
    return epochs, scale * np.stack([curve[1, np.searchsorted(curve[0], epochs)] for curve in curves], axis=1)


def _measured(epochs: Sequence[float | None], values: Sequence[float | None]) -> np.ndarray:
    """Return the epochs with a value that can be averaged, and these; of equal epochs the first counts."""
    first = dict(zip(reversed(epochs), reversed(values), strict=True))
    pairs = [(x, y) for x, y in first.items() if x is not None and y is not None and abs(y) <= LARGEST]
    return np.array(sorted(pairs)).reshape(-1, 2).T
