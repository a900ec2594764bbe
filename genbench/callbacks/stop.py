"""Stop training at a loss, an accuracy or a margin on the whole train split."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from torch import nn

from genbench.callbacks.base import warn
from genbench.callbacks.splits import Splits
from genbench.callbacks.subject import check_subject, network, probe
from genbench.checks import check_integer, check_number
from genbench.measures import Snapshot, accuracy, margin
from genbench.measures.base import reason
from genbench.measures.random_state import restoring_random_state
from genbench.measures.snapshot import Count, Forward, Loss
from genbench.records.estimate import Estimate

_MARGIN = partial(margin, percentile=1)
_STEPS = "train/optimization/steps"


class Stop(pl.Callback):
    """Stops training after an epoch whose final weights reach a threshold in a full pass in evaluation mode.

    Without a threshold it does nothing. If the pass fails, training goes on, and each reason is logged once.
    ``train/optimization/steps`` are the optimizer steps until the end.

    Args:
        train_loss: stop if the train loss is at most this, > 0.
        train_accuracy: stop if the train accuracy is at least this, in (0, 1].
        train_margin: stop if 99 % of the train examples have at least this margin, > 0 (see
            :func:`genbench.measures.margin`), as Nagarajan & Kolter 2019 (arXiv 1902.04742) do.
        every_n_epochs: how often to check, at least 1.
        loss: (output, target) -> mean over the batch.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        count: (output, target) -> weight of a batch in the mean (see :class:`genbench.measures.Snapshot`); ``None`` for
            its number of examples.
        network: dotted name of the part of the module to measure; ``None`` for the module itself.
    """

    def __init__(
        self,
        *,
        train_loss: float | None = None,
        train_accuracy: float | None = None,
        train_margin: float | None = None,
        every_n_epochs: int = 1,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        count: Count | None = None,
        network: str | None = None,
    ) -> None:
        for name, value, high in (
            ("train_loss", train_loss, math.inf),
            ("train_accuracy", train_accuracy, 1.0),
            ("train_margin", train_margin, math.inf),
        ):
            if value is not None and check_number(f"Stop {name}", value, low=0, high=high) == 0:
                raise ValueError(f"Stop {name} is {value!r}; accepted: a number > 0")
        check_subject("Stop", loss=loss, forward=forward, count=count, network=network)
        self.train_loss = train_loss
        self.train_accuracy = train_accuracy
        self.train_margin = train_margin
        self.every_n_epochs = check_integer("Stop every_n_epochs", every_n_epochs, least=1)
        self.loss = loss
        self.forward = forward
        self.count = count
        self.network = network
        self.results: dict[str, Estimate] = {}
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._splits = Splits()
        self._probed = False

    @property
    def _idle(self) -> bool:
        return (self.train_loss, self.train_accuracy, self.train_margin) == (None, None, None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(pl_module)
        self._splits, self._probed, self.results = Splits(), False, {}

    def keys(self, splits: Sequence[str]) -> list[str]:
        """Return the metric keys that it will have, see :meth:`genbench.callbacks.base.Measuring.keys`."""
        return [] if self._idle else [_STEPS]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._idle:
            self.results = {_STEPS: Estimate(float(trainer.global_step))}

    def check(self, pl_module: pl.LightningModule) -> None:
        """Refuse the name of a part that the module does not have, before training."""
        network(pl_module, self.network)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._idle or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        with restoring_random_state():
            try:
                reached = self._reached(trainer, pl_module)
            except Exception as error:  # a failed measurement never ends training
                warn(trainer, pl_module, {"Stop": reason(error)})
                return
        if reached:
            trainer.should_stop = True

    def _reached(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        data = self._splits.data(trainer, pl_module, "train")
        if data is None:
            raise ValueError("there is no train split")
        model = network(pl_module, self.network)
        train = Snapshot(model, self.loss, data.batches, forward=self.forward, count=self.count)
        if not self._probed:
            probe(train)
            self._probed = True
        with train.measuring():
            if self.train_loss is not None and train.mean_loss <= self.train_loss:
                return True
            found = [
                (threshold, measured(train))
                for threshold, measured in ((self.train_accuracy, accuracy), (self.train_margin, _MARGIN))
                if threshold is not None
            ]
        for threshold, estimate in found:
            if estimate.value is None:
                raise ValueError(estimate.note)
            if estimate.value >= threshold:
                return True
        return False
