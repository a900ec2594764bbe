"""Text as tokens."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

UNITS = ("character", "word")
PADDING, UNKNOWN = 0, 1  # tokens of every vocabulary


def split(text: str, unit: str) -> list[str]:
    """A text's characters; or in lower case its words and, each by itself, the other signs that are no space."""
    return list(text) if unit == "character" else re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary(texts: Iterable[list[str]], size: int | None = None) -> dict[str, int]:
    """A token for each distinct unit of some texts, the more frequent the smaller, those as frequent in alphabetical
    order; of at most ``size`` tokens with the two for padding and for what is not in it."""
    counts = Counter(unit for text in texts for unit in text)
    ordered = sorted(counts, key=lambda unit: (-counts[unit], unit))[: None if size is None else size - 2]
    return {unit: token for token, unit in enumerate(ordered, UNKNOWN + 1)}


def encoded(texts: Iterable[list[str]], known: dict[str, int], length: int) -> np.ndarray:
    """Texts as rows of ``length`` tokens [n, length]: what is longer is cut, what is shorter padded at the end."""
    rows = [[known.get(unit, UNKNOWN) for unit in text[:length]] for text in texts]
    return np.array([row + [PADDING] * (length - len(row)) for row in rows], dtype=np.int64).reshape(-1, length)


def stamp(path: str | None) -> tuple[int, int] | None:
    """Size and time of a file, by which it is known whether it must be read again; None of none.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError as error:
        raise ValueError(f"data.path is {path!r}, which cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def read(path: str) -> str:
    """The text of a file in UTF-8.

    Raises:
        ValueError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"data.path is {path!r}, which cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path is {path!r}; accepted: text in UTF-8 (byte {error.start} is none)") from None
