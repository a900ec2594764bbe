"""A table in the terminal, by rich."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genbench.report.format import letter, wrapped
from genbench.report.model import Table
from genbench.report.render import PADDING, Text, heading, spans, stack_columns, texts

if TYPE_CHECKING:
    from rich.console import Group

# a rule below the header and no frame: rich's own boxes leave empty lines
FRAME = "    \n    \n ── \n    \n    \n    \n    \n    \n"
_NARROW = 12  # minimum width, in characters, of a label and of a number


def renderable(table: Table, width: int) -> "Group":
    """Return a rich renderable at most ``width`` wide; groups of columns that do not fit are stacked."""
    from rich.box import Box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    frame = Box(FRAME)
    body = texts(table)
    labels = [row.title + "".join(f" {_superscript(row.notes)}" for _ in row.notes[:1]) for row in table.rows]
    most = max(_NARROW, 2 * width // 5)
    first = min(most, max(map(len, [*labels, table.header])))
    available = max(_NARROW, width - first - PADDING)
    cells = [_aligned([line[index] for line in body], available) for index in range(len(table.columns))]
    widths = [
        min(available, max(*(len(part) for cell in column for part in cell.split("\n")), _longest(heading(spec))))
        for spec, column in zip(table.columns, cells, strict=True)
    ]
    start = 0
    for group, count in spans(table):  # columns are as wide as the longest word of their group's heading
        over = sum(widths[start : start + count]) + PADDING * (count - 1)
        widths[start] += max(0, min(available, _longest(group)) - over)
        start += count
    parts: list[Any] = [RichText(table.title, style="bold")]
    for indices in stack_columns(table, [item + PADDING for item in widths], available + PADDING):
        rich = RichTable(box=frame, show_edge=False, pad_edge=False, padding=(0, PADDING - 1, 0, 0), header_style="")
        heads = [wrapped(heading(table.columns[index]), widths[index]) for index in indices]
        corner_lines = wrapped(table.header, first)
        tallest = max(len(corner_lines), *map(len, heads))
        corner = RichText("\n" * (tallest - len(corner_lines)) + "\n".join(corner_lines), style="bold")
        rich.add_column(corner, no_wrap=True, min_width=first)
        for index, lines in zip(indices, heads, strict=True):  # rich aligns header and cells alike
            padded = [line.rjust(widths[index]) for line in lines]
            title = RichText("\n" * (tallest - len(lines)) + "\n".join(padded), style="bold")
            rich.add_column(title, no_wrap=True, min_width=widths[index])
        parts += [RichText(" " * (first + PADDING) + line, style="bold") for line in _over(table, indices, widths)]
        for row, label in enumerate(labels):  # pad here: rich strips the blanks that align decimal points
            line = []
            for index in indices:
                padded = [part.rjust(widths[index]) for part in cells[index][row].split("\n")]
                text = RichText("\n".join(padded), style="bold green" if body[row][index].best else "")
                if not body[row][index].mean or body[row][index].status:
                    text.highlight_regex(r"(?m)^ *[^\d− ].*$", "yellow")
                line.append(text)
            rich.add_row(RichText("\n".join(wrapped(label, first))), *line)
        parts += [rich, RichText("")]
    measure = min(width, 110)
    parts += [RichText(line, style="dim") for sentence in table.caption for line in textwrap.wrap(sentence, measure)]
    parts += [RichText(f"{_superscript([index])} {note}", style="yellow") for index, note in enumerate(table.notes)]
    if table.problems:
        parts += [
            RichText("Left out:", style="yellow"),
            *(RichText(f"  {item}", style="yellow") for item in table.problems),
        ]
    for each in table.further:
        parts += [RichText(""), renderable(each, width)]
    return Group(*parts)


def _longest(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _aligned(column: Sequence[Text], width: int) -> list[str]:
    """Align the points, ± and marks of a column's cells; a status stands on a line of its own."""
    means = max((len(text.mean) for text in column), default=0)
    halves = max((len(text.half) for text in column), default=0)
    tails = [text.mark + _superscript_text(text.notes) for text in column]
    tail = max(map(len, tails), default=0)
    result = []
    for text, mark in zip(column, tails, strict=True):
        half = f" ±{text.half:>{halves}}" if text.half else " " * (halves + 2 if halves else 0)
        lines = [f"{text.mean:>{means}}{half}{mark:<{tail}}"] if text.mean else []
        if text.status:
            lines.append(text.status + (" " * tail if text.mean else f"{_superscript_text(text.notes):<{tail}}"))
        if text.published:
            lines += [part + " " * tail for part in wrapped(f"[{text.published}]", width - tail)]
        result.append("\n".join(lines))
    return result


def _over(table: Table, indices: Sequence[int], widths: Sequence[int]) -> list[str]:
    """Return the lines above the header: the names of column groups, and a rule below each."""
    found = []
    for group, members in itertools.groupby(indices, key=lambda index: table.columns[index].group):
        taken = [widths[index] for index in members]
        found.append((group, sum(taken) + PADDING * (len(taken) - 1)))
    names = [wrapped(group, width) for group, width in found]
    tallest = max(map(len, names))
    lines = [
        (" " * PADDING).join(
            ([""] * (tallest - len(name)) + name)[number].center(width)
            for name, (_, width) in zip(names, found, strict=True)
        )
        for number in range(tallest)
    ]
    rules = (" " * PADDING).join(("─" if group else " ") * width for group, width in found)
    return [line.rstrip() for line in (*lines, rules)] if rules.strip() else []


def _superscript(notes: Sequence[int]) -> str:
    return _superscript_text([letter(index) for index in notes])


def _superscript_text(letters: Sequence[str]) -> str:
    raised = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
    return "".join(letters).translate(raised)
