"""The checkpoints of packs, in the folder ``packs`` of a sweep. They hold the runs that have not ended."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench.records import digest
from genbench.runs.results import final_record
from genbench.training import AtomicCheckpointIO

FOLDER = "packs"


class PackCheckpointIO(AtomicCheckpointIO):
    """Creates the folder anew if another process has removed it, empty, in the meantime."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        for _ in range(10):
            Path(path).parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed in between
                super().save_checkpoint(checkpoint, path, storage_options)
                return
        raise OSError(f"{Path(path).name} cannot be written: its folder is removed all the time")


def unfinished(folder: Path) -> list[list[str]]:
    """The ids of the runs of each checkpoint in the folder of a sweep."""
    return [list(state["runs"]) for _, state in _checkpoints(folder)]


def holds(run: Path) -> bool:
    """Whether a pack's checkpoint holds the run of this folder."""
    return any(run.name in ids for ids in unfinished(run.parent))


def find(folder: Path, ids: Sequence[str]) -> tuple[Path, dict[str, Any] | None]:
    """The file for the checkpoint of these runs, and the latest checkpoint that holds all of them; None without one."""
    own = folder / FOLDER / f"{digest(sorted(ids))[:12]}.ckpt"
    held = [(path, state) for path, state in _checkpoints(folder) if set(ids) <= state["runs"].keys()]
    if not held:
        return own, None
    path, state = max(held, key=lambda each: each[1]["global_step"])
    if path != own:
        if set(ids) == state["runs"].keys():
            path.replace(own)
        else:  # another process may continue the other runs of that pack
            state["runs"] = {run_id: state["runs"][run_id] for run_id in ids}
            PackCheckpointIO().save_checkpoint(state, own)
    return own, state


def tidy(folder: Path) -> None:
    """Remove checkpoints whose runs are all finished: those of packs that were halved, or killed at their end."""
    for path, state in _checkpoints(folder):
        if all(final_record(folder / run_id) for run_id in state["runs"]):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # files of other packs
        (folder / FOLDER).rmdir()


def _checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The checkpoints of the packs of a sweep with their files. A file that cannot be read is removed."""
    try:
        paths = sorted((folder / FOLDER).glob("*.ckpt"))
    except FileNotFoundError:  # another process removed the folder, empty, just now
        return
    for path in paths:
        try:
            state = PackCheckpointIO().load_checkpoint(path)
        except (OSError, MemoryError):  # its pack has ended meanwhile, or it may be readable the next time
            continue
        except Exception:  # damaged, or of another version: its runs start again
            path.unlink(missing_ok=True)
            continue
        yield path, state
