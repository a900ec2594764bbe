"""Figures that an experiment asks for: a metric against a setting, a metric or along a family, or trajectories."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genbench.analysis import power_law, statistics
from genbench.analysis.statistics import LARGEST
from genbench.claims.p_values import spearman
from genbench.privacy import clean
from genbench.records.settings import ABSENT, shown
from genbench.report.figures.style import COLOURS, GREY, Drawing, blank, logarithmic, plain
from genbench.report.format import number as rounded
from genbench.report.model import Point
from genbench.report.spec import DIAGONAL, Curve

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)))
LINES = len(COLOURS) * len(_DASHES)
"""Number of distinct line styles."""
_GUIDES = ((0, (1, 1.5)), (0, (6, 2)), (0, (6, 2, 1, 2)))
_PANELS = 8
_ABREAST = 4  # more panels take two lines
_MARKERS = "osD^vP*X<>"


def draw(curve: Curve, points: Sequence[Point]) -> Drawing | None:
    """Draw a figure of the completed runs that the table shows; None if they lack the metric."""
    from matplotlib.lines import Line2D

    if isinstance(curve.x, Mapping):
        return _trajectories(curve, points, curve.x)
    inside = _inside(curve, points)
    measured: dict[str, dict[str, dict[float, list[float]]]] = {}
    for point in inside:
        panel = _panel(curve, point)
        for line, x, y in _found(curve, point):
            measured.setdefault(panel, {}).setdefault(line, {}).setdefault(x, []).append(y * curve.scale)
    if not measured:
        return None
    left_out = 0
    for values in (line for panel in measured.values() for line in panel.values()) if curve.every_run else ():
        most = max(map(len, values.values()))
        few = [x for x, ys in values.items() if len(ys) < most]
        left_out += len(few)
        for x in few:
            del values[x]
    panels = _ordered(curve, measured)
    measured = {panel: measured[panel] for panel in panels[:_PANELS]}
    every_line = _ordered(curve, (line for panel in measured.values() for line in panel))
    lines = every_line[:LINES]
    measured = {
        panel: {line: values for line, values in found.items() if line in lines} for panel, found in measured.items()
    }
    named = ", ".join(map(_name, curve.lines))
    family = curve.y if isinstance(curve.y, str) else next(iter(curve.y.values()))
    beside = 0.06 * max(0, max(map(len, [named, *lines])) - 20)  # extra width for a legend of long names
    high = -(-len(measured) // _ABREAST)
    wide = -(-len(measured) // high)
    alone = all([*found] == [panel] for panel, found in measured.items())  # the panels' titles are their lines' names
    width = 3.2 * wide if alone else max(4.6, 3.2 * wide) + beside
    figure, axes = blank(width, 3.1 * high, high, wide, sharex=high == 1, sharey=True)
    for axis in axes.flat[len(measured) :]:
        axis.remove()
    every = sorted({x for panel in measured.values() for values in panel.values() for x in values})
    runs = {len(ys) for panel in measured.values() for line in panel.values() for ys in line.values()}
    hidden = masked = 0
    endless: list[tuple[Any, float, float, dict[str, Any]]] = []  # intervals that a logarithmic axis cannot hold
    for axis, (panel, found) in zip(axes.flat, measured.items(), strict=False):
        for line, values in found.items():
            number = lines.index(line)
            xs = sorted(values)
            means = [statistics.mean_interval(values[x]) for x in xs]
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
            dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
            if curve.scatter:
                marker = _MARKERS[number // len(COLOURS)]
                axis.plot(*zip(*((x, y) for x in xs for y in values[x]), strict=True), marker, markersize=3, **look)
                continue
            masked += sum(curve.log and mean.value <= 0 for mean in means)
            hidden += sum(curve.y_from is not None and mean.value < curve.y_from for mean in means)
            axis.plot(xs, [mean.value for mean in means], "o", linestyle=dash, markersize=3, **look)
            halves = [mean.half_width or 0 for mean in means]
            beyond = [curve.log and 0 < mean.value <= half for mean, half in zip(means, halves, strict=True)]
            down = [0 if below else half for below, half in zip(beyond, halves, strict=True)]
            axis.errorbar(xs, [mean.value for mean in means], [down, halves], fmt="none", linewidth=0.8, **look)
            endless += [(axis, x, m.value, look) for x, m, below in zip(xs, means, beyond, strict=True) if below]
        if every[0] > 0 and (every[-1] >= 10 * every[0] if curve.log_x is None else curve.log_x):
            logarithmic(axis)
        if len(every) <= 8 and not curve.scatter:  # label the values that were tried
            axis.set_xticks(every, [f"{x:g}" for x in every], fontsize=6 if len(every) > 7 else None)
            axis.minorticks_off()
        axis.set_title(plain(panel))
        axis.set_xlabel(plain(curve.x_label or _name(curve.x if isinstance(curve.x, str) else family)))
        if curve.log:
            axis.set_yscale("log", nonpositive="mask")
        if curve.y_from is not None:
            axis.set_ylim(bottom=curve.y_from)
    floor, ceiling = axes.flat[0].get_ylim()
    for axis, x, mean, look in endless:
        axis.plot([x, x], [floor, mean], linewidth=0.8, **look)
    if endless:
        axes.flat[0].set_ylim(floor, ceiling)
    for axis in axes.flat[: len(measured)]:  # once all panels are drawn, which share their axes
        for dash, height in zip(_GUIDES, curve.guides.values(), strict=False):
            left, right = axis.get_xlim()
            across = np.geomspace(left, right, 50) if axis.get_xscale() == "log" else np.linspace(left, right, 2)
            diagonal = across * curve.scale / curve.x_scale
            up = diagonal if height == DIAGONAL else np.full(len(across), float(height))
            axis.plot(across, up, color=GREY, linestyle=dash, linewidth=1, zorder=1)
            axis.set_xlim(left, right)
    for axis in axes[:, 0]:
        axis.set_ylabel(plain(curve.y_label or _name(family)))
    guides = [
        Line2D([], [], color=GREY, linestyle=dash, linewidth=1, label=plain(label))
        for dash, label in zip(_GUIDES, curve.guides, strict=False)
    ]
    handles = [
        Line2D([], [], marker=_MARKERS[i // len(COLOURS)] if curve.scatter else "o", markersize=3,
               color=COLOURS[i % len(COLOURS)], label=plain(line),
               linestyle="none" if curve.scatter else _DASHES[i // len(COLOURS) % len(_DASHES)])
        for i, line in enumerate(lines)
    ]  # fmt: skip
    title = None if set(lines) <= set(curve.names.values()) else plain(named) or None  # names of ours say what they are
    handles = ([] if alone else handles) + guides
    if handles:
        figure.legend(handles=handles, loc="outside right upper", title=title, fontsize=7.5)
    interval = "with Student-t 95 % intervals" if min(runs) > 1 else "without intervals where there is a single run"
    said = [f"Means over seeds {interval}; {_runs_a(runs, 'point')}."]
    if curve.scatter:
        clouds = [sum(map(len, values.values())) for found in measured.values() for values in found.values()]
        kind = "colour" if len(lines) <= len(COLOURS) else "colour and mark"
        told = [kind] * (len(clouds) > len(measured)) + ["panel"] * (len(measured) > 1)
        said = [f"Each point is a run; {_runs_a({*clouds}, ' and '.join(told))}.", *_correlations(curve, inside)]
    if curve.power_law:
        said += _power_laws(curve, inside)
    if hidden:
        said.append(f"{hidden} {'mean lies' if hidden == 1 else 'means lie'} below the axis.")
    if endless:
        said.append("Intervals that reach 0 end at the axis.")
    if masked:
        what = "mean that is not positive is" if masked == 1 else "means that are not positive are"
        said.append(f"{masked} {what} not drawn.")
    if left_out:
        what = "point that not all runs have is" if left_out == 1 else "points that not all runs have are"
        said.append(f"{left_out} {what} left out.")
    for drawn, all_of, what in ((measured, panels, "panels"), (lines, every_line, "lines")):
        if len(drawn) < len(all_of):
            said.append(f"The first {len(drawn)} of {len(all_of)} {what}.")
    return Drawing(curve.name, clean(curve.title), " ".join(filter(None, [curve.caption, *said])), figure)


def _correlations(curve: Curve, points: Sequence[Point]) -> list[str]:
    """Return the rank correlations of a figure's points over the values of ``curve.correlate`` and within each."""
    key = curve.correlate
    if key is None:
        return []
    found: dict[str, list[tuple[Any, Any, float, float]]] = {}  # of each line: seed, value of the setting, x, y
    for point in points:
        for line, x, y in _found(curve, point):
            of = (_panel(curve, point), *([] if key in curve.lines else [line]))  # else a line has one value of it
            named = ", ".join(filter(None, dict.fromkeys(of)))
            found.setdefault(named, []).append((point.record["seed"], _value(point, key), x, y))
    said = []
    within = f"Rank correlation over {_name(key)} within a seed, plain mean (claims average Fisher's z)"
    for part, words in ((0, within), (1, f"Over the seeds at one value of {_name(key)}")):
        means = {name: _mean_correlation(each, part) for name, each in found.items()}
        told = ", ".join(f"{name} {'–' if mean is None else rounded(mean, 2)}".strip() for name, mean in means.items())
        said.append(f"{words}: {told}.")
    return said


