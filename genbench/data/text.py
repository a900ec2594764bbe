"""Turn text into tokens."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

UNITS = ("character", "word")
PADDING, UNKNOWN = 0, 1  # the two tokens that every vocabulary has


def split(text: str, unit: str) -> list[str]:
    """Split a text into characters, or in lower case into words and single signs other than spaces."""
    return list(text) if unit == "character" else re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary(texts: Iterable[list[str]], size: int | None = None) -> dict[str, int]:
    """Return a token for each distinct unit of some texts, by descending frequency and then in alphabetical order.

    There are at most ``size`` tokens, with those for padding and unknown units.
    """
    counts = Counter(unit for text in texts for unit in text)
    ordered = sorted(counts, key=lambda unit: (-counts[unit], unit))[: None if size is None else size - 2]
    return {unit: token for token, unit in enumerate(ordered, UNKNOWN + 1)}


def encoded(texts: Iterable[list[str]], known: dict[str, int], length: int) -> np.ndarray:
    """Return texts as rows of tokens [n, length], cut or padded at the end."""
    rows = [[known.get(unit, UNKNOWN) for unit in text[:length]] for text in texts]
    return np.array([row + [PADDING] * (length - len(row)) for row in rows], dtype=np.int64).reshape(-1, length)


def stamp(path: str | None) -> tuple[int, int] | None:
    """Return size and time of a file, which tell whether it changed; ``None`` for no file.

    Raises:
        ValueError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError as error:
        raise ValueError(f"data.path is {path!r}, which cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def read(path: str) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        ValueError: the file cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"data.path is {path!r}, which cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path is {path!r}; accepted: text in UTF-8 (byte {error.start} is none)") from None
