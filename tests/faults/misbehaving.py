"""Callbacks that misbehave at the end of an epoch, and what a command in another process may be told to do."""

import os
import signal
import time
from pathlib import Path

import pytorch_lightning as pl


class Misbehaves(pl.Callback):
    """At the end of epoch ``epoch``, from 1, does ``what`` names; with ``flag``, a file, the first time only."""

    def __init__(self, *, what: str, epoch: int = 1, flag: str | None = None) -> None:
        self.what, self.epoch, self.flag = what, epoch, flag

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 != self.epoch:
            return
        if self.flag is not None:
            if Path(self.flag).exists():
                return
            Path(self.flag).touch()
        kind, _, value = self.what.partition(" ")
        if kind == "exit":  # a library's exit: no exception, no handler
            os._exit(int(value))
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":  # deaf to everything that Python would hear
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT})
            time.sleep(600)
        if kind == "raise":
            raise RuntimeError(value)


class Counts(pl.Callback):
    """Leaves a byte in a file for each step, and takes its time for it."""

    def __init__(self, *, file: str, seconds: float = 0.05) -> None:
        self.file, self.seconds = file, seconds

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(self.file, "ab") as file:
            file.write(b".")
        time.sleep(self.seconds)
