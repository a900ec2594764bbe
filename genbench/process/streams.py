"""Replace characters that a terminal cannot show, so that they never end a command."""

import codecs
import sys
import unicodedata

_PLAIN = str.maketrans("−–—─━±×·↑↓†…“”‘’≥≤λ", "-----~x.^v+.\"\"''><L")


def lenient() -> None:
    """Make standard output and error replace characters that their encoding lacks by others of the same width."""
    codecs.register_error("genbench", _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="genbench")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return letters and digits without accents, ASCII look-alikes of a few signs, and ? for the rest."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end].translate(_PLAIN)
    parts = [char if char.isascii() else unicodedata.normalize("NFKD", char)[:1] for char in found]
    return "".join(char if char.isascii() and char else "?" for char in parts), error.end
