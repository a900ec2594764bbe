"""Tables and verdicts as Markdown and CSV, and the parts that all formats share; see also latex, terminal and html."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.report.format import decimals, half, letter, number
from genbench.report.model import Cell, Column, Table, VerdictRow, Verdicts

_ARROWS = {"max": " ↑", "min": " ↓", None: ""}
PADDING = 2  # blanks between two columns


@dataclass(frozen=True)
class Text:
    """The text of a cell: ``mean ± half``, ``mark`` and ``status``; ``notes`` are footnote letters. ``published`` is
    the published value and the difference from it; ``source`` cites it."""

    mean: str
    half: str
    mark: str
    status: str
    notes: list[str]
    published: str
    source: str
    best: bool


def texts(table: Table) -> list[list[Text]]:
    """Return the text of every cell, rows × columns."""
    return [
        [_text(cell, column, digits) for cell, column, digits in zip(line, table.columns, places, strict=True)]
        for line, places in zip(table.cells, decimals(table), strict=True)
    ]


def heading(column: Column) -> str:
    """Return a column's label with an arrow: ↑ if higher is better, ↓ if lower is."""
    return column.label + _ARROWS[column.best]


def spans(table: Table) -> list[tuple[str, int]]:
    """Return the groups of neighbouring columns as (group, number of columns)."""
    result: list[tuple[str, int]] = []
    for column in table.columns:
        if result and column.group and result[-1][0] == column.group:
            result[-1] = (column.group, result[-1][1] + 1)
        else:
            result.append((column.group, 1))
    return result


def markdown(table: Table) -> str:
    """Return a GitHub-flavoured Markdown table with its caption and notes, and the further ones."""

    def cell(text: Text) -> str:
        value = " ± ".join(filter(None, (text.mean, text.half)))
        value = f"**{value}**" if text.best else value
        value += text.mark.replace("*", "\\*")
        value = " ".join(filter(None, (value, text.status and f"<sub>{escaped(text.status)}</sub>")))
        value += f"<sup>{','.join(text.notes)}</sup>" if text.notes else ""
        return " ".join(filter(None, (value, text.published and f"[{escaped(text.published)}]")))

    body = texts(table)
    head = [
        escaped(table.header),
        *(escaped(f"{c.group}: {heading(c)}" if c.group else heading(c)) for c in table.columns),
    ]
    lines = [
        f"### {escaped(table.title)}",
        "",
        "| " + " | ".join(head) + " |",
        "|:--" + "|--:" * len(table.columns) + "|",
    ]
    for row, line in zip(table.rows, body, strict=True):
        marks = f"<sup>{','.join(map(letter, row.notes))}</sup>" if row.notes else ""
        lines.append("| " + " | ".join([escaped(row.title) + marks, *map(cell, line)]) + " |")
    lines += ["", " ".join(escaped(sentence) for sentence in table.caption)]
    if table.notes:
        notes = "; ".join(f"<sup>{letter(index)}</sup> {escaped(note)}" for index, note in enumerate(table.notes))
        lines += ["", notes + "."]
    if table.problems:
        lines += ["", "Left out:", "", *(f"- {escaped(problem)}" for problem in table.problems)]
    return "\n".join([*lines, *(f"\n{markdown(each)[:-1]}" for each in table.further)]) + "\n"


_HEADER = [
    "row", "chosen", "column", "metric", "where", "mean", "low", "high", "n", "planned", "difference",
    "difference_low", "difference_high", "p", "p_holm", "comparable", "best", "status", "published", "source", "notes",
    "caption",
]  # fmt: skip


def is_table(content: bytes) -> bool:
    """Whether the content of a CSV file is a table of genbench's."""
    return content.startswith(",".join(_HEADER[:16]).encode())


def _place(column: Column) -> str:
    """Return the settings of a column's runs, and those of the runs that it subtracts."""
    places = (" ".join(f"{key}={value}" for key, value in where.items()) for where in (column.where, column.minus))
    return " minus ".join(place for place in places if place)


