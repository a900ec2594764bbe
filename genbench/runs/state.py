"""The files from which a run that is not finished continues, and the traceback of one that failed."""

import contextlib
import traceback
from pathlib import Path
from typing import Any

from genbench import records
from genbench.privacy import shorten
from genbench.records import unfinished
from genbench.training import AtomicCheckpointIO

CHECKPOINT = "checkpoint.ckpt"
ENDED = "ended"  # key in a checkpoint of a run that has trained and is being measured
TRACEBACK = "traceback.txt"


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint in a run's folder; None if there is none. A damaged file is removed.

    It has the key ``ENDED`` if training has ended and measuring was broken off.

    Raises:
        OSError, MemoryError: it cannot be read now; it may be readable the next time.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return AtomicCheckpointIO().load_checkpoint(path)
    except (OSError, MemoryError):
        raise
    except Exception:
        path.unlink()
        return None


def remove_state(folder: Path) -> None:
    """Remove the files from which a run continues."""
    for name in (CHECKPOINT, unfinished.FILE):
        (folder / name).unlink(missing_ok=True)


def keep_traceback(folder: Path, error: BaseException) -> None:
    """Write the traceback of an error to the run's folder."""
    with contextlib.suppress(OSError):  # a full disk, say; the record holds the error itself
        records.write_atomic(folder / TRACEBACK, shorten("".join(traceback.format_exception(error))))
