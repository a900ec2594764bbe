"""The spec of a table: its columns, rows, baseline and figures."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genbench import records
from genbench.checks import check_flag, check_integer, check_number, check_window, nearest
from genbench.privacy import clean
from genbench.records.settings import show
from genbench.report.model import Column, Published

RAW_MEASURES = tuple(f"train/flatness/{name}" for name in ("lambda_1", "trace", "sam_sharpness", "average_sharpness"))
"""Measures that change when weights are rescaled, although the network's outputs do not."""

MEAN_ERROR, WORST_ERROR = "mean", "90th percentile"
"""The last columns of a table of sign errors."""

DIAGONAL = "x"
"""A guide of a figure at y = x."""
_MOST_GUIDES = 3

_ACCURACY = {"group": "accuracy (%)", "scale": 100, "digits": 1}
DEFAULT_COLUMNS: list[dict[str, Any]] = [
    {**_ACCURACY, "label": "test", "metric": "test/performance/accuracy", "best": "max"},
    {**_ACCURACY, "label": "train", "metric": "train/performance/accuracy"},
    {**_ACCURACY, "label": "gap", "metric": "test/gap/accuracy", "best": "min"},
    {"group": "sharpness", "label": "λ₁", "metric": "train/flatness/lambda_1"},
    {"group": "sharpness", "label": "trace", "metric": "train/flatness/trace"},
    {"group": "sharpness", "label": "SAM", "metric": "train/flatness/sam_sharpness"},
    {"group": "sharpness", "label": "adaptive", "metric": "train/flatness/adaptive_sharpness", "best": "min"},
    {"group": "weights", "label": "norm", "metric": "weights/norm/l2"},
    {"group": "weights", "label": "distance", "metric": "weights/norm/distance"},
    {"group": "cost", "label": "seconds", "metric": "seconds.fit"},
]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure that an experiment asks for: ``scale`` times the metric ``y`` against the setting or the metric ``x``.

    It has one line per value of ``lines`` (dotted keys or groups; default: the table's rows) and one panel per value of
    ``panels``. It shows the runs that match ``where``: keys with a value or a list of values. Without ``x``, ``y``
    contains one ``*``, which stands for a number: the matching metrics are the points of a line. ``names`` maps the
    values of a line or a panel, with / between them, to what is shown, in this order.

    ``y`` may also be several metrics by label, each a line along the setting ``x``, or several such families. If ``x``
    is as many families by the same labels, a line goes through the points (x, y) of each number, coloured by it: a
    trajectory. ``log`` makes the y axis logarithmic, ``log_x`` the x axis, which without it is so where x spans a
    factor of ten. ``guides`` are grey lines by label, each at a height y, or ``x`` for y = ``scale`` · x where each run
    is a point. The caption of such a figure says the rank correlation over the setting ``correlate``, as the mean
    of the seeds, and over the seeds, as the mean of its values. ``y_from`` cuts the y axis of lines along a setting
    below; the caption counts the means that it hides. ``x_scale`` multiplies an ``x`` that is a metric.
    ``every_run`` leaves out the points of a line that only some of its runs have; the caption counts them. With
    ``power_law`` the caption says the exponent of each line along a setting, see
    :func:`genbench.analysis.power_law`. ``caption`` stands before it.
    """

    name: str
    title: str
    y: str | Mapping[str, str]
    x: str | Mapping[str, str] | None = None
    lines: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    x_label: str = ""
    y_label: str = ""
    number_label: str = ""
    log: bool = False
    log_x: bool | None = None
    guides: Mapping[str, float | str] = field(default_factory=dict)
    y_from: float | None = None
    correlate: str | None = None
    x_scale: float = 1.0
    every_run: bool = False
    power_law: bool = False
    caption: str = ""

    @property
    def scatter(self) -> bool:
        """Whether ``x`` is a metric: then each run is a point, and there are no lines."""
        return isinstance(self.x, str) and "/" in self.x

    @property
    def keys(self) -> list[str]:
        """The settings that it reads."""
        setting = [self.x] if isinstance(self.x, str) and not self.scatter else []
        return [*setting, *self.lines, *self.panels, *self.where, *([self.correlate] if self.correlate else [])]


@dataclass(frozen=True, kw_only=True)
class SignErrors:
    """A further table of sign errors (Dziugaite et al. 2020): a row a measure, a column a hyperparameter, and the mean
    and the 90th percentile over all environments; see :func:`genbench.analysis.sign_errors`.

    Attributes:
        measures: metrics that are to rise with the gap, and how they are shown.
        axes: the hyperparameters, and how they are shown.
        gap: the metric that they are to predict, of the 0–1 error.
        test_size: the number of its test examples.
        within: by metric the least and the largest number of the runs that count.
        published: by column and measure, as they are shown, published values; ``source`` and ``third_party`` of the
            spec cite them.
    """

    measures: Mapping[str, str]
    axes: Mapping[str, str]
    gap: str
    test_size: int
    within: Mapping[str, tuple[float, float]]
    published: Mapping[str, Mapping[str, Published]]


def sign_errors_of(spec: Mapping[str, Any]) -> SignErrors:
    """Return what the spec of a further table asks for; raise ValueError (one line) if it is malformed."""
    accepted = ("title", "caption", "sign_errors", "source", "third_party")
    if unknown := [key for key in spec if key not in accepted]:
        raise ValueError(f"table: sign errors: unknown key {unknown[0]!r}; {nearest(unknown[0], accepted)}")
    node, fields = spec["sign_errors"], [*SignErrors.__dataclass_fields__]
    if not isinstance(node, Mapping) or not all(node.get(name) for name in fields[:4]):
        raise ValueError(f"table: sign_errors is {node!r}; accepted: settings, with {', '.join(fields[:4])}")
    if unknown := [key for key in node if key not in fields]:
        raise ValueError(f"table: sign_errors: unknown key {unknown[0]!r}; {nearest(unknown[0], fields)}")
    check_integer("table: sign_errors: test_size", node["test_size"], least=1)
    shown = {}
    for name in ("measures", "axes"):
        if not isinstance(node[name], Mapping):
            raise ValueError(f"table: sign_errors: {name} is {node[name]!r}; accepted: names, and how they are shown")
        shown[name] = {str(key): clean(show(label)) for key, label in node[name].items()}
    cited = {key: spec[key] for key in ("source", "third_party") if spec.get(key) is not None}
    published: dict[str, dict[str, Published]] = {}
    for column, values in (node.get("published") or {}).items():
        places = {column: (*shown["axes"].values(), MEAN_ERROR, WORST_ERROR)}
        places |= dict.fromkeys(values, tuple(shown["measures"].values()))
        for name, known in places.items():
            if name not in known:
                raise ValueError(f"table: sign_errors: published names {name!r}; {nearest(str(name), known)}")
        published[column] = {
            row: _published(value, cited, f"table: sign_errors: published, {column}, {row}")
            for row, value in values.items()
        }
    within = {
        str(name): check_window(f"table: sign_errors: within of {name}", ends)
        for name, ends in (node.get("within") or {}).items()
    }
    return SignErrors(**shown, gap=str(node["gap"]), test_size=node["test_size"], within=within, published=published)


def columns_of(spec: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a spec; raise ValueError (one line) if the spec is malformed."""
    accepted = (
        "title", "caption", "where", "rows", "order", "baseline", "choose", "best_in_row", "columns", "figures",
        "source", "third_party", "same_scale", "further", "effects",
    )  # fmt: skip
    if unknown := [key for key in spec if key not in accepted]:
        raise ValueError(f"table: unknown key {unknown[0]!r}; {nearest(unknown[0], accepted)}")
    if not isinstance(spec.get("where"), Mapping | None):
        raise ValueError(f"table: where is {spec['where']!r}; accepted: settings of the runs that it shows, or null")
    if not isinstance(spec.get("rows"), list | None) or not isinstance(spec.get("baseline"), list | str | None):
        raise ValueError("table: rows and baseline must be lists or null, or baseline a row's label")
    if spec.get("best_in_row") not in (None, "max", "min"):
        raise ValueError(f"table: best_in_row is {spec['best_in_row']!r}; accepted: max, min, or null")
    rule = spec.get("choose")
    if rule:
        fine = isinstance(rule, Mapping) and {"metric", "best"} <= set(rule) <= {"metric", "best", "apart"}
        if not fine or rule["best"] not in ("max", "min") or not isinstance(rule.get("apart", False), bool):
            form = "{metric: a metric, best: max or min, apart: true for each condition apart}"
            raise ValueError(f"table: choose is {rule!r}; accepted: {form}, or null")
    nodes = spec.get("columns") or DEFAULT_COLUMNS
    metrics = [node.get("metric") for node in nodes if isinstance(node, Mapping)]
    if spec.get("effects") is not None and spec["effects"] not in metrics:
        raise ValueError(f"table: effects is {spec['effects']!r}; accepted: the metric of a column, or null")
    order = order_of(spec)
    named = {name: row for row, name in order.items()}
    shared = {key: spec[key] for key in ("source", "third_party", "same_scale") if spec.get(key) is not None}
    columns = []
    fields = Column.__dataclass_fields__
    for node in nodes:
        if not isinstance(node, Mapping) or "label" not in node or not {"metric", "published"} & set(node):
            raise ValueError(f"table: a column needs label and metric, got {node!r}")
        if unknown := [key for key in node if key not in fields]:
            raise ValueError(
                f"table: column {node['label']!r} has the unknown key {unknown[0]!r}; {nearest(unknown[0], [*fields])}"
            )
        given = shared | {key: value for key, value in node.items() if value is not None}
        where = f"table: column {node['label']!r}"
        if given.get("best") not in (None, "max", "min"):
            raise ValueError(f"{where}: best must be max, min or null, got {given['best']!r}")
        for name in ("third_party", "same_scale"):
            if not isinstance(given.get(name, False), bool):
                raise ValueError(f"{where}: {name} is {given[name]!r}; accepted: true, false")
        for name in ("label", "group", "source"):
            if name in given:
                given[name] = clean(given[name])
        if not isinstance(given.get("published", {}), Mapping):
            raise ValueError(f"{where}: published is {given['published']!r}; accepted: a value for each row")
        given["published"] = {
            row: _published(value, given, f"{where}: published, row {row!r}")
            for name, value in given.get("published", {}).items()
            for row in [_row(name) if _row(name) in order else named.get(show(name), _row(name))]
            if value is not None
        }
        if order and (unknown := [row for row in given["published"] if row not in order]):
            raise ValueError(f"{where}: published names the row {unknown[0]!r}; {nearest(unknown[0], [*order])}")
        columns.append(Column(**given))
    return columns


def _published(value: Any, column: Mapping[str, Any], where: str) -> Published:
    """Return a published value: a number, text, or a mapping that has ``value`` and its own source."""
    fields = ("value", "source", "third_party")
    own = value if isinstance(value, Mapping) else {"value": value}
    node = {key: column[key] for key in fields if key in column} | dict(own)
    if unknown := [key for key in node if key not in fields]:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}; {nearest(str(unknown[0]), fields)}")
    value, third_party = node.get("value"), node.get("third_party", False)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: value is {value!r}; accepted: a number, or text such as '99.66 ± 0.05'")
    if not isinstance(third_party, bool):
        raise ValueError(f"{where}: third_party is {third_party!r}; accepted: true, false")
    if not node.get("source"):
        raise ValueError(f"{where}: published values need their source")
    text = f"{value:.12g}" if isinstance(value, float) else clean(value)
    return Published(text=text, source=clean(node["source"]), third_party=third_party)


