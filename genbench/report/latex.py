"""Tables and verdicts in LaTeX."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

from genbench.report.format import PIECE, letter, wrapped
from genbench.report.model import Table, Verdicts
from genbench.report.render import (
    PADDING,
    VERDICT_HEAD,
    Text,
    heading,
    stack_columns,
    texts,
    verdict_numbers,
    verdict_sentences,
)

_PAGE = 100  # approximate number of characters across a page
_LINES = 42  # lines of a page
_HEAD = 5  # lines of a tabular's header
_LABEL = 40  # most characters of a row's label in a line
BEGIN = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # no wider than a line
END = (r"\bottomrule", r"\end{tabular}}")


def latex(table: Table) -> str:
    """Return booktabs ``table`` environments for ``\\input``.

    Groups of columns are stacked to fit the width of a page, and spread over several floats to fit its height. Caption
    and notes stand below the last float, or after it if they are too long.
    """
    body = texts(table)
    first = min(_LABEL, max(len(text) for text in [table.header, *(row.title for row in table.rows)]))
    widths = [
        max(len(heading(column)), *(len(text.mean + text.half) + 3 for text in line)) + PADDING
        for column, line in zip(table.columns, zip(*body, strict=True), strict=True)
    ]
    heights = [len(wrapped(row.title, _LABEL)) if len(row.title) > _LABEL else 1 for row in table.rows]
    pages: list[list[str]] = []
    free = 0
    for indices in stack_columns(table, widths, _PAGE - first - PADDING):
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
    lines = [
        "% needs \\usepackage{booktabs,graphicx} and, for pdflatex, \\usepackage[T1]{fontenc}",
        *_floats(table.title, pages),
    ]
    lines = lines if inside else [*lines, "", f"{{\\noindent{text}\\par}}"]
    return "\n".join([*lines, *(f"\n{latex(each)[:-1]}" for each in table.further)]) + "\n"


def verdicts_latex(verdicts: Verdicts, title: str) -> str:
    """Return the numbers of verdicts as booktabs ``table`` environments, and below them what was claimed and found."""
    pages = []
    for start, end in _chunks([1] * len(verdicts.rows), _LINES - _HEAD):
        rows = [" & ".join(map(escape, verdict_numbers(row))) + r" \\" for row in verdicts.rows[start:end]]
        head = " & ".join(map(escape, VERDICT_HEAD)) + r" \\"
        pages.append([BEGIN, r"\begin{tabular}{@{}llrrrr@{}}", r"\toprule", head, r"\midrule", *rows, *END])
    told = [
        f"\\textbf{{{_breakable(row.claim)}}}: {' '.join(map(_breakable, verdict_sentences(row)))}\\par"
        for row in verdicts.rows
    ]
    begin = r"{\footnotesize\sloppy\setlength{\parindent}{0pt}\setlength{\parskip}{3pt}%"
    caption = " ".join(map(_breakable, verdicts.caption))
    return "\n".join([*_floats(f"Claims: {title}", pages), "", begin, *told, f"{caption}\\par}}"]) + "\n"


def _floats(title: str, pages: Sequence[Sequence[str]]) -> list[str]:
    """Return a float for each page, all with one number."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "results"
    lines = []
    for index, page in enumerate(pages):
        lines += ["\\begin{table}[tbp]", *(["\\addtocounter{table}{-1}"] if index else []), "\\centering\\small"]
        lines.append(f"\\caption{{{escape(title)}" + (" (continued)}" if index else f"}}\\label{{tab:{slug}}}"))
        lines += [*page, "\\end{table}"]
    return lines


def _chunks(heights: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Split rows into as few parts of limited height as possible, each as (first, last + 1)."""
    parts, start = [], 0
    for end in range(1, len(heights) + 1):
        if end == len(heights) or sum(heights[start : end + 1]) > most:
            parts.append((start, end))
            start = end
    return parts


def _tabular(table: Table, body: Sequence[Sequence[Text]], indices: Sequence[int], rows: range) -> list[str]:
    """Return some columns of some rows as a tabular, shrunk to the width of a line if it is wider."""

    def name(text: str) -> str:
        if len(text) <= _LABEL:
            return escape(text)
        return f"\\parbox[t]{{{0.6 * _LABEL:g}em}}{{\\raggedright\\strut {_breakable(text)}\\strut}}"

    def cell(text: Text) -> str:
        value = escape(text.mean) + (f"\\,{{\\scriptsize$\\pm$\\,{escape(text.half)}}}" if text.half else "")
        value = f"\\textbf{{{value}}}" if text.best else value
        value += "" if text.mean else escape(text.status)
        small = [escape(text.status)] if text.mean and text.status else []
        raised = {"": "", "*": "*", "†": "$\\dagger$"}[text.mark] + ",".join([*text.notes, *small])
        raised = f"\\textsuperscript{{{raised}}}" if raised else ""
        # a lone mark takes no width, so that numbers stay aligned
        value += f"\\rlap{{{raised}}}" if text.mark and not (text.notes or small or text.published) else raised
        return value + (f" [{escape(text.published)}]" if text.published else "")

    groups, rules, start = [], [], 2
    for group, members in itertools.groupby(indices, key=lambda index: table.columns[index].group):
        width = len(list(members))
        groups.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}" if group else "")
        start += width
    lines = [
        BEGIN,
        "\\begin{tabular}{@{}l" + "r" * len(indices) + "@{}}",
        "\\toprule",
    ]
    if any(rules):
        lines += [" & ".join(["", *groups]) + r" \\", "".join(rules)]
    head = [name(table.header), *(escape(heading(table.columns[index])) for index in indices)]
    lines += [" & ".join(head) + r" \\", "\\midrule"]
    for row, line in ((table.rows[index], body[index]) for index in rows):
        marks = f"\\textsuperscript{{{','.join(map(letter, row.notes))}}}" if row.notes else ""
        lines.append(" & ".join([name(row.title) + marks, *(cell(line[index]) for index in indices)]) + r" \\")
    return [*lines, *END]


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "−": r"$-$", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$",
    "ℓ": r"$\ell$", "‖": r"$\|$", "√": r"$\surd$", "·": r"$\cdot$", "–": "--", "—": "---", "…": r"\ldots{}",
    "“": "``", "”": "''", "‘": "`", "’": "'",
}  # fmt: skip


def escape(text: str) -> str:
    return "".join(map(_tex_character, text))


def _breakable(text: str) -> str:
    """Escape text for a paragraph; long words may break after punctuation."""
    words = [PIECE.findall(word) if len(word) > 20 else [word] for word in re.split(r"(?<=\s)", text)]
    return "".join("\\allowbreak{}".join(map(escape, filter(None, pieces))) for pieces in words)


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
    if name.startswith("LATIN") and ord(char) < 0x180:  # characters of T1 fonts
        return char
    return f"[U+{ord(char):04X}]"
