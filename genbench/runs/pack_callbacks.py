"""The callbacks of runs that train as one: each sees its own run, as in a training of its own."""

from functools import partial
from typing import Any

import pytorch_lightning as pl

from genbench.runs.hooks import acts, hook_on_batches, overrides
from genbench.runs.run import Run
from genbench.training import Unpackable

# the hooks of Lightning that a pack can call for each of its runs
HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
    "teardown",
    "state_dict",
    "load_state_dict",
    "state_key",
)


def check_hooks(run: Run) -> None:
    """Refuse callbacks and a datamodule with hooks that a pack does not call."""
    if hook := hook_on_batches(run.data):
        raise Unpackable(f"data {type(run.data).__name__} uses {hook}, which a pack has not")
    for callback in run.callbacks:
        used = [hook for hook in vars(pl.Callback) if not hook.startswith("_") and overrides(callback, hook)]
        if other := sorted(set(used) - set(HOOKS)):
            raise Unpackable(f"callback {type(callback).__name__} uses {other[0]}, which a pack has not")


def calls_by_hook(runs: list[Run]) -> dict[str, list[tuple[int, Any]]]:
    """For each hook, the methods of callbacks that do something in it, each with the index of its run."""
    return {
        hook: [
            (index, getattr(callback, hook))
            for index, run in enumerate(runs)
            for callback in run.callbacks
            if acts(callback, hook)
        ]
        for hook in HOOKS
        if hook.startswith(("setup", "on_"))
    }


class Dispatch(pl.Callback):
    """Calls the callbacks of every run as Lightning would if the run trained alone."""

    def __init__(self, pack: Any) -> None:
        self._pack = pack  # a RunPack

    def _all(self, hook: str, *args: Any) -> None:
        self._of(hook, None, *args)

    def _of(self, hook: str, only: int | None, *args: Any) -> None:
        """Call a hook of all active runs, or of one."""
        pack = self._pack
        for index, call in pack.calls[hook]:
            if index in pack.active and only in (None, index):
                pack.guarded(index, partial(call, pack.trainer_of(index), pack.module_of(index), *args))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._pack.attach(trainer)
        self._all("setup", stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_fit_start")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_start")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_epoch_start")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch("on_train_batch_start", batch, batch_idx)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch("on_train_batch_end", batch, batch_idx, outputs)
        self._pack.end_stopped(partial(self._of, "on_train_epoch_end"))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all("on_train_epoch_end")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pack.end(list(self._pack.active))

    def _batch(self, hook: str, batch: Any, batch_idx: int, *outputs: Any) -> None:
        pack = self._pack
        for index, call in pack.calls[hook]:
            if index in pack.active:
                places = pack.places[index]
                own = tuple(t[places.start : places.stop] for t in batch)
                args = (pack.trainer_of(index), pack.module_of(index), *outputs, own, batch_idx)
                pack.guarded(index, partial(call, *args))
