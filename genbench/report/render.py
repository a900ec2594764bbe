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
_NARROW = 12  # columns of a terminal that a label and a number take at least
_PADDING = 2  # blanks between two columns of the terminal's table
_PAGE = 100  # characters across a LaTeX page, as a guide to where columns are stacked
_LINES, _HEAD = 42, 5  # lines of a page, and what the head of a tabular takes of them
_LABEL = 40  # characters of a row's label in a line
_PIECE = re.compile(r"[^\s+/,_:.=-]*[\s+/,_:.=-]*")  # of a label that may be broken after it


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
    """Booktabs ``table`` environments for ``\\input``: columns stacked by groups as a page is wide, as many floats as
    a page is high, caption and notes below the last one or, where they are too long for it, after it."""
    body = texts(table)
    first = min(_LABEL, max(len(text) for text in [table.header, *(row.title for row in table.rows)]))
    widths = [
        max(len(heading(column)), *(len(text.mean + text.half) + 3 for text in line)) + _PADDING
        for column, line in zip(table.columns, zip(*body, strict=True), strict=True)
    ]
    heights = [len(wrapped(row.title, _LABEL)) if len(row.title) > _LABEL else 1 for row in table.rows]
    pages: list[list[str]] = []
    free = 0
    for indices in _stack(table, widths, _PAGE - first - _PADDING):
        for start, end in _chunks(heights, _LINES - _HEAD):
            height = sum(heights[start:end]) + _HEAD
            if height > free:
                pages.append([])
                free = _LINES
            free -= height
            pages[-1] += ["", "\\medskip", *_tabular(table, body, indices, range(start, end))]
    below = [" ".join(map(_breakable, table.caption))]
    below += [f"\\textsuperscript{{{letter(index)}}}\\,{_breakable(note)}." for index, note in enumerate(table.notes)]
    if table.problems:
        below.append("Left out: " + "; ".join(map(_breakable, table.problems)) + ".")
    text = f"\\footnotesize\\sloppy {' '.join(below)}"
    inside = -(-len(text) // 100) <= free
    if inside:
        pages[-1] += ["", "\\smallskip", f"\\parbox{{\\linewidth}}{{{text}}}"]
    lines = ["% needs \\usepackage{booktabs,graphicx} and, for pdflatex, \\usepackage[T1]{fontenc}"]
    slug = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "results"
    for page in pages:
        again = page is not pages[0]
        lines += ["\\begin{table}[tbp]", *(["\\addtocounter{table}{-1}"] if again else []), "\\centering\\small"]
        lines.append(f"\\caption{{{_tex(table.title)}" + (" (continued)}" if again else f"}}\\label{{tab:{slug}}}"))
        lines += [*page, "\\end{table}"]
    return "\n".join(lines if inside else [*lines, "", f"{{\\noindent{text}\\par}}"]) + "\n"


def _chunks(heights: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Rows in as few parts as are at most so high, each as (first, last + 1)."""
    parts, start = [], 0
    for end in range(1, len(heights) + 1):
        if end == len(heights) or sum(heights[start : end + 1]) > most:
            parts.append((start, end))
            start = end
    return parts


def _tabular(table: Table, body: Sequence[Sequence[Text]], indices: Sequence[int], rows: range) -> list[str]:
    """Some columns of some rows as a tabular that shrinks to the line's width where it is wider."""

    def name(text: str) -> str:
        if len(text) <= _LABEL:
            return _tex(text)
        return f"\\parbox[t]{{{0.6 * _LABEL:g}em}}{{\\raggedright\\strut {_breakable(text)}\\strut}}"

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
    head = [name(table.header), *(_tex(heading(table.columns[index])) for index in indices)]
    lines += [" & ".join(head) + r" \\", "\\midrule"]
    for row, line in ((table.rows[index], body[index]) for index in rows):
        marks = f"\\textsuperscript{{{','.join(map(letter, row.notes))}}}" if row.notes else ""
        lines.append(" & ".join([name(row.title) + marks, *(cell(line[index]) for index in indices)]) + r" \\")
    return [*lines, "\\bottomrule", "\\end{tabular}}"]


_HEADER = [
    "row", "chosen", "column", "metric", "where", "mean", "low", "high", "n", "planned", "difference",
    "difference_low", "difference_high", "p", "p_holm", "comparable", "best", "status", "published", "notes", "caption",
]  # fmt: skip


def is_table(content: bytes) -> bool:
    """Whether a CSV file's content is that of a table."""
    return content.startswith(",".join(_HEADER).encode())


def comma_separated(table: Table) -> str:
    """One line a cell, in full precision and the column's unit; what is undefined is empty. The column "caption" holds
    title, caption and what was left out on the first line, so that any reader of CSV files takes it for data."""
    caption = [f"{table.title}.", *table.caption]
    caption += [f"Left out: {'; '.join(table.problems)}."] if table.problems else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_HEADER)
    for row, line in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, line, strict=True):
            mean, difference = cell.mean, cell.difference
            writer.writerow(
                [
                    unspoken(row.label),
                    unspoken(row.chosen),
                    unspoken(column.title),
                    unspoken(column.metric),
                    unspoken(" ".join(f"{key}={value}" for key, value in column.where.items())),
                    *((mean.value, mean.low, mean.high, mean.n) if mean else (None, None, None, 0)),
                    cell.planned,
                    *((difference.value, difference.low, difference.high, difference.p) if difference else [None] * 4),
                    cell.p,
                    str(cell.comparable).lower(),
                    str(cell.best).lower(),
                    unspoken(cell.status or "complete"),
                    unspoken(cell.published or ""),
                    unspoken("; ".join(table.notes[index] for index in (*row.notes, *cell.notes))),
                    unspoken(" ".join(caption)),
                ]
            )
            caption = []
    return buffer.getvalue()