def _row(values: Any) -> str:
    """Return the values of a row, with / between them, as tables show them: ``null``, as in a configuration, is none.

    >>> _row("null/1/0"), _row("none"), _row(None)
    ('none/1/0', 'none', 'none')
    """
    return "/".join("none" if value == "null" else value for value in show(values).split("/"))


def order_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows that the table has in any case, in their order: their values, and the names that are shown."""
    given = spec.get("order") or {}
    if not isinstance(given, Mapping | list):
        raise ValueError(f"table: order is {given!r}; accepted: a list of rows, or the name of each")
    named = given.items() if isinstance(given, Mapping) else zip(given, given, strict=True)
    rows = [(_row(row), clean(_row(row) if name is None else show(name))) for row, name in named]
    for part in zip(*rows, strict=True):
        if twice := next((text for text, count in Counter(part).items() if count > 1), None):
            raise ValueError(f"table: order has {twice!r} twice; accepted: different rows of different names")
    return dict(rows)


def curves_of(nodes: Any) -> list[Curve]:
    """Return the figures of a table's spec; raise ValueError (one line) if one is malformed."""
    found = []
    for node in nodes or []:
        if not isinstance(node, Mapping) or not {"name", "title", "y"} <= set(node):
            raise ValueError(f"table: a figure needs name, title and y, got {node!r}")
        if unknown := [key for key in node if key not in Curve.__dataclass_fields__]:
            raise ValueError(
                f"table: figure {node['name']!r} has the unknown key {unknown[0]!r}; "
                f"{nearest(unknown[0], [*Curve.__dataclass_fields__])}"
            )
        if not re.fullmatch(r"\w+", str(node["name"])):
            raise ValueError(f"table: figure {node['name']!r}: accepted: a name of letters, digits and underscores")
        given = {key: value for key, value in node.items() if value is not None}
        for key in ("lines", "panels"):
            given[key] = tuple(given.get(key, ()))
        given["names"] = {_row(key): clean(text) for key, text in given.get("names", {}).items()}
        if isinstance(node["y"], Mapping):
            _check_families(node["name"], node["y"], given.get("x"))
        elif node["y"].count("*") != ("x" not in given) or isinstance(given.get("x"), Mapping):
            raise ValueError(
                f"table: figure {node['name']!r}: y is {node['y']!r}; accepted: a metric with x a setting, or one with "
                "a single * for numbers and no x"
            )
        given["guides"] = {clean(show(label)): height for label, height in given.get("guides", {}).items()}
        given["caption"] = clean(" ".join(str(given.get("caption", "")).split()))
        curve = Curve(**given)
        _check_guides(curve)
        if curve.y_from is not None:
            check_number(f"table: figure {curve.name!r}: y_from", curve.y_from)
            if curve.scatter or isinstance(curve.x, Mapping):
                raise ValueError(
                    f"table: figure {curve.name!r}: y_from is {curve.y_from!r}; accepted: null, as it draws no means "
                    "along a setting"
                )
        if curve.correlate is not None and not curve.scatter:
            raise ValueError(
                f"table: figure {node['name']!r}: correlate is {curve.correlate!r}; accepted: null, or a setting "
                "where x is a metric"
            )
        where = f"table: figure {curve.name!r}"
        if check_number(f"{where}: x_scale", curve.x_scale, low=0, open_low=True) != 1 and not curve.scatter:
            raise ValueError(f"{where}: x_scale is {curve.x_scale!r}; accepted: 1, or a number > 0 where x is a metric")
        if check_flag(f"{where}: every_run", curve.every_run) and (curve.scatter or isinstance(curve.x, Mapping)):
            raise ValueError(f"{where}: every_run is true; accepted: false, as it draws no means along a line")
        if check_flag(f"{where}: power_law", curve.power_law) and (curve.scatter or not isinstance(curve.x, str)):
            raise ValueError(f"{where}: power_law is true; accepted: false, as it draws no means along a setting")
        found.append(curve)
    return found


