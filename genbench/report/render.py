"""One table as Markdown, LaTeX, CSV and terminal text. HTML is a template of its own (html.py)."""

import csv
import io
import itertools
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genbench.report.format import decimals, letter, number
from genbench.report.model import Cell, Column, Table

if TYPE_CHECKING:
    from rich.console import Group

_ARROWS = {"max": " ↑", "min": " ↓", None: ""}
_PADDING = 2  # blanks between two columns of the terminal's table
_PAGE = 118  # characters across a LaTeX page, as a guide to where columns are stacked


@dataclass(frozen=True)
class Text:
    """The parts of a cell as text: ``mean ± half`` ``mark`` and, small, ``status``; ``notes`` are footnote letters."""

    mean: str
    half: str
    mark: str
    status: str
    notes: list[str]
    published: str | None
    best: bool


def texts(table: Table) -> list[list[Text]]:
    """Every cell's text, rows × columns."""
    return [
        [_text(cell, digits) for cell, digits in zip(line, places, strict=True)]
        for line, places in zip(table.cells, decimals(table), strict=True)
    ]


def heading(column: Column) -> str:
    """A column's label with an arrow to its best."""
    return column.label + _ARROWS[column.best]


def spans(table: Table) -> list[tuple[str, int]]:
    """Neighbouring columns of one group, as (group, how many)."""
    result: list[tuple[str, int]] = []
    for column in table.columns:
        if result and column.group and result[-1][0] == column.group:
            result[-1] = (column.group, result[-1][1] + 1)
        else:
            result.append((column.group, 1))
    return result


def markdown(table: Table) -> str:
    """A GitHub-flavoured Markdown table with its caption and notes."""

    def cell(text: Text) -> str:
        value = " ± ".join(filter(None, (text.mean, text.half)))
        value = f"**{value}**" if text.best else value
        value += text.mark.replace("*", "\\*")
        value = " ".join(filter(None, (value, text.status and f"<sub>{_md(text.status)}</sub>")))
        value += f"<sup>{','.join(text.notes)}</sup>" if text.notes else ""
        return value + (f" [{_md(text.published)}]" if text.published else "")

    body = texts(table)
    head = [_md(table.header), *(_md(f"{c.group}: {heading(c)}" if c.group else heading(c)) for c in table.columns)]
    lines = [
        f"### {_md(table.title)}",
        "",
        "| " + " | ".join(head) + " |",
        "|:--" + "|--:" * len(table.columns) + "|",
    ]
    for row, line in zip(table.rows, body, strict=True):
        marks = f"<sup>{','.join(map(letter, row.notes))}</sup>" if row.notes else ""
        lines.append("| " + " | ".join([_md(row.title) + marks, *map(cell, line)]) + " |")
    lines += ["", " ".join(_md(sentence) for sentence in table.caption)]
    if table.notes:
        notes = "; ".join(f"<sup>{letter(index)}</sup> {_md(note)}" for index, note in enumerate(table.notes))
        lines += ["", notes + "."]
    if table.problems:
        lines += ["", "Left out:", "", *(f"- {_md(problem)}" for problem in table.problems)]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """A booktabs ``table`` environment for ``\\input``: tabulars stacked by groups of columns as a page is wide."""
    body = texts(table)
    first = max(len(text) for text in [table.header, *(row.title for row in table.rows)])
    widths = [
        max(len(heading(column)), *(len(text.mean + text.half) + 3 for text in line)) + _PADDING
        for column, line in zip(table.columns, zip(*body, strict=True), strict=True)
    ]
    lines = [
        "% needs \\usepackage{booktabs,graphicx} and, for pdflatex, \\usepackage[T1]{fontenc}",
        "\\begin{table}[tbp]",
        "\\centering\\small",
        f"\\caption{{{_tex(table.title)}}}",
    ]
    for indices in _stack(table, widths, _PAGE - first - _PADDING):
        lines += ["", "\\medskip", *_tabular(table, body, indices)]
    below = [" ".join(map(_tex, table.caption))]
    below += [f"\\textsuperscript{{{letter(index)}}}\\,{_tex(note)}." for index, note in enumerate(table.notes)]
    if table.problems:
        below.append("Left out: " + "; ".join(map(_tex, table.problems)) + ".")
    lines += ["", "\\smallskip", f"\\parbox{{\\linewidth}}{{\\footnotesize {' '.join(below)}}}"]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _tabular(table: Table, body: Sequence[Sequence[Text]], indices: Sequence[int]) -> list[str]:
    """Some columns as a tabular that shrinks to the line's width where it is wider."""

    def cell(text: Text) -> str:
        value = _tex(text.mean) + (f"\\,{{\\scriptsize$\\pm$\\,{_tex(text.half)}}}" if text.half else "")
        value = f"\\textbf{{{value}}}" if text.best else value
        value += "" if text.mean else _tex(text.status)
        small = [_tex(text.status)] if text.mean and text.status else []
        raised = {"": "", "*": "*", "†": "$\\dagger$"}[text.mark] + ",".join([*text.notes, *small])
        raised = f"\\textsuperscript{{{raised}}}" if raised else ""
        # a mark alone hangs over, so that numbers stay under one another
        value += f"\\rlap{{{raised}}}" if text.mark and not (text.notes or small or text.published) else raised
        return value + (f" [{_tex(text.published)}]" if text.published else "")

    groups, rules, start = [], [], 2
    for group, members in itertools.groupby(indices, key=lambda index: table.columns[index].group):
        width = len(list(members))
        groups.append(f"\\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}" if group else "")
        start += width
    lines = [
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        "\\begin{tabular}{@{}l" + "r" * len(indices) + "@{}}",
        "\\toprule",
    ]
    if any(rules):
        lines += [" & ".join(["", *groups]) + r" \\", "".join(rules)]
    head = [_tex(table.header), *(_tex(heading(table.columns[index])) for index in indices)]
    lines += [" & ".join(head) + r" \\", "\\midrule"]
    for row, line in zip(table.rows, body, strict=True):
        marks = f"\\textsuperscript{{{','.join(map(letter, row.notes))}}}" if row.notes else ""
        lines.append(" & ".join([_tex(row.title) + marks, *(cell(line[index]) for index in indices)]) + r" \\")
    return [*lines, "\\bottomrule", "\\end{tabular}}"]


