"""How many seeds would show the differences of a table from its baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.checks import check_number
from genbench.claims.family import MOST_SEEDS, seeds_needed, smallest_effect
from genbench.claims.verdict import Evidence, MeanTest
from genbench.report.format import decimals, half, listed, number
from genbench.report.model import SIGNIFICANCE, Cell, Column, Table

if TYPE_CHECKING:
    from rich.console import Group

_POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class RowPower:
    """The difference of a row from the baseline in one column.

    ``shown`` is the smallest difference that its ``n`` seeds show, and ``seeds`` are those that would show the effect,
    each with a probability of 80 %; None: more than 200. ``reason`` says why there are no such numbers.
    """

    row: str
    cell: Cell
    n: int
    shown: float | None
    seeds: int | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnPower:
    """The rows of a column, whose number of ``comparisons`` Holm's correction counts; ``digits`` are their decimals."""

    column: Column
    comparisons: int
    rows: Sequence[RowPower]
    digits: Sequence[int | None]


def power(table: Table, effect: float | None = None) -> list[ColumnPower]:
    """Return for each column how many seeds would show the differences from the baseline.

    By noncentral t, at the two-sided level 0.05 divided by the number of comparisons in the column (the first step of
    Holm's correction), with the upper 80 % bound of the spread of the paired differences; see
    :func:`genbench.claims.family.seeds_needed`.

    Args:
        table: with a baseline.
        effect: the difference to show, in the column's unit; None: the measured one.

    Raises:
        ValueError: there is no baseline, no column with a comparison, or not one column that the effect is of.
    """
    if effect is not None:
        check_number("--effect", effect, low=0, open_low=True)
    if table.baseline is None:
        labels = [row.label for row in table.rows]
        raise ValueError(f"--power compares rows with a baseline; accepted: --baseline with one of {', '.join(labels)}")
    places = decimals(table)
    found = []
    for index, column in enumerate(table.columns):
        cells = [line[index] for line in table.cells]
        comparisons = sum(cell.difference is not None and cell.difference.n > 1 for cell in cells)
        if comparisons:
            rows = [
                (_row(table.rows[i].label, cell, cells[table.baseline], comparisons, effect), places[i][index])
                for i, cell in enumerate(cells)
                if i != table.baseline
            ]
            found.append(
                ColumnPower(
                    column=column,
                    comparisons=comparisons,
                    rows=[row for row, _ in rows],
                    digits=[digits for _, digits in rows],
                )
            )
    if not found:
        raise ValueError("no row has two seeds in common with the baseline; accepted: a table of more seeds")
    if effect is not None and len(found) > 1:
        labels = [each.column.label for each in found]
        raise ValueError(f"--effect is in the unit of one column; accepted: --columns with one of {', '.join(labels)}")
    return found


def renderable(table: Table, found: Sequence[ColumnPower], effect: float | None = None) -> "Group":
    """Return :func:`power` for a terminal."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    assert table.baseline is not None
    baseline = table.rows[table.baseline].label
    parts: list[Any] = [Text(f"{table.title}: seeds that show a difference from {baseline}", style="bold")]
    widest = max(len(row.label) for row in table.rows)
    for each in found:
        family = f"{each.comparisons} comparison{'s' * (each.comparisons != 1)}"
        parts += [Text(""), Text(f"{each.column.title} ({family})", style="bold")]
        rich = RichTable(box=None, padding=(0, 2, 0, 2), pad_edge=False, header_style="")
        rich.add_column(table.header, overflow="fold", min_width=min(widest, 20))
        goal = "this difference" if effect is None else f"a difference of {effect:g}"
        for name in ("difference", "n", "smallest that n shows", f"seeds for {goal}"):
            rich.add_column(name, justify="right")
        for row, digits in zip(each.rows, each.digits, strict=True):
            rich.add_row(Text(row.row), *_cells(row, digits))
        parts.append(rich)
    parts += [Text(""), *(Text(sentence, style="dim") for sentence in _caption(table, found, effect))]
    return Group(*parts)


def _row(label: str, cell: Cell, baseline: Cell, comparisons: int, effect: float | None) -> RowPower:
    difference = cell.difference
    if difference is None or difference.half_width is None:
        reason = "not comparable" if not cell.comparable else cell.status or "no two seeds in common with the baseline"
        return RowPower(row=label, cell=cell, n=0 if difference is None else 1, shown=None, seeds=None, reason=reason)
    pairs = [cell.values[seed] - baseline.values[seed] for seed in cell.values if seed in baseline.values]
    spread = float(np.std(pairs, ddof=1)) if difference.half_width else 0.0  # no more than rounding otherwise
    level = SIGNIFICANCE / 2 / comparisons
    distance = abs(difference.value) if effect is None else effect
    test = MeanTest(distance, spread, difference.n)
    evidence = Evidence(supports=None, contradicts=None, n=difference.n, words="", tests=(test,))
    return RowPower(
        row=label,
        cell=cell,
        n=difference.n,
        shown=smallest_effect(spread, difference.n, level=level, power=_POWER),
        seeds=seeds_needed(evidence, level=level, power=_POWER) if distance else None,
        reason="" if spread else "equal in every seed",
    )


def _cells(row: RowPower, digits: int | None) -> list[str]:
    difference = row.cell.difference
    if row.shown is None or difference is None or difference.half_width is None:
        return [row.reason, str(row.n), "–", "–"]
    sign = "+" if difference.value > 0 else ""
    text = f"{sign}{number(difference.value, digits)} ± {half(difference.half_width, digits)}"
    text += "*" if row.cell.significant else " "
    if row.reason:
        return [text, str(row.n), row.reason, "–"]
    seeds = f"more than {MOST_SEEDS}" if row.seeds is None else str(row.seeds)
    return [text, str(row.n), number(row.shown, digits), seeds]


def _caption(table: Table, found: Sequence[ColumnPower], effect: float | None) -> list[str]:
    shown = {each.column.title for each in found}
    others = [column.title for column in table.columns if column.title not in shown]
    sentences = [
        f"Each with a probability of {100 * _POWER:.0f} %: paired by seed, t test, p < {SIGNIFICANCE} after Holm's "
        "correction within the column, with the upper 80 % bound of the spread of the differences.",
        "*: the seeds at hand show it.",
    ]
    if effect is None:
        sentences.append(
            "The measured difference is itself uncertain: plan for the smallest one that matters, --effect."
        )
    if others:
        sentences.append(f"Without a comparison: {listed(others)}.")
    return sentences
