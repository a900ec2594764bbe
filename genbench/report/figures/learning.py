"""Learning curves."""

import math
from collections.abc import Sequence
from typing import Any

from genbench import records
from genbench.analysis.statistics import LARGEST
from genbench.report.figures.style import COLOURS, INK, Drawing, blank, logarithmic, plain
from genbench.report.format import wrapped
from genbench.report.model import Point
from genbench.report.selection import Selection

_DRAWN = ("performance/accuracy", "performance/cross_entropy")


_TITLE = 26
"""Most characters in a line of a panel's title."""


def curves_of(loaded: Selection, points: Sequence[Point]) -> dict[str, Any]:
    """Return the drawn columns of each run's history, by epoch; runs with a damaged or absent history are left out."""
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


def accuracy(curves: dict[str, Any], points: Sequence[Point]) -> Drawing | None:
    """Draw accuracy over epochs."""
    return _over_epochs(curves, points, "accuracy", "Learning curves: accuracy")


def cross_entropy(curves: dict[str, Any], points: Sequence[Point]) -> Drawing | None:
    """Draw cross-entropy over epochs."""
    return _over_epochs(curves, points, "cross_entropy", "Learning curves: cross-entropy")


def _over_epochs(curves: dict[str, Any], points: Sequence[Point], name: str, title: str) -> Drawing | None:
    """Draw train and test over epochs, one panel per row: the mean over seeds and their range."""
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
                frame = pd.concat(seeds, axis=1).dropna()  # the mean would jump where a seed ends
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
        if index >= columns:  # the panel above is the lowest of its column
            axes.flat[index - columns].tick_params(labelbottom=True)
    if longest < 2:  # measured only at the ends of runs
        return None
    if max(epochs) > 50 * min(epochs) and len(epochs) < 50:  # measured at powers of two
        for axis in axes.flat:
            logarithmic(axis)
    else:
        axes[0, 0].xaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 2.5, 5, 10), integer=True))
    logarithm = name == "cross_entropy" and 0 < 10 * lowest < highest
    if logarithm:
        axes[0, 0].set_yscale("log")
        if highest > 100 * lowest:  # minor ticks would fill the axis
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