def comma_separated(table: Table) -> str:
    """One line a cell, in full precision and the column's unit; what is undefined is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["row", "chosen", "column", "metric", "where", "mean", "low", "high", "n", "planned", "difference",
         "difference_low", "difference_high", "p", "p_holm", "comparable", "best", "status", "published", "notes"]
    )  # fmt: skip
    for row, line in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, line, strict=True):
            mean, difference = cell.mean, cell.difference
            writer.writerow(
                [
                    row.label,
                    row.chosen,
                    column.title,
                    column.metric,
                    " ".join(f"{key}={value}" for key, value in column.where.items()),
                    *((mean.value, mean.low, mean.high, mean.n) if mean else (None, None, None, 0)),
                    cell.planned,
                    *((difference.value, difference.low, difference.high, difference.p) if difference else [None] * 4),
                    cell.p,
                    str(cell.comparable).lower(),
                    str(cell.best).lower(),
                    cell.status or "complete",
                    cell.published,
                    "; ".join(table.notes[index] for index in (*row.notes, *cell.notes)),
                ]
            )
    return buffer.getvalue()


def terminal(table: Table, width: int) -> "Group":
    """A rich renderable at most ``width`` wide: tables stacked by groups of columns where one would be wider."""
    from rich.box import Box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    # a rule below the head, nothing around: rich's own leave empty lines
    frame = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    body = texts(table)
    cells = [_aligned([line[index] for line in body]) for index in range(len(table.columns))]
    labels = [row.title + "".join(f" {_superscript(row.notes)}" for _ in row.notes[:1]) for row in table.rows]
    first = max(map(len, [*labels, table.header]))
    widths = [
        max(*(len(part) for cell in column for part in cell.split("\n")), *map(len, heading(spec).split()))
        for spec, column in zip(table.columns, cells, strict=True)
    ]
    parts: list[Any] = [RichText(table.title, style="bold")]
    for indices in _stack(table, [item + _PADDING for item in widths], width - first - _PADDING):
        rich = RichTable(box=frame, show_edge=False, pad_edge=False, padding=(0, _PADDING - 1, 0, 0), header_style="")
        heads = [textwrap.wrap(heading(table.columns[index]), widths[index]) for index in indices]
        tallest = max(map(len, heads))
        corner = RichText("\n" * (tallest - 1) + table.header, style="bold")
        rich.add_column(corner, no_wrap=True, min_width=first)
        for index, lines in zip(indices, heads, strict=True):  # rich has one vertical alignment for head and cells
            padded = [line.rjust(widths[index]) for line in lines]
            title = RichText("\n" * (tallest - len(lines)) + "\n".join(padded), style="bold")
            rich.add_column(title, no_wrap=True, min_width=widths[index])
        if over := _over(table, indices, widths):
            parts += [RichText(" " * (first + _PADDING) + line, style="bold") for line in over]
        for row, label in enumerate(labels):  # padded here: rich strips the blanks that keep decimal points aligned
            line = []
            for index in indices:
                padded = [part.rjust(widths[index]) for part in cells[index][row].split("\n")]
                text = RichText("\n".join(padded), style="bold green" if body[row][index].best else "")
                if not body[row][index].mean or body[row][index].status:
                    text.highlight_regex(r"(?m)^ *[^\d− ].*$", "yellow")
                line.append(text)
            rich.add_row(RichText(label), *line)
        parts += [rich, RichText("")]
    measure = min(width, 110)
    parts += [RichText(line, style="dim") for sentence in table.caption for line in textwrap.wrap(sentence, measure)]
    parts += [RichText(f"{_superscript([index])} {note}", style="yellow") for index, note in enumerate(table.notes)]
    if table.problems:
        parts += [
            RichText("Left out:", style="yellow"),
            *(RichText(f"  {item}", style="yellow") for item in table.problems),
        ]
    return Group(*parts)


def _text(cell: Cell, digits: int | None) -> Text:
    mean = cell.mean
    return Text(
        mean=number(mean.value, digits) if mean else "",
        half=half(mean.half_width, digits) if mean and mean.half_width is not None else "",
        mark="†" if not cell.comparable else "*" if cell.significant else "",
        status=cell.status,
        notes=[letter(index) for index in cell.notes],
        published=cell.published,
        best=cell.best,
    )


def half(value: float, digits: int | None) -> str:
    """A half-width with its mean's decimals, be it 0.0: more would claim a precision that the mean does not show."""
    return number(value, None) if digits is None else f"{value:.{digits}f}"


