"""The parts of a table, independent of its output format."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genbench.analysis import statistics

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published value as it is printed, with its source; ``third_party`` if it was not read in the source itself."""

    text: str
    source: str
    third_party: bool = False

    @property
    def value(self) -> float | None:
        """The number, without its error; None if the text is no number."""
        found = re.fullmatch(r"([-−]?\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?: ± [\d.e-]+)?(?: %)?", self.text, re.IGNORECASE)
        return None if found is None else float(found[1].replace("−", "-"))

    @property
    def cited(self) -> str:
        """The source, and how the value came from it."""
        return f"{self.source} (third party: not read in the source itself)" if self.third_party else self.source


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: ``scale`` times ``metric`` of the runs that match ``where``; without a metric, published values alone.

    If ``minus`` is given, the metric of the runs that match it is subtracted, seed by seed.
    ``best`` (max or min) selects the mean in bold. ``published`` maps rows to published values in the column's unit,
    which are shown beside the measured ones; ``source`` cites them, and ``third_party`` says that they were not read
    there. If the runs are of the ``same_scale``, the differences from them are shown. ``digits`` is the number of
    decimals (default: three significant digits of the column's largest mean). ``group`` is the heading over
    neighbouring columns.
    """

    label: str
    metric: str = ""
    group: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)
    minus: Mapping[str, Any] = field(default_factory=dict)
    best: str | None = None
    scale: float = 1.0
    digits: int | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    source: str | None = None
    third_party: bool = False
    same_scale: bool = False

    @property
    def title(self) -> str:
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration: its scaled ``values`` by seed, their mean, and the difference from the baseline.

    ``status`` is empty, ``n=2/3``, or one word that says why there is no value. ``p`` is corrected by Holm's method.
    ``comparable`` is false if the value may not be compared with other rows. ``notes`` are indices of the table's.
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
    published: Published | None = None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANCE


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row's ``label`` and, if several settings were tried for it, the ``chosen`` one."""

    label: str
    chosen: str = ""
    notes: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.label} ({self.chosen})" if self.chosen else self.label


@dataclass(frozen=True, kw_only=True)
class Table:
    """``cells[row][column]``; ``notes`` are footnotes in the order of their letters, ``problems`` follow them.

    ``figures`` are the figures that the experiment asks for, as settings of :class:`genbench.report.spec.Curve`;
    ``further`` are more tables of the same runs, which stand below this one. ``effects`` is the metric whose
    differences from the baseline a figure shows, in all of them.
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
    further: "Sequence[Table]" = ()
    effects: str | None = None


@dataclass(frozen=True)
class Point:
    """A completed run with its row's label and its condition: all else that varies, except the seed.

    ``config`` is the record's, by dotted key; ``names`` are shown in place of digests in it. ``setting`` is the setting
    tried for its row, by dotted key; it is empty if only one was tried. ``chosen`` says whether the table shows that
    setting.
    """

    record: Mapping[str, Any]
    config: Mapping[str, Any]
    row: str
    condition: str
    comparable: bool  # in raw measures, with the baseline's row
    setting: Mapping[str, Any]
    chosen: bool
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """A claim and the verdict on it.

    ``rule`` says in words what decides it, ``finding`` why the verdict is ``status``. ``supports`` and ``contradicts``
    are corrected p values, None for an exact claim; ``statistic`` with its ``interval`` is the measured effect over
    ``n`` seeds or configurations. ``missing`` names the missing runs, ``unknown`` those without a number. ``measured``
    is what of the finding is measured.
    """

    claim: str
    status: str
    statement: str
    source: str
    rule: str
    finding: str
    n: int
    supports: float | None
    contradicts: float | None
    statistic: float | None
    interval: tuple[float, float] | None
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    measured: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The verdicts on the claims of an experiment, in the order of its file; without rows, the caption says why.

    ``sets`` are those of its sentences that say what the named sets of runs are.
    """

    rows: Sequence[VerdictRow]
    caption: Sequence[str]
    sets: Sequence[str] = ()