def _check_guides(curve: Curve) -> None:
    """Refuse guides that are no heights, that the figure has no place for, or that are too many to tell apart."""
    for label, height in curve.guides.items():
        number = isinstance(height, int | float) and not isinstance(height, bool) and math.isfinite(height)
        if not number and not (height == DIAGONAL and curve.scatter):
            also = f", or {DIAGONAL} for the diagonal" if curve.scatter else ""
            raise ValueError(f"table: figure {curve.name!r}: guide {label!r} is {height!r}; accepted: a height{also}")
    if len(curve.guides) > _MOST_GUIDES or (curve.guides and isinstance(curve.x, Mapping)):
        least = f"at most {_MOST_GUIDES}, and none with trajectories"
        raise ValueError(f"table: figure {curve.name!r} has {len(curve.guides)} guides; accepted: {least}")


def _check_families(name: str, y: Mapping[str, Any], x: Any) -> None:
    """Refuse families of metrics that are not by the same labels, or without their ``*``; metrics with one along a
    setting."""
    if isinstance(x, str):  # a setting, which all metrics share
        if "/" in x or not y or not all(isinstance(each, str) and "*" not in each for each in y.values()):
            raise ValueError(
                f"table: figure {name!r}: y is {y!r} and x {x!r}; accepted: metrics without * by the labels of their "
                "lines with x a setting"
            )
        return
    for axis, families in (("y", y), ("x", y if x is None else x)):
        fine = isinstance(families, Mapping) and list(families) == list(y) and y
        if not fine or not all(isinstance(each, str) and each.count("*") == 1 for each in families.values()):
            raise ValueError(
                f"table: figure {name!r}: {axis} is {families!r}; accepted: metrics with a single * for numbers, by "
                "the labels of their lines, the same in x and y"
            )


