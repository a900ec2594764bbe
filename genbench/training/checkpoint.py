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


class AtomicCheckpointIO(CheckpointIO):
    """One file beside its target, synced and renamed, ending in the SHA-256 of what stands before it.

    Lightning's own writer stages in the temporary folder and moves: across file systems a kill then leaves an
    unreadable file, and a full disk destroys the previous good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
        write_atomic(Path(path), content + hashlib.sha256(content).digest())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """The checkpoint; ValueError if the file is damaged. Only tensors and plain values are read."""
        with opened(path) as file:
            data = file.read()
        content, digest = data[:-32], data[-32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(f"{Path(path).name} is damaged: its digest does not match its content")
        return torch.load(io.BytesIO(content), map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def position(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Where in its epoch the loader of a training is; None where that is somebody else's.

    Lightning keeps it as well, but hands it back before the loader is there to whoever asks how many steps there will
    be, as schedules do.
    """
    loader = trainer.train_dataloader
    return loader.state_dict() if isinstance(loader, Batches | Epochs) else None


def set_position(trainer: pl.Trainer, kept: dict[str, Any] | None) -> None:
    """Have the loader go on from there; once it exists, at the start of training."""
    if kept is not None:
        loader = trainer.train_dataloader
        assert isinstance(loader, Batches | Epochs)
        loader.load_state_dict(kept)


class Checkpoint(pl.callbacks.Checkpoint):
    """Keeps the state of a run, from which it continues bit for bit; the last of the callbacks.

    It is written after a step or an epoch: every ``seconds``, but for no more than a twentieth of the time, and at once
    when the process is asked to end, which it then does (KeyboardInterrupt). What cannot be written, for want of room
    say, leaves the one before and is tried again. Loggers are flushed first, so that they have all that is not done
    again. Not written after the last step: what a finished run leaves is its record and weights.

    With a loader that is not genbench's it is written after epochs alone, and that is said when a step's was due.
    """

    def __init__(self, path: Path, *, seconds: float = 10.0, loggers: Sequence[Any] = ()) -> None:
        self.path = path
        self._seconds, self._loggers = seconds, loggers
        self._due = time.monotonic() + seconds
        self._started = False
        self._said: set[str] = set()

    def drop_if_unusable(self, reason: BaseException) -> None:
        """Remove the file if training failed for ``reason`` before it had begun: it may be one that cannot be continued
        from, and would fail for ever."""
        if not self._started and not isinstance(reason, OSError | MemoryError):
            self.path.unlink(missing_ok=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.after_step(trainer, last=trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def after_step(self, trainer: pl.Trainer, *, last: bool) -> None:
        """Write it if it is time; ``last`` of its epoch, which soon ends."""
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
        # a network of the user's own may draw from the global generators (torch's dropout, say)
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
