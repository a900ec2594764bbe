"""Checkpoints that survive a kill at any moment and are never read damaged."""

import hashlib
import io
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

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


class Checkpoint(pl.callbacks.Checkpoint):
    """Keeps the state of a run at the end of an epoch, at most every ``seconds``; a run continues from it bit for bit.

    Not written after the last epoch: what a finished run leaves is its record and weights.
    """

    def __init__(self, path: Path, *, seconds: float = 10.0) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.done or time.monotonic() - self._last < self.seconds:
            return
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()

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