def further_of(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the specs of the further tables of a spec, which have no figures; raise ValueError (one line) if that is
    malformed."""
    found = spec.get("further") or []
    if not isinstance(found, list) or not all(
        isinstance(node, Mapping) and (node.get("columns") or node.get("sign_errors")) for node in found
    ):
        raise ValueError(
            f"table: further is {found!r}; accepted: a list of tables with columns of their own, or sign_errors"
        )
    for node in found:
        if inner := [key for key in ("further", "figures") if node.get(key)]:
            raise ValueError(f"table: a further table has {inner[0]}; accepted: the table itself has them")
    return found


def changed(
    spec: Mapping[str, Any],
    metrics: Collection[str],
    *,
    rows: Sequence[str] | None,
    columns: Sequence[str] | None,
    baseline: str | None,
) -> dict[str, Any]:
    """Return a spec with other rows, another baseline (a row's label), or other columns.

    Columns are chosen from the spec's own by label, title or metric, or from ``metrics``, which are those of the runs.
    Raises ``ValueError`` (one line) for a column that is neither.
    """
    spec = {key: value for key, value in spec.items() if key != "further"}
    if rows is not None and rows != spec.get("rows"):  # of other rows nothing is said
        measured = [{**node, "published": None} for node in spec.get("columns") or () if node.get("metric")]
        spec |= {"rows": list(rows), "baseline": None, "order": None, "columns": measured}
    if baseline is not None:
        spec["baseline"] = baseline
    if columns is not None:
        own = list(zip(spec.get("columns") or DEFAULT_COLUMNS, columns_of(spec), strict=True))
        nodes = []
        for name in columns:
            found = [node for node, column in own if name in (column.label, column.title, column.metric)]
            if not found and name not in metrics:
                known = list(dict.fromkeys([*(column.label for _, column in own), *sorted(metrics)]))
                raise ValueError(f"there is no column and no metric {name!r}; {nearest(name, known)}")
            nodes += found or [{"label": name, "metric": name}]
        spec["columns"] = nodes
    return spec


def check(spec: Mapping[str, Any] | None, config: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    """Raise ValueError (one line) if a table's spec is malformed or names settings that the runs do not have."""
    spec = spec or {}
    known = sorted({*choices, *records.flatten(config)})
    read = [key for curve in curves_of(spec.get("figures")) for key in curve.keys]
    for each in (spec, *further_of(spec)):
        if each.get("sign_errors"):
            read += sign_errors_of(each).axes
            continue
        read += [key for column in columns_of(each) for key in (*column.where, *column.minus)]
        read += [*(each.get("rows") or []), *(each.get("where") or {})]
    for key in read:
        if key not in known:
            raise ValueError(f"table: {key!r} is neither a group nor a setting of the runs; {nearest(key, known)}")