def _aligned(column: Sequence[Text]) -> list[str]:
    """A column's cells with points, ± and marks under one another; a hole's reason goes on a second line."""
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
            lines.append(f"[{text.published}]" + " " * tail)
        result.append("\n".join(lines))
    return result


def _over(table: Table, indices: Sequence[int], widths: Sequence[int]) -> list[str]:
    """Two lines that head groups of columns: their names, and a rule below each."""
    names, rules = "", ""
    for group, members in itertools.groupby(indices, key=lambda index: table.columns[index].group):
        taken = [widths[index] for index in members]
        width = sum(taken) + _PADDING * (len(taken) - 1)
        names += textwrap.shorten(group, width, placeholder="…").center(width) + " " * _PADDING
        rules += ("─" * width if group else " " * width) + " " * _PADDING
    return [names.rstrip(), rules.rstrip()] if names.strip() else []


def _stack(table: Table, widths: Sequence[int], available: int) -> list[list[int]]:
    """Columns in as few tables as fit, breaking between groups where possible, as even as possible."""
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
        stacked for limit in range(narrowest, available + narrowest + 1) if len(stacked := pack(limit)) <= fewest
    )


def _superscript(notes: Sequence[int]) -> str:
    return _superscript_text([letter(index) for index in notes])


def _superscript_text(letters: Sequence[str]) -> str:
    raised = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
    return "".join(letters).translate(raised)


def _md(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "−": r"$-$", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$",
    "ℓ": r"$\ell$", "‖": r"$\|$", "√": r"$\surd$", "·": r"$\cdot$", "–": "--", "—": "---", "…": r"\ldots{}",
    "“": "``", "”": "''", "‘": "`", "’": "'",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(map(_tex_character, text))


def _tex_character(char: str) -> str:
    if char in _TEX:
        return _TEX[char]
    if char.isascii():
        return char
    name = unicodedata.name(char, "")
    if found := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|"
                             r"LAMDA|MU|NU|XI|PI|RHO|SIGMA|TAU|PHI|CHI|PSI|OMEGA)", name):  # fmt: skip
        greek = found[2].lower().replace("lamda", "lambda")
        if found[1] == "SMALL":
            return f"$\\{greek}$"
        if greek in ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega"):
            return f"$\\{greek.capitalize()}$"
    plain = unicodedata.normalize("NFKC", char)
    if name.startswith(("SUBSCRIPT", "SUPERSCRIPT")) and plain.isascii():
        return f"$_{{{plain}}}$" if name.startswith("SUB") else f"$^{{{plain}}}$"
    if name.startswith("LATIN") and ord(char) < 0x180:  # what T1 fonts hold
        return char
    return f"[U+{ord(char):04X}]"
