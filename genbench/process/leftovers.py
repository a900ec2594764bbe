"""Temporary files and folders: the process that makes one locks it, so that leftovers of killed processes are told
apart."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def hold(descriptor: int, path: Path) -> bool:
    """Lock a newly opened file until it is closed or the process ends; False if another process has already removed it
    as a leftover."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, on which nothing is removed as a leftover
        return True
    return path.exists()


def remove(paths: Iterable[Path]) -> None:
    """Remove the files and folders that no process locks."""
    for path in paths:
        with contextlib.suppress(OSError):  # the process that made it lives, or it belongs to another user
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)