def _power_laws(curve: Curve, points: Sequence[Point]) -> list[str]:
    """Say the exponent of each line. Seeds without all of its points, or with one not above 0, are left out."""
    found: dict[str, dict[Any, dict[float, float]]] = {}  # of each line y by x of each seed
    for point in points:
        for line, x, y in _found(curve, point):
            named = ", ".join(filter(None, dict.fromkeys((_panel(curve, point), line))))
            found.setdefault(named, {}).setdefault(point.record["seed"], {})[x] = y
    told, lost = [], 0
    for named, seeds in found.items():
        xs = {x for each in seeds.values() for x in each}
        whole = [each for each in seeds.values() if set(each) == xs and min(each) > 0 and min(each.values()) > 0]
        lost += len(seeds) - len(whole)
        if not whole or len(xs) < 2:
            continue
        law = power_law(whole)
        interval = "" if law.exponent.half_width is None else f" ± {law.exponent.half_width:.2f}"
        shape = "" if not law.bends or law.bend is None else " (flattens)" if law.bend.value > 0 else " (steepens)"
        told.append(f"{named} {law.exponent.value:.2f}{interval}{shape}".replace("-", "−"))
    if not told:
        return []
    said = [
        f"Exponents b of y ∝ xᵇ, by least squares of the logarithms within each seed: {', '.join(told)}.",
        "One that flattens or steepens has a bend beyond its 95 % interval, and no single exponent.",
    ]
    return [*said[: 1 + any("(" in each for each in told)], *([f"{lost} seeds are left out of them."] if lost else [])]


