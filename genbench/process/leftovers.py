"""Temporary files and folders: their maker holds a lock on them, so that what killed processes leave is known."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def hold(descriptor: int, path: Path) -> bool:
    """Lock what was opened as it was made, for as long as it is open or the process lives; False if another process has
    taken it for a leftover in between."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is taken for a leftover
        return True
    return path.exists()


def remove(paths: Iterable[Path]) -> None:
    """Remove those that nobody holds."""
    for path in paths:
        with contextlib.suppress(OSError):  # its maker lives, or it is somebody else's
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)
