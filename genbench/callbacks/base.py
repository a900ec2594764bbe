"""When to measure, and where the numbers go."""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genbench.callbacks.splits import AUTO, Splits, noted
from genbench.callbacks.splits import take as take  # also importable from here
from genbench.callbacks.subject import check_subject, is_own, network, probe, weights
from genbench.checks import check_flag, check_integer
from genbench.measures import Estimate, Snapshot
from genbench.measures.measure_progress import progress_to
from genbench.measures.random_state import restoring_random_state
from genbench.measures.snapshot import Count, Forward, Loss
from genbench.privacy import clean
from genbench.process.termination import terminable
from genbench.records.unfinished import Unfinished

POWERS_OF_TWO = "powers_of_two"
Every = int | str | Sequence[int] | None
"""When to measure: every so many, at powers of two, at the numbers of a list, or never."""
_NUMBER = re.compile(r"-?\d[\d.]*(?:e[+-]?\d+)?")

_log = logging.getLogger(__name__)
_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # reasons that were already logged


class Measuring(pl.Callback):
    """Base of callbacks that measure on a schedule and at the end of training, without changing training.

    They work with any LightningModule of ``pytorch_lightning`` or ``lightning``. They measure the output of its
    ``forward``, or of the part that ``network`` names; of genbench's own module, its network. Data come from
    ``trainer.datamodule.evaluation_batches(split)`` if it has that method, else from the Trainer's loaders within its
    limits of batches. Loaders are used as they are, even if they augment or drop the last batch.

    Values go to every logger, to ``trainer.callback_metrics`` and to ``results``. If something cannot be measured, as
    in a diverged network, its estimate has no value but a note, and each reason is logged once; training goes on.
    Lightning's checkpoints contain the callback's state.

    Attributes:
        results: the latest estimates by metric key.
        history: one entry per measurement: ``epoch`` (epochs completed, with a fraction within an epoch of known
            length), ``step`` (optimizer steps), the values, and the standard errors as ``stderr/<key>``.
        seconds: wall-clock time spent measuring.

    Args:
        every_n_epochs: how often, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; a list of epochs; ``None``
            for never.
        every_n_steps: the same in optimizer steps.
        loss: (output, target) -> mean over the batch.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        count: (output, target) -> weight of a batch in the mean (see :class:`genbench.measures.Snapshot`); ``None`` for
            its number of examples.
        examples: number of examples of a split to measure on, the same each time (see
            :func:`genbench.callbacks.splits.take`); ``None`` for all; ``"auto"`` for at most 1,024 in measures of
            curvature and sharpness and all in others.
        network: dotted name of the part of the module to measure; ``None`` for the module itself.
        log_details: whether loggers also get standard errors as ``stderr/<key>`` and costs as ``seconds/<key>``.
    """

    results: dict[str, Estimate]
    history: list[dict[str, Any]]
    seconds: float
    _weights: dict[str, Tensor]  # the weights measured last

    def __init__(
        self,
        *,
        every_n_epochs: Every = None,
        every_n_steps: Every = None,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        count: Count | None = None,
        examples: int | str | None = None,
        network: str | None = None,
        log_details: bool = False,
    ) -> None:
        name = type(self).__name__
        self.every_n_epochs = _checked(f"{name} every_n_epochs", every_n_epochs)
        self.every_n_steps = _checked(f"{name} every_n_steps", every_n_steps)
        if examples not in (None, AUTO):
            check_integer(f"{name} examples", examples, least=1, note="or auto, or null")
        check_subject(name, loss=loss, forward=forward, count=count, network=network)
        self.loss = loss
        self.forward = forward
        self.count = count
        self.examples = examples
        self.network = network
        self.log_details = check_flag(f"{name} log_details", log_details)
        self._step = 0
        self._reset()

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        """Return the estimates by metric key, ``split/family/name``."""
        raise NotImplementedError

    # -- when

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self.check(pl_module)
        if trainer.global_step == 0:
            self._reset()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # one batch may be no step (accumulated gradients) or several (several optimizers)
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

    def part(
        self, pl_module: pl.LightningModule, name: str, take: Callable[[], dict[str, Estimate]]
    ) -> dict[str, Estimate]:
        """Return the estimates of ``take``; at the end of genbench's own runs, keep them on disk.

        If such a run is interrupted while it measures, the estimates are read back instead of measured again.
        """
        unfinished: Unfinished | None = getattr(pl_module, "unfinished", None)
        if unfinished is None:
            return take()
        if (known := unfinished.of(self.state_key).get(name)) is None:
            known = noted(take(), self._notes)
            unfinished.keep(self.state_key, name, known)
        return known

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: float) -> None:
        start = perf_counter()
        now = self.weights(pl_module)
        if self.history and self.history[-1]["step"] == trainer.global_step:
            if self._weights.keys() == now.keys() and all(torch.equal(self._weights[k], now[k]) for k in now):
                return
            self.history.pop()  # the weights changed after the last step, as by early stopping
        # Lightning reacts to SIGTERM only between steps, and measures may take minutes
        pace: Any = getattr(pl_module, "pace", None)  # genbench's own training shows its progress
        shown = nullcontext() if pace is None else progress_to(lambda line, urgent=False: pace.say(line))
        with restoring_random_state(), terminable(), shown:
            found = self.measure(trainer, pl_module)
        self.results = noted(found, self._notes)
        values = {key: estimate.value for key, estimate in self.results.items()}
        measured = {key: estimate for key, estimate in self.results.items() if estimate.value is not None}
        errors = {f"stderr/{key}": e.stderr for key, e in measured.items() if e.stderr is not None}
        self.history.append({"epoch": epoch, "step": trainer.global_step, **values, **errors})
        self._weights = now
        self.seconds += perf_counter() - start
        warn(trainer, pl_module, {key: self.results[key].note for key in self.unmeasured()})

        numbers = {key: value for key, value in values.items() if value is not None}
        known = trainer.callback_metrics
        for key in values.keys() - numbers.keys():
            known.pop(key, None)  # an older value would look like this one
        known.update({key: torch.tensor(value) for key, value in numbers.items()})
        logged = numbers
        if self.log_details:
            logged = {**numbers, **errors, **{f"seconds/{key}": e.seconds for key, e in measured.items()}}
        for logger in trainer.loggers:
            logger.log_metrics({**logged, "epoch": epoch}, step=trainer.global_step)

    def unmeasured(self) -> list[str]:
        """Return the keys of ``results`` that could not be measured."""
        return [key for key, estimate in self.results.items() if estimate.value is None]

    # -- what

    def keys(self, splits: Sequence[str]) -> list[str]:
        """Return the metric keys that can be measured, as far as is known before training, of a Trainer with these
        splits; ``*`` stands for what is not known."""
        return ["*"]

    def check(self, pl_module: pl.LightningModule) -> None:
        """Refuse names of parts that the module does not have, before training."""
        self.subject(pl_module)

    def subject(self, pl_module: pl.LightningModule) -> nn.Module:
        """Return the network to measure."""
        return network(pl_module, self.network)

    def weights(self, pl_module: pl.LightningModule) -> dict[str, Tensor]:
        """Copy the network's parameters and buffers."""
        return weights(self.subject(pl_module))

    def snapshot(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        split: str,
        *,
        of: Snapshot | None = None,
        **settings: Any,
    ) -> Snapshot | None:
        """Return a snapshot of the network on one split, with the weights of the snapshot ``of`` if there is one;
        ``None`` if there is no such split."""
        examples = self.examples if isinstance(self.examples, int) else None
        data = self._splits.data(trainer, pl_module, split, examples=examples)
        if data is None:
            return None
        if of is not None:
            found = of.on(data.batches, **data.marks)
        else:
            settings |= {"forward": self.forward, "count": self.count, **data.marks}
            found = Snapshot(self.subject(pl_module), self.loss, data.batches, **settings)
        if split not in self._notes:  # the first time
            probe(found)
        self._notes[split] = data.note
        return found

    # -- its state

    @property
    def state_key(self) -> str:
        return self._generate_state_key(**self._settings())

    def _settings(self) -> dict[str, Any]:
        settings = {
            "every_n_epochs": self.every_n_epochs,
            "every_n_steps": self.every_n_steps,
            "examples": self.examples,
        }
        return settings if self.network is None else {**settings, "network": self.network}

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
        self._notes: dict[str, str | None] = {}  # by split
        self._splits = Splits()


