"""How settings and numbers are written in a table."""

import math
import re
from collections.abc import Sequence

from genbench.report.model import Cell, Column, Table

PIECE = re.compile(r"[^\s+/,_:.=-]*[\s+/,_:.=-]*")  # a piece of a label, which may be broken after it


def decimals(table: Table) -> list[list[int | None]]:
    """Return the number of decimals of every cell, rows × columns; ``None`` means scientific notation.

    A column's ``digits`` decide. Without them, a cell gets the decimals that show three significant digits of the
    column's largest mean, or more if it would show fewer than two of its own: sharpness spans orders of magnitude.
    """

    def exponent(cell: Cell) -> int | None:
        return math.floor(math.log10(abs(cell.mean.value))) if cell.mean and cell.mean.value else None

    def places(cell: Cell, column: Column, largest: int) -> int | None:
        if column.digits is not None:
            return column.digits
        own = exponent(cell)
        if not -4 <= (largest if own is None else own) <= 5:
            return None
        return max(0, 2 - largest, 0 if own is None else 1 - own)

    exponents = [[exponent(cell) for cell in column] for column in zip(*table.cells, strict=True)]
    largest = [max((e for e in column if e is not None), default=2) for column in exponents]
    return [
        [places(cell, column, top) for cell, column, top in zip(line, table.columns, largest, strict=True)]
        for line in table.cells
    ]


def number(value: float, digits: int | None) -> str:
    """Return ``value`` with ``digits`` decimals, or with two significant digits if those would show a false zero.

    >>> number(67.28, 1), number(-0.04, 1), number(123456.0, None), number(0.0, 1)
    ('67.3', '−0.04', '1.2e5', '0.0')
    """
    text = f"{value:.{digits}f}" if digits is not None else f"{value:.1e}"
    if value and digits is not None and not float(text):
        text = f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"
        text = text if "e" in text else text.rstrip("0") if "." in text else text
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def letter(index: int) -> str:
    """Return the letters of a footnote: a … z, aa …

    >>> letter(0), letter(25), letter(26)
    ('a', 'z', 'aa')
    """
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def listed(names: Sequence[str]) -> str:
    """Join names in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sorting key that orders numbers in text by value: 2 before 10."""
    if re.fullmatch(r"\d+\.?\d*e[+-]?\d+", text):
        return [(0, float(text), "")]
    parts = re.split(r"(\d+\.?\d*)", text)
    return [(0, float(part), "") if re.fullmatch(r"\d+\.?\d*", part) else (1, 0.0, part) for part in parts if part]


def half(value: float, digits: int | None) -> str:
    """Return a half-width with its mean's decimals, even if that is 0.0: more would claim false precision."""
    return number(value, None) if digits is None else f"{value:.{digits}f}"


def wrapped(text: str, width: int) -> list[str]:
    """Break text into lines of at most ``width``, after blanks and punctuation where possible.

    >>> wrapped("dropout+label_smoothing+mixup", 16)
    ['dropout+label_', 'smoothing+mixup']
    """
    lines = [""]
    for piece in PIECE.findall(text):
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        while len(piece.rstrip()) > width:
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()] or [""]