def comma_separated(table: Table) -> str:
    """Return a CSV with one line per cell, in full precision and the column's unit; undefined values are empty.

    The field "caption" of the first line of each table holds the title, the caption and what was left out: a comment
    line would not be read by every CSV reader.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(_HEADER)
    for each in (table, *table.further):
        _write_cells(buffer, each)
    return buffer.getvalue()


def _write_cells(buffer: io.StringIO, table: Table) -> None:
    caption = [f"{table.title}.", *table.caption]
    caption += [f"Left out: {'; '.join(table.problems)}."] if table.problems else []
    writer = csv.writer(buffer, lineterminator="\n")
    for row, line in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, line, strict=True):
            mean, difference = cell.mean, cell.difference
            writer.writerow(
                [
                    unspoken(row.label),
                    unspoken(row.chosen),
                    unspoken(column.title),
                    unspoken(column.metric),
                    unspoken(_place(column)),
                    *((mean.value, mean.low, mean.high, mean.n) if mean else (None, None, None, 0)),
                    cell.planned,
                    *((difference.value, difference.low, difference.high, difference.p) if difference else [None] * 4),
                    cell.p,
                    str(cell.comparable).lower(),
                    str(cell.best).lower(),
                    unspoken(cell.status or "complete"),
                    unspoken(cell.published.text if cell.published else ""),
                    unspoken(cell.published.cited if cell.published else ""),
                    unspoken("; ".join(table.notes[index] for index in (*row.notes, *cell.notes))),
                    unspoken(" ".join(caption)),
                ]
            )
            caption = []


VERDICT_HEAD = ("claim", "verdict", "n", "p for", "p against", "95 % interval")


def p_value(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def verdict_numbers(row: VerdictRow) -> list[str]:
    """Return what stands under :data:`VERDICT_HEAD`."""
    ps = map(p_value, (row.supports, row.contradicts))
    interval = "–" if row.interval is None else "[{:.4g}, {:.4g}]".format(*row.interval)
    return [row.claim, row.status, str(row.n), *ps, interval]


def numbered(row: VerdictRow) -> tuple[list[str], str]:
    """Return the parts of a rule, with a number each if they are several and then what is said of all, and the finding
    with the numbers in place of the parts, which it repeats in their order."""
    rule, every = _EVERY.split(row.rule) if len(_EVERY.findall(row.rule)) == 1 else (row.rule, "")
    if every.endswith("]"):  # of some parts
        rule, every = row.rule, ""
    parts = re.split(r"; (?=and |or )", rule)
    if len(parts) == 1:
        return parts, row.finding
    finding, place = row.finding, 0
    for index, part in enumerate(parts, 1):
        words = _EVERY.split(re.sub(r"^(and |or )?\[*", "", part))[0]
        own = f"{words if f'{words}: ' in finding else words.rstrip(']')}: "
        if (found := finding.find(own, place)) >= 0:
            finding, place = f"{finding[:found]}({index}) {finding[found + len(own) :]}", found
    told = [f"({index}) {part}" for index, part in enumerate(parts, 1)]
    return [*told, f"each over {every}"] if every else told, finding


def paired(row: VerdictRow) -> tuple[list[str], str]:
    """Return the parts of a rule, each with what is measured of it if they are several, and the rest of the finding."""
    parts, finding = numbered(row)
    _, measured = numbered(replace(row, finding=row.measured))
    found = re.split(r"; (?=\[*\(\d+\) )", measured)
    every = [part for part in parts if not part.startswith("(")]
    if len(parts) == 1 or len(found) != len(parts) - len(every) or not finding.startswith(measured):
        return parts, finding
    values = [_unbracketed(each).partition(" ")[2] for each in found]
    told = [f"{part}: {value}" for part, value in zip(parts, values, strict=False)]
    return [*told, *every], finding.removeprefix(measured).lstrip(" :;,")


_EVERY = re.compile(r"; each over ")


def _unbracketed(text: str) -> str:
    """A part of a finding without the brackets around several.

    >>> _unbracketed("[[(1) 0.5 [0.4, 0.6]"), _unbracketed("(2) 0.5 [0.4, 0.6]]]")
    ('(1) 0.5 [0.4, 0.6]', '(2) 0.5 [0.4, 0.6]')
    """
    text = text.lstrip("[")
    while text.endswith("]") and text.count("]") > text.count("["):
        text = text[:-1]
    return text


def verdict_sentences(row: VerdictRow) -> list[str]:
    """Return the statement, the rule, the finding and the source as sentences."""
    rule, finding = numbered(row)
    parts = (
        row.statement,
        f"Rule: {'; '.join(rule)}",
        f"Finding: {finding}",
        f"Source: {row.source}" * bool(row.source),
    )
    return [f"{part.removesuffix('.')}." for part in parts if part]


def verdicts_markdown(verdicts: Verdicts) -> str:
    """Return verdicts as a GitHub-flavoured Markdown table of numbers, and a list of what was claimed and found."""
    lines = ["#### Claims", ""]
    if verdicts.rows:
        lines += ["| " + " | ".join(VERDICT_HEAD) + " |", "|:--|:--" + "|--:" * (len(VERDICT_HEAD) - 2) + "|"]
        lines += ["| " + " | ".join(map(escaped, verdict_numbers(row))) + " |" for row in verdicts.rows]
        told = ((row.claim, " ".join(verdict_sentences(row))) for row in verdicts.rows)
        lines += ["", *(f"- **{escaped(claim)}**: {escaped(text)}" for claim, text in told), ""]
    return "\n".join([*lines, escaped(" ".join(verdicts.caption))]) + "\n"


_CLAIMS_HEADER = [
    "claim", "verdict", "statement", "source", "rule", "finding", "n", "p_for", "p_against", "statistic", "low", "high",
    "missing", "without_number", "caption",
]  # fmt: skip


def is_claims(content: bytes) -> bool:
    """Whether the content of a CSV file is that of :func:`verdicts_csv`."""
    return content.startswith(",".join(_CLAIMS_HEADER).encode())


def verdicts_csv(verdicts: Verdicts) -> str:
    """Return a CSV with one line per claim, in full precision; the caption stands in the first line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CLAIMS_HEADER)
    caption = list(verdicts.caption)
    for row in verdicts.rows:
        texts = (row.claim, row.status, row.statement, row.source, row.rule, row.finding)
        numbers = (row.n, row.supports, row.contradicts, row.statistic, *(row.interval or (None, None)))
        lists = ("; ".join(row.missing), "; ".join(row.unknown), " ".join(caption))
        writer.writerow([*map(unspoken, texts), *numbers, *map(unspoken, lists)])
        caption = []
    return buffer.getvalue()


