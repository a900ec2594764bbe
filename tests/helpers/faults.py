"""Faults on purpose: callbacks that end their process, raise or hang at the end of an epoch, and sweeps of them."""

import os
import signal
import time
from pathlib import Path

import pytorch_lightning as pl

from genbench.runs import sweep

FEW = (
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
    "trainer.max_steps=27",
)


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


def jobs(configure, *faults, **more):
    """A job for each fault, by its seed; None for a run that is well."""
    found = []
    for seed, (config, what) in enumerate(
        zip(configure(*FEW, each=[{"seed": seed} for seed in range(len(faults))]), faults, strict=True)
    ):
        if what is not None:
            config["callbacks"]["fault"] = {"_target_": "tests.helpers.faults.Misbehaves", "what": what, **more}
        found.append(sweep.Job((f"seed={seed}",), config, {"model": "mlp"}))
    return found
