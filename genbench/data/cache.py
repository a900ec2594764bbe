"""A cache on disk for arrays that are slow to make."""

import contextlib
import glob
import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]

log = logging.getLogger(__name__)
_LOCK_SECONDS = 120.0


def folder() -> Path:
    """Return the folder of caches: ``$GENBENCH_CACHE``, by default ``~/.cache/genbench``."""
    return Path(os.environ.get("GENBENCH_CACHE") or Path.home() / ".cache" / "genbench")


def content_digest(arrays: Arrays) -> str:
    """Return the sha256 of arrays: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def cached(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays stored under ``name``; make and store them if they are missing or damaged.

    If several processes ask at the same time, one makes the arrays and the others wait. The file is written under
    another name and renamed, so that it is never read half-written. If the folder cannot be written, as on a full disk,
    every call makes the arrays.
    """
    from filelock import FileLock

    arrays: Arrays | None = None
    try:
        path = folder() / f"{name}.npz"
        if (arrays := _read(path)) is not None:
            return arrays
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            if (arrays := _read(path)) is not None:  # made by another process in the meantime
                return arrays
            arrays = make()
            _write(path, arrays)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or a filesystem without locks
        log.warning("%s is not cached (%s)", name, type(error).__name__)
    return make() if arrays is None else arrays


def cached_folder(name: str, make: Callable[[Path], None], *, whole: Callable[[Path], bool]) -> Path:
    """Return the folder stored under ``name``; fill it by ``make(folder)`` if it is missing or not ``whole(folder)``.

    As with :func:`cached`, one process makes it under another name and the others wait, without a limit. It is for data
    that is too large for memory, which no process could make for itself.

    Raises:
        OSError: the folder cannot be written.
    """
    from filelock import FileLock

    path = folder() / name
    if whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if whole(path):
            return path
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # left by a killed process
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            make(temporary)
            for file in temporary.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return path


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    digest = arrays.pop("digest", None)
    return arrays if digest is not None and str(digest) == content_digest(arrays) else None


def _write(path: Path, arrays: Arrays) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # left by a killed process
        left.unlink(missing_ok=True)
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
