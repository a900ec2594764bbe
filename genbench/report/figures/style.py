"""The style that all figures share, and how they are laid out and saved.

The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

P = ParamSpec("P")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY = "#6b7280"
INK = "#111827"
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "svg.hashsalt": "genbench",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with its name, title and caption."""

    name: str
    title: str
    caption: str
    figure: "Figure"


def context() -> Any:
    """Return the context in which figures are drawn and saved, without a display and without the user's settings."""
    from matplotlib import style  # not pyplot, which looks for a display

    return style.context(["default", _STYLE])


def styled(function: Callable[P, Drawing | None]) -> Callable[P, Drawing | None]:
    """Decorate ``function`` to draw within :func:`context` and to lay the figure out."""

    @wraps(function)
    def draw(*args: P.args, **settings: P.kwargs) -> Drawing | None:
        with context():
            drawing = function(*args, **settings)
            if drawing is not None:
                settle(drawing)
        return drawing

    return draw


def blank(width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> tuple["Figure", Any]:
    """Return a figure of ``width`` × ``height`` inches and its axes [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def alike(panels: Sequence["Axes"], columns: int) -> None:
    """Give panels that were drawn the limits that hold the data of all, and labels of ticks at the left and at the
    lower end of each column alone.

    Axes that Matplotlib shares look the same, but take time that grows with the square of their number.
    """
    boxes = [axes.dataLim for axes in panels]
    ends = np.array([end for box in boxes for end in (*box.get_points(), box.minpos)])  # minpos: of logarithmic axes
    for index, axes in enumerate(panels):
        axes.update_datalim(ends[np.isfinite(ends).all(axis=1)])
        axes.label_outer()
        axes.tick_params(labelbottom=index + columns >= len(panels))


def settle(drawing: Drawing) -> None:
    """Compute the layout, once for all saves, and hide tick labels that overlap others.

    Minor labels are hidden before major ones, and later ones before earlier ones.
    """
    for axis in (axis for axes in drawing.figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if not axis.label.get_text():
            axis.set_label_coords(0, 0)  # a place for nothing is not looked for, which takes a fifth of the time
    drawing.figure.draw_without_rendering()
    drawing.figure.set_layout_engine(None)  # "none" leaves one that has each save draw twice
    for axes in drawing.figure.axes:
        taken: list[Bbox] = []
        for label in _labels(axes):
            box = label.get_window_extent().padded(3, 0)
            if any(box.overlaps(other) for other in taken):
                label.set_visible(False)
            else:
                taken.append(box)


def _labels(axes: "Axes") -> list["Text"]:
    """Return the visible tick labels, major ones first, from left to right and from bottom to top."""
    found = []
    for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
        low, high = sorted(axis.get_transform().transform(axis.get_view_interval()))
        for minor, ticks in enumerate((axis.get_major_ticks(), axis.get_minor_ticks())):
            for tick in ticks:
                place, label = float(axis.get_transform().transform(tick.get_loc())), tick.label1
                slack = 1e-9 * (high - low)
                if low - slack <= place <= high + slack and label.get_visible() and label.get_text():
                    found.append((minor, axis is axes.yaxis, place, label))
    return [label for *_, label in sorted(found, key=lambda each: each[:3])]


def saved(drawing: Drawing, kind: str) -> bytes:
    """Return the file of a figure as ``svg`` or ``png``; equal figures give equal bytes."""
    buffer = BytesIO()
    with context():
        drawing.figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def plain(text: str) -> str:
    """Escape text that Matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def logarithmic(axis: Any) -> None:
    """Make the x axis logarithmic.

    An axis of few powers of ten gets labels between them; labels are plain numbers if these are short.
    """
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    narrow = high < 100 * low
    axis.xaxis.set_minor_formatter(NullFormatter())
    if narrow:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    if low >= (1e-4 if narrow else 0.1) and high <= 1e4:
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
