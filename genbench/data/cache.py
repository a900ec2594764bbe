"""A cache on disk for arrays that take longer to make than to read."""

import contextlib
import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]

log = logging.getLogger(__name__)
_LOCK_SECONDS = 120.0


def folder() -> Path:
    """Where caches live: ``$GENBENCH_CACHE``, by default ``~/.cache/genbench``."""
    return Path(os.environ.get("GENBENCH_CACHE") or Path.home() / ".cache" / "genbench")


def content_digest(arrays: Arrays) -> str:
    """The sha256 of the arrays: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def cached(name: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays stored under ``name``; made by ``make()`` and stored where they are missing or damaged.

    Of several processes that ask at once, one makes the arrays and the others wait for it. The file is written beside
    its target and renamed, so that no one ever reads half of it. A folder that cannot be written, a full disk included,
    costs only the time of ``make()``.
    """
    from filelock import FileLock

    arrays: Arrays | None = None
    try:
        path = folder() / f"{name}.npz"
        if (arrays := _read(path)) is not None:
            return arrays
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            if (arrays := _read(path)) is not None:  # another process made it while this one waited
                return arrays
            arrays = make()
            _write(path, arrays)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or a filesystem without locks
        log.warning("%s is not cached (%s)", name, type(error).__name__)
    return make() if arrays is None else arrays


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    digest = arrays.pop("digest", None)
    return arrays if digest is not None and str(digest) == content_digest(arrays) else None


def _write(path: Path, arrays: Arrays) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, digest=np.array(content_digest(arrays)), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
