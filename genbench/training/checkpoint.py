"""Checkpoints that survive a kill at any moment and are never read damaged."""

import hashlib
import io
import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from genbench.data.batches import Batches, Epochs
from genbench.process.termination import asked
from genbench.records import opened, write_atomic
from genbench.training.attributes import Unsavable


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, syncs and renames. A file ends in the SHA-256 of the bytes before it.

    Lightning's own writer stages in the temporary folder and moves. Across file systems a kill then leaves an
    unreadable file, and a full disk destroys the previous good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        write_atomic(Path(path), content + hashlib.sha256(content).digest(), settle=False)  # or the one before stays

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Return the checkpoint; raise ValueError if the file is damaged. Only tensors and plain values are read."""
        with opened(path) as file:
            data = file.read()
        content, digest = data[:-32], data[-32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(f"{Path(path).name} is damaged: its digest does not match its content")
        return torch.load(io.BytesIO(content), map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def position(trainer: pl.Trainer) -> dict[str, Any] | None:
    """The position of the training loader within its epoch; None for a loader that is not genbench's.

    Lightning keeps a position too, but a schedule that asks for the number of steps makes Lightning restore it before
    the loader exists.
    """
    loader = trainer.train_dataloader
    return loader.state_dict() if isinstance(loader, Batches | Epochs) else None


def set_position(trainer: pl.Trainer, kept: dict[str, Any] | None) -> None:
    """Set the position of the loader at the start of training, when it exists."""
    if kept is not None:
        loader = trainer.train_dataloader
        assert isinstance(loader, Batches | Epochs)
        loader.load_state_dict(kept)


class Checkpoint(pl.callbacks.Checkpoint):
    """Writes the state of a run, from which it continues bit for bit; the last of the callbacks.

    A checkpoint is due every ``seconds`` after a step or an epoch, but writing takes a twentieth of the time at most.
    When the process is asked to end, it is written at once, and KeyboardInterrupt is raised. If writing fails, as on a
    full disk, the previous checkpoint stays and writing is tried again. Loggers are flushed first: they must hold
    everything up to the checkpoint. None is written after the last step; a finished run leaves record and weights.

    With a loader that is not genbench's it is written after epochs only, and a warning says so.
    """

    def __init__(self, path: Path, *, seconds: float = 10.0, loggers: Sequence[Any] = ()) -> None:
        self.path = path
        self._seconds, self._loggers = seconds, loggers
        self._due = time.monotonic() + seconds
        self._started = False
        self._said: set[str] = set()

    def drop_if_unusable(self, reason: BaseException) -> None:
        """Remove the file if training failed for ``reason`` before its first step: continuing from it might fail for
        ever."""
        if not self._started and not isinstance(reason, OSError | MemoryError):
            self.path.unlink(missing_ok=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.after_step(trainer, last=trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def after_step(self, trainer: pl.Trainer, *, last: bool) -> None:
        """Write a checkpoint if one is due; ``last``: after the last step of an epoch, whose end soon follows."""
        if last or trainer.should_stop or not (asked() or time.monotonic() >= self._due):
            return
        if position(trainer) is None:
            self._say(
                f"the position of {type(trainer.train_dataloader).__name__} within an epoch is not known: "
                "a run that is interrupted goes on from the start of the epoch"
            )
        else:
            self._write(trainer)
        self._end_if_asked()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.fit_loop.done and (asked() or time.monotonic() >= self._due):
            self._write(trainer)
        self._end_if_asked()

    def _write(self, trainer: pl.Trainer) -> None:
        started = time.monotonic()
        for logger in self._loggers:
            if hasattr(logger, "flush"):
                logger.flush()
        try:
            trainer.save_checkpoint(self.path)
        except OSError as error:
            self._say(f"the checkpoint could not be written ({error.strerror}): the one before, if any, stays")
        except Unsavable as error:
            self._say(str(error))
        now = time.monotonic()
        self._due = now + max(self._seconds, 20 * (now - started))

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            warnings.warn(line, stacklevel=2)

    def _end_if_asked(self) -> None:
        if asked():
            raise KeyboardInterrupt

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # a user's network may draw from the global generators, as torch's dropout does
        kind, keys, *rest = np.random.get_state(legacy=True)
        assert isinstance(keys, np.ndarray)
        checkpoint["random"] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "python": random.getstate(),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["random"]
        torch.set_rng_state(states["torch"].cpu())
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        random.setstate(states["python"])
