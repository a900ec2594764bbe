"""Write files whole or not at all, read regular ones alone, and tell them by their digest."""

import errno
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from genbench.process import leftovers

LIMIT = 2**28
"""Bytes of a JSON or CSV file that is read; weights may have any size."""


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """A regular file, or a link to one, open for reading: a pipe would be waited for, a device never end.

    Raises ``OSError``.
    """

    def check(about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))

    check(os.stat(path))  # beforehand, as to open a device may already do something
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        check(os.fstat(file.fileno()))  # that it is still the same
        yield file


def read_bytes(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; raises ``OSError``."""
    with opened(path) as file:
        # not limit + 1 at once: so much memory would be asked for, whatever the file's size
        content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", os.fspath(path))
    return content


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that replaces ``path`` when the block ends well, and leaves no trace when it does not.

    Staged beside the target (another filesystem could not rename), synced, renamed, and the folder synced: after a
    kill or a power cut ``path`` holds either the old or the new content, whole; what is then left of the stage goes
    with :func:`tidy`. A link at ``path`` is replaced, and what it leads to stays as it is.
    """
    path = Path(path)
    with _stage(path) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stage(path: Path) -> BinaryIO:
    """A new file beside ``path``, held while it is open."""
    while True:
        file = open(path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp", "xb")  # noqa: SIM115 - who asked closes it
        if leftovers.hold(file.fileno(), Path(file.name)):
            return file
        file.close()


def tidy(folder: str | os.PathLike[str], *, runs: bool) -> None:
    """Remove what killed processes were writing in ``folder``, with ``runs`` in the folders within it too."""
    folder = Path(folder)
    leftovers.remove(folder.glob(".*.tmp"))
    if runs:
        leftovers.remove(folder.glob("*/.*.tmp"))


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` through :func:`atomic`."""
    with atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value`` (sorted keys, no spaces), in hex.

    >>> digest({"b": 1, "a": 2.5}) == digest({"a": 2.5, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hex."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
