"""Stop training at a loss, an accuracy or a margin on the whole train split."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class _Look:
    """A look at the train loss: its optimizer step, the loss, how fast ln L falls a step, and the step of the next
    look; None where unknown."""

    step: int | None = None
    loss: float = math.nan
    rate: float = 0.0
    next: int | None = None

    def after(self, step: int, loss: float, threshold: float, tolerance: float) -> "_Look":
        """The look at ``step``, which this one precedes; the loss is above the threshold."""
        if self.step is None or not math.isfinite(loss):
            return _Look(step, loss)
        passed = step - self.step
        rate = max(math.log(self.loss / loss) / passed, self.rate / 2)  # a loss that jumps falls faster at times
        way = max(math.log(loss / threshold), -math.log1p(-tolerance)) / 2
        wait = passed if rate <= 0 else min(way / rate, 2 * passed)
        return _Look(step, loss, rate, step + max(1, int(wait)))


class Stop(pl.Callback):
    """Stops training when the weights after an epoch reach a threshold in a full pass in evaluation mode.

    Without a threshold it does nothing. If the pass fails, training goes on, and each reason is logged once.
    ``train/optimization/steps`` are the optimizer steps until the end.

    With a ``tolerance`` it also looks within epochs, so that runs stop at nearly the same train loss. It looks again
    after the steps in which ln L comes half way to ln ``train_loss``, or falls by half the tolerance if that is more,
    but after at most twice the steps that passed before this look. It expects ln L to fall as fast as since the look
    before, or half as fast as it expected then if that is more; while it has never fallen, it waits as long as before.

    Args:
        train_loss: stop if the train loss is at most this, > 0.
        train_accuracy: stop if the train accuracy is at least this, in (0, 1].
        train_margin: stop if 99 % of the train examples have at least this margin, > 0 (see
            :func:`genbench.measures.margin`), as Nagarajan & Kolter 2019 (arXiv 1902.04742) do.
        every_n_epochs: how often to check, at least 1.
        tolerance: look so often that the loss at the stop is at most this share below ``train_loss``, in (0, 1), where
            it falls smoothly; a loss that jumps within a step may lie lower. ``None``: after epochs alone.
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
        tolerance: float | None = None,
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
        if tolerance is not None:
            check_number("Stop tolerance", tolerance, low=0, high=1, open_low=True, open_high=True)
            if train_loss is None:
                raise ValueError(f"Stop tolerance is {tolerance!r} and train_loss is null; accepted: null, or both")
        check_subject("Stop", loss=loss, forward=forward, count=count, network=network)
        self.train_loss = train_loss
        self.train_accuracy = train_accuracy
        self.train_margin = train_margin
        self.every_n_epochs = check_integer("Stop every_n_epochs", every_n_epochs, least=1)
        self.tolerance = tolerance
        self.loss = loss
        self.forward = forward
        self.count = count
        self.network = network
        self.results: dict[str, Estimate] = {}
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._splits = Splits()
        self._findings: dict[str, Any] = {}  # on the train split's batches
        self._look = _Look()

    @property
    def _idle(self) -> bool:
        return (self.train_loss, self.train_accuracy, self.train_margin) == (None, None, None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(pl_module)
        self._splits, self._findings, self.results = Splits(), {}, {}
        if trainer.global_step == 0:
            self._look = _Look()

    @property
    def state_key(self) -> str:
        names = ("train_loss", "train_accuracy", "train_margin", "every_n_epochs", "tolerance", "network")
        return self._generate_state_key(**{name: getattr(self, name) for name in names})

    def state_dict(self) -> dict[str, Any]:
        return {} if self.tolerance is None else asdict(self._look)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._look = _Look(**state_dict)

    def keys(self, splits: Sequence[str]) -> list[str]:
        """Return the metric keys that it will have, see :meth:`genbench.callbacks.base.Measuring.keys`."""
        return [] if self._idle else [_STEPS]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._idle:
            self.results = {_STEPS: Estimate(float(trainer.global_step))}

    def check(self, pl_module: pl.LightningModule) -> None:
        """Refuse the name of a part that the module does not have, before training."""
        network(pl_module, self.network)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._look.next is not None and trainer.global_step >= self._look.next:
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._idle and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._check(trainer, pl_module)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._look.step == trainer.global_step:  # within the epoch that ends now
            return
        with restoring_random_state():
            try:
                reached = self._reached(trainer, pl_module)
            except Exception as error:  # a failed measurement never ends training
                self._look = _Look()  # looks after epochs alone until there is a loss again
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
        if not self._findings:
            probe(train)
        else:
            train = train.knowing(self._findings)
        with train.measuring():
            self._findings = train.findings
            if self.train_loss is not None:
                if train.mean_loss <= self.train_loss:
                    self._look = _Look(trainer.global_step)
                    return True
                if self.tolerance is not None:
                    self._look = self._look.after(trainer.global_step, train.mean_loss, self.train_loss, self.tolerance)
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
