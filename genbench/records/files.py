"""Write files atomically, read only regular ones, and identify them by digest."""

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
    """Open a regular file, or a link to one, for reading; reading a pipe would wait, a device would never end.

    Raises ``OSError``.
    """

    def check(about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))

    check(os.stat(path))  # beforehand: opening a device may have effects
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        check(os.fstat(file.fileno()))  # it may have been replaced since
        yield file


def read_bytes(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; raises ``OSError``."""
    with opened(path) as file:
        # not limit + 1 at once: that would allocate so much memory for any file
        content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", os.fspath(path))
    return content


@contextmanager
def atomic(path: str | os.PathLike[str], *, settle: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces ``path`` if the block succeeds, and leaves nothing behind if it raises.

    The content is staged beside the target (no rename crosses filesystems), synced and renamed: after a kill or a power
    cut ``path`` holds the whole old or the whole new content. The folder is synced too, with all that was renamed in it
    before, so that it is the new content; without ``settle`` the next write in the folder does it. :func:`tidy` removes
    a stage that was left behind. A link at ``path`` is replaced; its target stays.
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
    if not settle:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stage(path: Path) -> BinaryIO:
    """Open a new file beside ``path``, locked while it is open."""
    while True:
        file = open(path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp", "xb")  # noqa: SIM115 - who asked closes it
        if leftovers.hold(file.fileno(), Path(file.name)):
            return file
        file.close()


def tidy(folder: str | os.PathLike[str], *, runs: bool) -> None:
    """Remove the temporary files of killed processes in ``folder``, and with ``runs`` in its subfolders."""
    folder = Path(folder)
    leftovers.remove(folder.glob(".*.tmp"))
    if runs:
        leftovers.remove(folder.glob("*/.*.tmp"))


def write_atomic(path: str | os.PathLike[str], content: str | bytes, *, settle: bool = True) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` through :func:`atomic`."""
    with atomic(path, settle=settle) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value`` (sorted keys, no spaces), in hex.

    >>> digest({"b": 1, "a": 2.5}) == digest({"a": 2.5, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
