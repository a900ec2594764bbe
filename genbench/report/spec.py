"""The spec of a table: its columns, rows, baseline and figures."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genbench import records
from genbench.checks import nearest
from genbench.privacy import clean
from genbench.records.settings import show
from genbench.report.model import Column

RAW_MEASURES = tuple(f"train/flatness/{name}" for name in ("lambda_1", "trace", "sam_sharpness", "average_sharpness"))
"""Measures that change when weights are rescaled, although the network's outputs do not."""

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
    """A figure that an experiment asks for: ``scale`` times the metric ``y`` against the setting ``x``.

    It has one line per value of ``lines`` (dotted keys or groups; default: the table's rows) and one panel per value of
    ``panels``. It shows the runs that match ``where``: keys with a value or a list of values. Without ``x``, ``y``
    contains one ``*``, which stands for a number: the matching metrics are the points of a line.
    """

    name: str
    title: str
    y: str
    x: str | None = None
    lines: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    x_label: str = ""
    y_label: str = ""

    @property
    def keys(self) -> list[str]:
        """The settings that it reads."""
        return [*([self.x] if self.x else []), *self.lines, *self.panels, *self.where]


def columns_of(spec: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a spec; raise ValueError (one line) if the spec is malformed."""
    accepted = ("title", "caption", "rows", "baseline", "choose", "columns", "figures")
    if unknown := [key for key in spec if key not in accepted]:
        raise ValueError(f"table: unknown key {unknown[0]!r}; {nearest(unknown[0], accepted)}")
    if not isinstance(spec.get("rows"), list | None) or not isinstance(spec.get("baseline"), list | str | None):
        raise ValueError("table: rows and baseline must be lists or null, or baseline a row's label")
    rule = spec.get("choose")
    if rule and (
        not isinstance(rule, Mapping) or set(rule) != {"metric", "best"} or rule["best"] not in ("max", "min")
    ):
        raise ValueError(f"table: choose is {rule!r}; accepted: {{metric: a metric, best: max or min}}, or null")
    nodes = spec.get("columns") or DEFAULT_COLUMNS
    columns = []
    fields = Column.__dataclass_fields__
    for node in nodes:
        if not isinstance(node, Mapping) or not {"label", "metric"} <= set(node):
            raise ValueError(f"table: a column needs label and metric, got {node!r}")
        if unknown := [key for key in node if key not in fields]:
            raise ValueError(
                f"table: column {node['label']!r} has the unknown key {unknown[0]!r}; {nearest(unknown[0], [*fields])}"
            )
        given = {key: value for key, value in node.items() if value is not None}
        if given.get("best") not in (None, "max", "min"):
            raise ValueError(f"table: column {node['label']!r}: best must be max, min or null, got {given['best']!r}")
        if given.get("published") and not given.get("source"):
            raise ValueError(f"table: column {node['label']!r}: published values need their source")
        for name in ("label", "group", "source"):
            if name in given:
                given[name] = clean(given[name])
        given["published"] = {show(key): show(value) for key, value in given.get("published", {}).items()}
        columns.append(Column(**given))
    return columns


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
        if node["y"].count("*") != ("x" not in given):
            raise ValueError(
                f"table: figure {node['name']!r}: y is {node['y']!r}; accepted: a metric with x a setting, or one with "
                "a single * for numbers and no x"
            )
        found.append(Curve(**given))
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
    spec = dict(spec)
    if rows is not None:
        spec |= {"rows": list(rows), "baseline": spec.get("baseline") if rows == spec.get("rows") else None}
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
    read = [key for column in columns_of(spec) for key in column.where]
    read += [key for curve in curves_of(spec.get("figures")) for key in curve.keys]
    for key in [*(spec.get("rows") or []), *read]:
        if key not in known:
            raise ValueError(f"table: {key!r} is neither a group nor a setting of the runs; {nearest(key, known)}")
