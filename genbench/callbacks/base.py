"""When to measure, and where the numbers go."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from genbench.checks import check_integer
from genbench.measures import Estimate, Snapshot
from genbench.measures.snapshot import Forward, Loss, preserved_random_state
from genbench.termination import terminable

POWERS_OF_TWO = "powers_of_two"
SPLITS = ("train", "val", "test")


class Measuring(pl.Callback):
    """Measures after epochs or steps of a schedule and always at the end of training, without changing it.

    It serves any LightningModule: what is measured is ``pl_module.network`` where there is one, else the module itself.
    Data come from ``trainer.datamodule.evaluation_batches(split)`` where there is one, else from the Trainer's loaders
    (as they are: a loader that augments or drops its last batch is measured so).

    Values go to every logger, each with its standard error as ``stderr/<key>`` and its cost as ``seconds/<key>``, to
    ``trainer.callback_metrics`` and into ``results``. What cannot be measured (a diverged network, say) is an estimate
    without a value that says why; it never stops the training. The callback's state is part of Lightning's checkpoints.

    Attributes:
        results: the latest estimates by metric key.
        history: one entry a measurement: ``epoch`` (epochs completed; a fraction within one whose length is known),
            ``step`` (optimizer steps), the values, and the standard errors as ``stderr/<key>``.
        seconds: wall-clock time spent measuring.

    Args:
        every_n_epochs: how often, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; ``None`` for no epoch's end.
        every_n_steps: the same in optimizer steps.
        loss: (output, target) -> mean over the batch.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        examples: measure on the first so many of a split; ``None`` for all.
    """

    results: dict[str, Estimate]
    history: list[dict[str, Any]]
    seconds: float
    _weights: dict[str, Tensor]  # those measured last

    def __init__(
        self,
        *,
        every_n_epochs: int | str | None = None,
        every_n_steps: int | str | None = None,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        examples: int | None = None,
    ) -> None:
        name = type(self).__name__
        for setting, every in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if every not in (None, POWERS_OF_TWO):
                check_integer(f"{name} {setting}", every, least=1, note=f"or {POWERS_OF_TWO}, or null")
        if examples is not None:
            check_integer(f"{name} examples", examples, least=1)
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.loss = loss
        self.forward = forward
        self.examples = examples
        self._step = 0
        self._reset()

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        """The estimates by metric key, ``split/family/name``."""
        raise NotImplementedError

    # -- when

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        if trainer.global_step == 0:
            self._reset()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # a batch may make no step (accumulated gradients) or several (several optimizers)
        before, self._step = self._step, trainer.global_step
        if _due(self.every_n_steps, before, self._step):
            epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
            self._record(trainer, pl_module, int(epoch) if epoch.is_integer() else epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if _due(self.every_n_epochs, epoch - 1, epoch):
            self._record(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._record(trainer, pl_module, trainer.current_epoch)

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: float) -> None:
        start = perf_counter()
        now = weights(network(pl_module))
        if self.history and self.history[-1]["step"] == trainer.global_step:
            if self._weights.keys() == now.keys() and all(torch.equal(self._weights[k], now[k]) for k in now):
                return
            self.history.pop()  # other weights were chosen after the last step
        # Lightning heeds SIGTERM between steps, and measures may take minutes
        with preserved_random_state(), terminable():
            self.results = self.measure(trainer, pl_module)
        values = {key: estimate.value for key, estimate in self.results.items()}
        measured = {key: estimate for key, estimate in self.results.items() if estimate.value is not None}
        errors = {f"stderr/{key}": e.stderr for key, e in measured.items() if e.stderr is not None}
        costs = {f"seconds/{key}": e.seconds for key, e in measured.items()}
        self.history.append({"epoch": epoch, "step": trainer.global_step, **values, **errors})
        self._weights = now
        self.seconds += perf_counter() - start

        numbers = {key: value for key, value in values.items() if value is not None}
        known = trainer.callback_metrics
        for key in values.keys() - numbers.keys():
            known.pop(key, None)  # an older value would pass for this one
        known.update({key: torch.tensor(value) for key, value in numbers.items()})
        for logger in trainer.loggers:
            logger.log_metrics({**numbers, **errors, **costs, "epoch": epoch}, step=trainer.global_step)

    def snapshot(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> Snapshot | None:
        """The network now, on one split; ``None`` where there is no such split."""
        return snapshot(trainer, pl_module, split, loss=self.loss, forward=self.forward, examples=self.examples)

    # -- its state

    @property
    def state_key(self) -> str:
        return self._generate_state_key(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return {
            "every_n_epochs": self.every_n_epochs,
            "every_n_steps": self.every_n_steps,
            "examples": self.examples,
        }

    def state_dict(self) -> dict[str, Any]:
        results = {key: asdict(estimate) for key, estimate in self.results.items()}
        return {"results": results, "history": list(self.history), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.results = {key: Estimate(**estimate) for key, estimate in state_dict["results"].items()}
        self.history = list(state_dict["history"])
        self.seconds = state_dict["seconds"]

    def _reset(self) -> None:
        self.results = {}
        self.history = []
        self.seconds = 0.0
        self._weights = {}


def network(pl_module: pl.LightningModule) -> nn.Module:
    """What is measured: ``pl_module.network``, or the module itself."""
    inner = getattr(pl_module, "network", None)
    return inner if isinstance(inner, nn.Module) else pl_module


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's parameters and buffers."""
    return {name: t.detach().clone() for name, t in module.state_dict().items() if isinstance(t, Tensor)}


