"""What a terminal cannot show is replaced, never fatal."""

import codecs
import sys
import unicodedata

_PLAIN = str.maketrans("−–—─━±×·↑↓†…“”‘’≥≤λ", "-----~x.^v+.\"\"''><L")


def lenient() -> None:
    """Let standard output and error replace what their encoding does not hold by a sign of the same width."""
    codecs.register_error("genbench", _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="genbench")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Letters and digits without accents and heights, a few signs as their likes, and ? for the rest."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end].translate(_PLAIN)
    parts = [char if char.isascii() else unicodedata.normalize("NFKD", char)[:1] for char in found]
    return "".join(char if char.isascii() and char else "?" for char in parts), error.end
