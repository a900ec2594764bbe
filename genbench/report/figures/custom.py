"""Figures that an experiment asks for: a metric against a setting, or along a family of metrics."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from genbench.analysis import statistics
from genbench.analysis.statistics import LARGEST
from genbench.privacy import clean
from genbench.records.settings import shown
from genbench.report.figures.style import COLOURS, Drawing, blank, logarithmic, plain
from genbench.report.model import Point
from genbench.report.spec import Curve

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)))
LINES = len(COLOURS) * len(_DASHES)
"""Number of distinct line styles."""
_PANELS = 8
_ABREAST = 4  # more panels take two lines


def draw(curve: Curve, points: Sequence[Point]) -> Drawing | None:
    """Draw a figure of the completed runs that the table shows; None if they lack the metric."""
    from matplotlib.lines import Line2D

    inside = [p for p in points if p.chosen and all(_matches(p, key, value) for key, value in curve.where.items())]
    measured: dict[str, dict[str, dict[float, list[float]]]] = {}
    for point in inside:
        line = ", ".join(_text(point, key) for key in curve.lines) or point.row
        panel = ", ".join(f"{_name(key)} {_text(point, key)}" for key in curve.panels)
        for x, y in _pairs(curve, point):
            measured.setdefault(panel, {}).setdefault(line, {}).setdefault(x, []).append(y * curve.scale)
    if not measured:
        return None
    panels = list(measured)
    measured = {panel: measured[panel] for panel in panels[:_PANELS]}
    every_line = list(dict.fromkeys(line for panel in measured.values() for line in panel))
    lines = every_line[:LINES]
    measured = {
        panel: {line: values for line, values in found.items() if line in lines} for panel, found in measured.items()
    }
    named = ", ".join(map(_name, curve.lines))
    beside = 0.06 * max(0, max(map(len, [named, *lines])) - 20)  # extra width for a legend of long names
    high = -(-len(measured) // _ABREAST)
    wide = -(-len(measured) // high)
    figure, axes = blank(max(4.6, 3.2 * wide) + beside, 3.1 * high, high, wide, sharey=True)
    for axis in axes.flat[len(measured) :]:
        axis.remove()
    fewest = min(len(ys) for panel in measured.values() for line in panel.values() for ys in line.values())
    for axis, (panel, found) in zip(axes.flat, measured.items(), strict=False):
        for line, values in found.items():
            number = lines.index(line)
            xs = sorted(values)
            means = [statistics.mean_interval(values[x]) for x in xs]
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
            dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
            axis.plot(xs, [mean.value for mean in means], "o", linestyle=dash, markersize=3, **look)
            halves = [mean.half_width or 0 for mean in means]
            axis.errorbar(xs, [mean.value for mean in means], halves, fmt="none", linewidth=0.8, **look)
        every = sorted({x for values in found.values() for x in values})
        if every[0] > 0 and every[-1] >= 10 * every[0]:
            logarithmic(axis)
        if len(every) <= 8:  # label the values that were tried
            axis.set_xticks(every, [f"{x:g}" for x in every])
            axis.minorticks_off()
        axis.set_title(plain(panel))
        axis.set_xlabel(plain(curve.x_label or _name(curve.x or curve.y)))
    for axis in axes[:, 0]:
        axis.set_ylabel(plain(curve.y_label or _name(curve.y)))
    handles = [
        Line2D([], [], marker="o", markersize=3, color=COLOURS[i % len(COLOURS)],
               linestyle=_DASHES[i // len(COLOURS) % len(_DASHES)], label=plain(line))
        for i, line in enumerate(lines)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside right upper", title=plain(named) or None, fontsize=7.5)
    interval = "with Student-t 95 % intervals" if fewest > 1 else "without intervals where there is a single run"
    said = [f"Means over seeds {interval}; at least {fewest} runs per point."]
    for drawn, all_of, what in ((measured, panels, "panels"), (lines, every_line, "lines")):
        if len(drawn) < len(all_of):
            said.append(f"The first {len(drawn)} of {len(all_of)} {what}.")
    return Drawing(curve.name, clean(curve.title), " ".join(said), figure)


def numbers(pattern: str, names: Iterable[str]) -> dict[str, float]:
    """Return the names that match a pattern, with the number that stands for its ``*`` in each.

    >>> numbers("test/error_at_*", ["test/error_at_10", "test/error"])
    {'test/error_at_10': 10.0}
    """
    matching = re.compile(re.escape(pattern).replace(r"\*", r"(\d+(?:\.\d+)?)")).fullmatch
    return {name: float(match[1]) for name in names if (match := matching(name))}


def _pairs(curve: Curve, point: Point) -> list[tuple[float, float]]:
    metrics = point.record["metrics"]
    if curve.x is None:
        found = [(x, metrics[key]) for key, x in numbers(curve.y, metrics).items()]
    else:
        found = [(_value(point, curve.x), metrics.get(curve.y))]
    return [(x, y) for x, y in found if isinstance(x, int | float) and abs(x) <= LARGEST and y is not None]


def _value(point: Point, key: str) -> Any:
    return point.config.get(key, point.record["choices"].get(key))


def _text(point: Point, key: str) -> str:
    return shown(_value(point, key), point.names)


def _matches(point: Point, key: str, value: Any) -> bool:
    """Whether a setting is this value, or one of these values."""
    accepted = value if isinstance(value, list | tuple) else [value]
    return _text(point, key) in [shown(each, point.names) for each in accepted]


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1].rsplit(".", 1)[-1].replace("_", " ").rstrip("* ")
