"""The mark on a user's own files: an HMAC under a key that only this user can read."""

import functools
import hmac
import os
import secrets
import stat
from pathlib import Path

_BYTES = 32


def folder() -> Path:
    """Return the folder of the key: ``$GENBENCH_CONFIG``, by default ``~/.config/genbench``."""
    if given := os.environ.get("GENBENCH_CONFIG"):
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "genbench"


def of(digest: str) -> str | None:
    """Return the mark for a digest; None if no key can be kept, in which case no file counts as one of the user."""
    key = _key(make=True)
    return None if key is None else _mark(key, digest)


def is_own(digest: str, mark: object) -> bool:
    """Tell whether ``mark`` is this user's mark for a digest."""
    key = _key(make=False)
    return key is not None and isinstance(mark, str) and hmac.compare_digest(mark.encode(), _mark(key, digest).encode())


def _mark(key: bytes, digest: str) -> str:
    return hmac.digest(key, digest.encode(), "sha256").hex()


def _key(*, make: bool) -> bytes | None:
    try:
        path = folder() / "key"
        if make and _read(path) is None:
            _make(path)
        return _read(path)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None


@functools.lru_cache(maxsize=8)
def _content(path: Path, state: tuple[int, ...]) -> bytes:
    return path.read_bytes()


def _read(path: Path) -> bytes | None:
    """Return the key; None unless it is a regular file of this user that no other user can read or write."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    private = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
    if not private or found.st_size != _BYTES:
        return None
    return _content(path, (found.st_ino, found.st_mtime_ns, found.st_ctime_ns))


def _make(path: Path) -> None:
    """Make a key; if several processes make one, the first one's counts. A key that others could read is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stage = path.with_name(f".key.{secrets.token_hex(6)}")
    handle = os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(stage, path)
        except FileExistsError:
            if _read(path) is None:
                os.replace(stage, path)
    finally:
        stage.unlink(missing_ok=True)