def unspoken(text: str) -> str:
    """Quote text that a spreadsheet would read as a formula; numbers stay numbers.

    >>> unspoken("=1+1"), unspoken("-0.5"), unspoken("-a"), unspoken("l2")
    ("'=1+1", '-0.5', "'-a", 'l2')
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    return text if re.fullmatch(r"[+-]\d+(\.\d*)?(e[+-]?\d+)?", text, re.IGNORECASE) else f"'{text}"


def _text(cell: Cell, column: Column, digits: int | None) -> Text:
    mean, published = cell.mean, ""
    if cell.published is not None:
        published = cell.published.text
        if column.same_scale and mean and (value := cell.published.value) is not None:
            published += f", Δ {'+' * (mean.value > value)}{number(mean.value - value, digits)}"
    return Text(
        mean=number(mean.value, digits) if mean else "",
        half=half(mean.half_width, digits) if mean and mean.half_width is not None else "",
        mark="†" if not cell.comparable else "*" if cell.significant else "",
        status=cell.status,
        notes=[letter(index) for index in cell.notes],
        published=published,
        source=cell.published.cited if cell.published else "",
        best=cell.best,
    )


def stack_columns(table: Table, widths: Sequence[int], available: int) -> list[list[int]]:
    """Split columns into as few tables as fit the width, evenly, and between groups where possible."""
    blocks: list[list[int]] = []
    start = 0
    for _, count in spans(table):
        block = list(range(start, start + count))
        start += count
        if sum(widths[index] for index in block) > available:
            blocks += [[index] for index in block]
        else:
            blocks.append(block)

    def pack(limit: int) -> list[list[int]]:
        stacked: list[list[int]] = []
        for block in blocks:
            joined = [*(stacked[-1] if stacked else []), *block]
            if stacked and sum(widths[index] for index in joined) <= limit:
                stacked[-1] = joined
            else:
                stacked.append(list(block))
        return stacked

    fewest = len(pack(available))
    narrowest = max(sum(widths[index] for index in block) for block in blocks)
    return next(
        stacked for limit in range(narrowest, max(available, narrowest) + 1) if len(stacked := pack(limit)) <= fewest
    )


def escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)
