"""Faults on purpose: methods and callbacks that end their process, raise or hang, and sweeps of them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from genbench.regularization import Method
from genbench.runs import sweep

FEW = (
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
    "trainer.max_steps=27",
)


BROKEN = "raise broken on purpose\nsecond line, in /some/folder/of/mine/file.py"


def misbehave(what: str) -> None:
    """Do what the first word of ``what`` names, with the rest as its value."""
    kind, _, value = what.partition(" ")
    if kind == "exit":  # a library's exit: no exception, no handler
        os._exit(int(value))
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":  # deaf to everything that Python would hear
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT})
        time.sleep(600)
    if kind == "sleep":
        time.sleep(float(value))
    if kind == "quit":
        raise SystemExit(int(value))
    if kind == "interrupt":  # as if somebody had stopped this process alone
        raise KeyboardInterrupt
    if kind == "allocate":
        raise MemoryError(f"cannot allocate {value}")
    if kind == "raise":
        raise RuntimeError(value)


def is_first(flag: str | None) -> bool:
    """Whether the file ``flag`` was missing until now; always without one."""
    if flag is not None:
        if Path(flag).exists():
            return False
        Path(flag).touch()
    return True


class Misbehaves(pl.Callback):
    """At the end of epoch ``epoch``, from 1, or of each, does what ``what`` says; with ``flag``, a file, the first
    time only."""

    def __init__(self, *, what: str, epoch: int | None = 1, flag: str | None = None) -> None:
        self.what, self.epoch, self.flag = what, epoch, flag

    def on_train_epoch_end(self, trainer, pl_module):
        if self.epoch in (None, trainer.current_epoch + 1) and is_first(self.flag):
            misbehave(self.what)


class Counts(pl.Callback):
    """Leaves a byte in a file for each step, its number, and takes its time for it."""

    def __init__(self, *, file: str, seconds: float = 0.05) -> None:
        self.file, self.seconds = file, seconds

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(self.file, "ab") as file:
            file.write(bytes([trainer.global_step % 256]))
        time.sleep(self.seconds)


class Faulty(Method):
    """After each step past the share ``after`` of all, does what ``what`` says; with ``flag``, a file, the first time
    only, and with ``rank`` in this process of the run alone."""

    def __init__(self, *, what: str, after: float = 0.5, flag: str | None = None, rank: int | None = None) -> None:
        super().__init__()
        self.what, self.after, self.flag, self.rank = what, after, flag, rank

    def after_step(self, params, progress):
        here = self.rank is None or os.environ.get("RANK") == str(self.rank)
        if progress > self.after and here and is_first(self.flag):
            misbehave(self.what)


class Slow(Method):
    """Takes its time for each step, so that it can be killed; with ``file``, leaves a line there for each training that
    begins."""

    def __init__(self, *, seconds: float = 0.05, file: str | None = None) -> None:
        super().__init__()
        self.seconds, self.file = seconds, file

    def after_step(self, params, progress):
        if self.file is not None:
            with open(self.file, "a") as file:
                file.write("begun\n")
            self.file = None
        time.sleep(self.seconds)


class Waits(Method):
    """Late in training, says which process it is in, and takes its time until there is a file ``go``."""

    def __init__(self, *, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def after_step(self, params, progress):
        if progress > 0.6 and not (self.folder / "go").exists():
            (self.folder / os.environ["RANK"]).write_text(str(os.getpid()))
            time.sleep(0.5)


class Decides(Method):
    """Looks at the value of a tensor, which no pack can."""

    def transform(self, net, x, y, draw):
        return (x, y) if float(x.sum()) < 1e9 else (-x, y)


def node(fault: type, **settings: Any) -> dict[str, Any]:
    """The configuration of a fault."""
    return {"_target_": f"{fault.__module__}.{fault.__qualname__}", **settings}


def offer(choice: Path, fault: type, **settings: Any) -> None:
    """Write the file of a choice, ``group/name`` in a folder of configurations, that is this fault."""
    path = choice.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "defaults: [default]\n" if path.parent.name == "callbacks" else ""
    path.write_text(head + OmegaConf.to_yaml({path.stem: node(fault, **settings)}))


def jobs(configure, *faults, **more):
    """A job for each fault, by its seed; None for a run that is well."""
    found = []
    for seed, (config, what) in enumerate(
        zip(configure(*FEW, each=[{"seed": seed} for seed in range(len(faults))]), faults, strict=True)
    ):
        if what is not None:
            config["callbacks"]["fault"] = node(Misbehaves, what=what, **more)
        found.append(sweep.Job((f"seed={seed}",), config, {"model": "mlp"}))
    return found