def _mean_correlation(points: Sequence[tuple[Any, Any, float, float]], part: int) -> float | None:
    """Return the mean of Spearman's correlations of x and y within the groups of points that share a ``part``."""
    groups: dict[Any, list[tuple[float, float]]] = {}
    for point in points:
        groups.setdefault(point[part], []).append(point[2:])
    pairs = [np.array(group) for group in groups.values() if len(group) > 2]
    found = [float(spearman(pair[:, :1], pair[:, 1:])[0]) for pair in pairs]
    known = [rho for rho in found if rho == rho]  # NaN where a metric is constant
    return sum(known) / len(known) if known else None


def numbers(pattern: str, names: Iterable[str]) -> dict[str, float]:
    """Return the names that match a pattern, with the number that stands for its ``*`` in each.

    >>> numbers("test/error_at_*", ["test/error_at_10", "test/error"])
    {'test/error_at_10': 10.0}
    """
    matching = re.compile(re.escape(pattern).replace(r"\*", r"(\d+(?:\.\d+)?)")).fullmatch
    return {name: float(match[1]) for name in names if (match := matching(name))}


def _trajectories(curve: Curve, points: Sequence[Point], x: Mapping[str, str]) -> Drawing | None:
    """Draw lines through the points (x, y) of each number, the means over the runs of a panel, coloured by number."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.lines import Line2D

    assert isinstance(curve.y, Mapping)
    measured: dict[str, dict[str, dict[float, list[tuple[float, float]]]]] = {}
    for point in _inside(curve, points):
        metrics = point.record["metrics"]
        for label in list(curve.y)[: len(_MARKERS)]:
            ours, across = numbers(curve.y[label], metrics), numbers(x[label], metrics)
            beside = {number: metrics[key] for key, number in across.items()}
            for key, number in ours.items():
                if _fine(metrics[key]) and _fine(beside.get(number)):
                    lines = measured.setdefault(_panel(curve, point), {})
                    found = lines.setdefault(label, {}).setdefault(number, [])
                    found.append((beside[number], metrics[key] * curve.scale))
    panels = [(panel, measured[panel]) for panel in _ordered(curve, measured)[:_PANELS]]
    if not panels:
        return None
    every = sorted({number for _, lines in panels for line in lines.values() for number in line})
    norm = (LogNorm if every[0] > 0 and every[-1] >= 10 * every[0] else Normalize)(every[0], every[-1])
    figure, axes = blank(max(4.6, 3.2 * len(panels)) + 1, 3.4, 1, len(panels), sharex=True, sharey=True)
    labels = [label for label in curve.y if any(label in lines for _, lines in panels)]
    for axis, (panel, lines) in zip(axes[0], panels, strict=True):
        for label, line in lines.items():
            ordered = sorted(line)
            means = [[sum(each) / len(line[number]) for each in zip(*line[number], strict=True)] for number in ordered]
            xs, ys = zip(*means, strict=True)
            axis.plot(xs, ys, color=GREY, linewidth=0.6, zorder=1)
            marker = _MARKERS[labels.index(label)]
            shades = axis.scatter(xs, ys, c=ordered, norm=norm, cmap="viridis", s=16, marker=marker, zorder=2)
        axis.set_title(plain(panel))
        axis.set_xlabel(plain(curve.x_label))
        if curve.log:
            axis.set_yscale("log")
    axes[0, 0].set_ylabel(plain(curve.y_label))
    figure.colorbar(shades, ax=list(axes[0]), label=plain(curve.number_label), pad=0.02)
    handles = [
        Line2D([], [], color=GREY, marker=marker, markersize=4, linewidth=0.6, label=plain(label))
        for label, marker in zip(labels, _MARKERS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7.5)
    runs = {len(pairs) for _, lines in panels for line in lines.values() for pairs in line.values()}
    said = f"Means over seeds; {_runs_a(runs, 'point')}."
    for drawn, all_of, what in ((len(panels), len(measured), "panels"), (len(labels), len(curve.y), "lines")):
        if drawn < all_of:
            said += f" The first {drawn} of {all_of} {what}."
    return Drawing(curve.name, clean(curve.title), " ".join(filter(None, [curve.caption, said])), figure)


def _runs_a(runs: set[int], what: str) -> str:
    """Say of how many runs a point is, or how many a colour or panel has.

    >>> _runs_a({8}, "point"), _runs_a({1, 8}, "point"), _runs_a({8}, "")
    ('8 runs a point', '1 to 8 runs a point', '8 runs')
    """
    words = f"{min(runs)} {'to ' + str(max(runs)) + ' ' if len(runs) > 1 else ''}run{'s' * (max(runs) > 1)}"
    return f"{words} a {what}" if what else words


def _inside(curve: Curve, points: Sequence[Point]) -> list[Point]:
    """Return the runs that a figure shows."""
    return [p for p in points if p.chosen and all(_matches(p, key, value) for key, value in curve.where.items())]


def _ordered(curve: Curve, found: Iterable[str]) -> list[str]:
    """Return lines or panels without repetitions: those with a name in the order of the names, then the others, which
    are put in order where all are numbers."""
    given = list(curve.names.values())
    every = list(dict.fromkeys(found))
    others = [name for name in every if name not in given]
    with contextlib.suppress(ValueError):
        others.sort(key=float)
    return [*(name for name in given if name in every), *others]


def _panel(curve: Curve, point: Point) -> str:
    named = ", ".join(f"{_name(key)} {_text(point, key)}" for key in curve.panels)
    return curve.names.get(_values(point, curve.panels), named)


def _found(curve: Curve, point: Point) -> Iterator[tuple[str, float, float]]:
    """Yield the line, x and y of each number that a run has."""
    metrics = point.record["metrics"]
    line = curve.names.get(_values(point, curve.lines), ", ".join(_text(point, key) for key in curve.lines))
    found: list[tuple[str, Any, Any]]
    if isinstance(curve.y, Mapping) and isinstance(curve.x, str):
        setting = _value(point, curve.x)
        found = [(", ".join(filter(None, [label, line])), setting, metrics.get(y)) for label, y in curve.y.items()]
    elif isinstance(curve.y, Mapping):
        found = [
            (", ".join(filter(None, [label, line])), x, metrics[key])
            for label, family in curve.y.items()
            for key, x in numbers(family, metrics).items()
        ]
    elif curve.x is None:
        found = [(line or point.row, x, metrics[key]) for key, x in numbers(curve.y, metrics).items()]
    else:
        assert isinstance(curve.x, str)
        x = metrics.get(curve.x) if curve.scatter else _value(point, curve.x)
        found = [(line or point.row, x * curve.x_scale if curve.scatter and _fine(x) else x, metrics.get(curve.y))]
    for name, x, y in found:
        if _fine(x) and y is not None:
            yield name, x, y


def _fine(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _value(point: Point, key: str) -> Any:
    return point.config.get(key, point.record["choices"].get(key))


def _values(point: Point, keys: Sequence[str]) -> str:
    """Return the values of some settings as the rows of a table name them."""
    return "/".join(_text(point, key) for key in keys)


def _text(point: Point, key: str) -> str:
    if key not in point.config and key not in point.record["choices"]:
        return ABSENT
    return shown(_value(point, key), point.names)


def _matches(point: Point, key: str, value: Any) -> bool:
    """Whether a setting is this value, or one of these values."""
    accepted = value if isinstance(value, list | tuple) else [value]
    return _text(point, key) in [shown(each, point.names) for each in accepted]


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1].rsplit(".", 1)[-1].replace("_", " ").rstrip("* ")