def kind_of(reason: str) -> str:
    """Return a reason without its numbers: reasons that differ in these alone count as one."""
    return _NUMBER.sub("#", reason)


def warn(trainer: Any, pl_module: Any, notes: dict[str, str | None]) -> None:
    """Log what could not be measured: each reason once per training, or once per process in genbench's own runs.

    ``notes`` are the reasons by key. Reasons that differ only in numbers count as one.
    """
    if not trainer.is_global_zero:  # only one of several processes logs
        return
    said = _said.setdefault(type(pl_module) if is_own(pl_module) else trainer, set())
    kinds: dict[str, list[str]] = {}
    for key, reason in notes.items():
        kinds.setdefault(kind_of(reason or ""), []).append(key)
    for kind, keys in kinds.items():
        if kind and kind not in said:
            said.add(kind)
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            _log.warning("not measured: %s%s: %s", keys[0], more, clean(notes[keys[0]]))


def _checked(name: str, every: Every) -> Every:
    """``every`` if it says when; a sequence as a list."""
    if isinstance(every, Sequence) and not isinstance(every, str):
        return [check_integer(name, number, least=1) for number in every]
    if every not in (None, POWERS_OF_TWO):
        check_integer(name, every, least=1, note=f"or {POWERS_OF_TWO}, or null")
    return every


def _due(every: Every, before: int, now: int) -> bool:
    """Whether a multiple of ``every``, a power of two, or one of a list lies in (before, now]."""
    if isinstance(every, list):
        return any(before < number <= now for number in every)
    if every == POWERS_OF_TWO:
        return now.bit_length() > before.bit_length()
    return isinstance(every, int) and now // every > before // every
