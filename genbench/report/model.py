"""What a table is made of, whatever it is printed as."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genbench.analysis import statistics

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column shows: ``scale`` times ``metric`` of the runs that match ``where``.

    ``best`` (max or min) is set in bold. ``published`` maps rows to printed values, in the column's unit, which stand
    beside the measured ones and come from ``source``. ``digits`` are decimals (default: three significant digits of the
    column's median). ``group`` heads neighbouring columns.
    """

    label: str
    metric: str
    group: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)
    best: str | None = None
    scale: float = 1.0
    digits: int | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    @property
    def title(self) -> str:
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration: ``values`` by seed (scaled), their mean, and the difference from the baseline's.

    ``status`` is empty, ``n=2/3``, or the reason in one word when there is no value. ``p`` is Holm's. ``comparable`` is
    false where the column may not be compared with the other rows. ``notes`` index the table's.
    """

    values: Mapping[Hashable, float] = field(default_factory=dict)
    mean: statistics.Mean | None = None
    planned: int = 0
    status: str = ""
    difference: statistics.Difference | None = None
    p: float | None = None
    best: bool = False
    comparable: bool = True
    notes: tuple[int, ...] = ()
    published: str | None = None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANCE


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row's ``label``, and of the settings that were tried for it the one it shows (``chosen``)."""

    label: str
    chosen: str = ""
    notes: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.label} ({self.chosen})" if self.chosen else self.label


@dataclass(frozen=True, kw_only=True)
class Table:
    """``cells[row][column]``; ``notes`` are footnotes in the order of their letters, ``problems`` stand below them.

    ``figures`` are those that the experiment asked for: what :class:`genbench.report.spec.Curve` takes.
    """

    title: str
    caption: list[str]
    header: str
    rows: list[Row]
    columns: list[Column]
    cells: list[list[Cell]]
    baseline: int | None
    notes: list[str]
    problems: list[str]
    figures: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Point:
    """A completed run with its place: the row's label and the condition (whatever else varies besides the seed).

    ``config`` is the record's by dotted key.
    ``setting`` is what was tried for its row, by dotted key, and empty where there was nothing to choose; ``chosen``
    tells whether the table shows it.
    """

    record: Mapping[str, Any]
    config: Mapping[str, Any]
    row: str
    condition: str
    comparable: bool  # in raw measures, with the baseline's row
    setting: Mapping[str, Any]
    chosen: bool