def unspoken(text: str) -> str:
    """Text of a CSV cell that a spreadsheet does not read as a formula; numbers stay numbers.

    >>> unspoken("=1+1"), unspoken("-0.5"), unspoken("-a"), unspoken("l2")
    ("'=1+1", '-0.5', "'-a", 'l2')
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    return text if re.fullmatch(r"[+-]\d+(\.\d*)?(e[+-]?\d+)?", text, re.IGNORECASE) else f"'{text}"


def terminal(table: Table, width: int) -> "Group":
    """A rich renderable at most ``width`` wide: tables stacked by groups of columns where one would be wider."""
    from rich.box import Box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    # a rule below the head, nothing around: rich's own leave empty lines
    frame = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    body = texts(table)
    labels = [row.title + "".join(f" {_superscript(row.notes)}" for _ in row.notes[:1]) for row in table.rows]
    most = max(_NARROW, 2 * width // 5)
    first = min(most, max(map(len, [*labels, table.header])))
    available = max(_NARROW, width - first - _PADDING)
    cells = [_aligned([line[index] for line in body], available) for index in range(len(table.columns))]
    widths = [
        min(available, max(*(len(part) for cell in column for part in cell.split("\n")), _longest(heading(spec))))
        for spec, column in zip(table.columns, cells, strict=True)
    ]
    start = 0
    for group, count in spans(table):  # as wide as the longest word of what stands over them
        over = sum(widths[start : start + count]) + _PADDING * (count - 1)
        widths[start] += max(0, min(available, _longest(group)) - over)
        start += count
    parts: list[Any] = [RichText(table.title, style="bold")]
    for indices in _stack(table, [item + _PADDING for item in widths], available + _PADDING):
        rich = RichTable(box=frame, show_edge=False, pad_edge=False, padding=(0, _PADDING - 1, 0, 0), header_style="")
        heads = [wrapped(heading(table.columns[index]), widths[index]) for index in indices]
        corner_lines = wrapped(table.header, first)
        tallest = max(len(corner_lines), *map(len, heads))
        corner = RichText("\n" * (tallest - len(corner_lines)) + "\n".join(corner_lines), style="bold")
        rich.add_column(corner, no_wrap=True, min_width=first)
        for index, lines in zip(indices, heads, strict=True):  # rich has one vertical alignment for head and cells
            padded = [line.rjust(widths[index]) for line in lines]
            title = RichText("\n" * (tallest - len(lines)) + "\n".join(padded), style="bold")
            rich.add_column(title, no_wrap=True, min_width=widths[index])
        parts += [RichText(" " * (first + _PADDING) + line, style="bold") for line in _over(table, indices, widths)]
        for row, label in enumerate(labels):  # padded here: rich strips the blanks that keep decimal points aligned
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


def wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most ``width``, broken after blanks and signs where it can be.

    >>> wrapped("dropout+label_smoothing+mixup", 16)
    ['dropout+label_', 'smoothing+mixup']
    """
    lines = [""]
    for piece in _PIECE.findall(text):
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        while len(piece.rstrip()) > width:
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()] or [""]


def _longest(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _aligned(column: Sequence[Text], width: int) -> list[str]:
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
            lines += [part + " " * tail for part in wrapped(f"[{text.published}]", width - tail)]
        result.append("\n".join(lines))
    return result


def _over(table: Table, indices: Sequence[int], widths: Sequence[int]) -> list[str]:
    """Lines that head groups of columns: their names, and a rule below each."""
    found = []
    for group, members in itertools.groupby(indices, key=lambda index: table.columns[index].group):
        taken = [widths[index] for index in members]
        found.append((group, sum(taken) + _PADDING * (len(taken) - 1)))
    names = [wrapped(group, width) for group, width in found]
    tallest = max(map(len, names))
    lines = [
        (" " * _PADDING).join(
            ([""] * (tallest - len(name)) + name)[number].center(width)
            for name, (_, width) in zip(names, found, strict=True)
        )
        for number in range(tallest)
    ]
    rules = (" " * _PADDING).join(("─" if group else " ") * width for group, width in found)
    return [line.rstrip() for line in (*lines, rules)] if rules.strip() else []


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
        stacked for limit in range(narrowest, max(available, narrowest) + 1) if len(stacked := pack(limit)) <= fewest
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


def _breakable(text: str) -> str:
    """Text for a paragraph: long words may be broken after their signs."""
    words = [_PIECE.findall(word) if len(word) > 20 else [word] for word in re.split(r"(?<=\s)", text)]
    return "".join("\\allowbreak{}".join(map(_tex, filter(None, pieces))) for pieces in words)


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