def snapshot(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    split: str,
    *,
    loss: Loss,
    forward: Forward | None = None,
    examples: int | None = None,
) -> Snapshot | None:
    """The network now, on the first ``examples`` of one split; ``None`` where there is no such split."""
    batches = data(trainer, pl_module, split, examples=examples)
    return None if batches is None else Snapshot(network(pl_module), loss, batches, forward=forward)


def data(
    trainer: pl.Trainer, pl_module: pl.LightningModule, split: str, *, examples: int | None = None
) -> Iterable[Any] | None:
    """The batches of the first ``examples`` of one split; ``None`` where there is no such split."""
    loaders = [_own(loader) for loader in _loaders(trainer, pl_module, split)]
    if not loaders:
        return None
    return loaders[0] if len(loaders) == 1 and examples is None else take(loaders, examples)


def _due(every: int | str | None, before: int, now: int) -> bool:
    """Whether a multiple of ``every``, or a power of two, lies in (before, now]."""
    if every == POWERS_OF_TWO:
        return now.bit_length() > before.bit_length()
    return isinstance(every, int) and now // every > before // every


def _own(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader; of one with persistent workers a copy: it has a single iterator, in whose midst training may be."""
    if not getattr(loader, "persistent_workers", False):
        return loader
    own: Any = copy.copy(loader)
    own._iterator = None
    return own


def _loaders(trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> list[Iterable[Any]]:
    data: Any = getattr(trainer, "datamodule", None)
    if hasattr(data, "evaluation_batches"):
        return [data.evaluation_batches(split)] if split in getattr(data, "splits", SPLITS) else []
    if split == "train":
        loaders = trainer.train_dataloader
    elif split == "val":
        loaders = trainer.val_dataloaders
    else:
        owners = [data] if data is not None else [pl_module]
        owner = next((o for o in owners if is_overridden("test_dataloader", o)), None)
        loaders = None if owner is None else owner.test_dataloader()
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]  # as Lightning reads them


def take(loaders: list[Iterable[Any]], examples: int | None) -> list[Any]:
    """The batches of all loaders, up to so many examples."""
    batches: list[Any] = []
    left = examples
    for loader in loaders:
        with preserved_random_state(loader):
            for batch in loader:
                if left is None:
                    batches.append(batch)
                    continue
                n = next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim), 0)
                batches.append(batch if n <= left else _first(batch, n, left))
                left -= min(n, left)
                if left == 0:
                    return batches
    return batches


def _first(batch: Any, n: int, m: int) -> Any:
    return tree_map(lambda leaf: leaf[:m] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == n else leaf, batch)
