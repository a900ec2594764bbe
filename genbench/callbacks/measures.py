"""Evaluate any set of measures during training."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from genbench.callbacks.base import Every, Measuring
from genbench.callbacks.splits import ALL, AUTO, SPLITS, noted
from genbench.callbacks.views import Views
from genbench.checks import check_choice
from genbench.measures import (
    Estimate,
    Snapshot,
    adaptive_sharpness,
    average_sharpness,
    distance_from_init,
    hessian_eigenvalues,
    hessian_trace,
    l2_norm,
    sam_sharpness,
    spectral_norm,
)
from genbench.measures.base import (
    MeasureOf,
    check_network,
    check_settings,
    key_prefix,
    names_of,
    needs_data,
    reason,
)
from genbench.measures.snapshot import Count, Forward, Loss
from genbench.records.unfinished import Unfinished

STANDARD: dict[str, MeasureOf] = {  # as in conf/measures/standard.yaml
    "l2": l2_norm,
    "distance": distance_from_init,
    "spectral": spectral_norm,
    "lambda_1": hessian_eigenvalues,
    "trace": hessian_trace,
    "sam_sharpness": sam_sharpness,
    "average_sharpness": average_sharpness,
    "adaptive_sharpness": adaptive_sharpness,
}


class Measures(Measuring):
    """Evaluates any set of measures, as ``split/family/name``, or ``weights/family/name`` if they need no data.

    All measures share one snapshot, which computes common quantities once. A function without the decorator
    :func:`genbench.measures.measure` belongs to the family ``other``. One with the argument ``train`` also gets a
    snapshot of the train split. If a measure raises, its value is null with the reason; the other measures and training
    go on.

    Args:
        measures: functions of a snapshot, by name; a function with several estimates names them itself. ``None``: the
            standard set with its defaults.
        split: train, val, test, or all: the examples of every split.
        examples: number of examples of the split to measure on, the same each time (see
            :func:`genbench.callbacks.splits.take`); ``None`` for all; ``"auto"`` for at most 1,024 in measures of
            curvature and sharpness and all in others.
        every_n_epochs: how often, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; a list of epochs; ``None``
            for never. Measures are always evaluated at the end of training.
        every_n_steps: the same in optimizer steps.
        loss: (output, target) -> mean over the batch.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        count: (output, target) -> weight of a batch in the mean (see :class:`genbench.measures.Snapshot`); ``None`` for
            its number of examples.
        initial: state dict of the initial weights; ``None``: those at the start of training, kept in checkpoints.
        network: dotted name of the part of the module to measure; ``None`` for the module itself.
        log_details: whether loggers also get standard errors as ``stderr/<key>`` and costs as ``seconds/<key>``.
    """

    def __init__(
        self,
        *,
        measures: Mapping[str, MeasureOf] | None = None,
        split: str = "train",
        examples: int | str | None = AUTO,
        every_n_epochs: Every = None,
        every_n_steps: Every = None,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        count: Count | None = None,
        initial: Mapping[str, Tensor] | None = None,
        network: str | None = None,
        log_details: bool = False,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            loss=loss,
            forward=forward,
            count=count,
            examples=examples,
            network=network,
            log_details=log_details,
        )
        self.split = check_choice("Measures split", split, (*SPLITS, ALL))
        self.measures = dict(STANDARD if measures is None else measures)
        for name, function in self.measures.items():
            if not callable(function):
                raise ValueError(f"Measures measures.{name} is {function!r}; accepted: a function of a snapshot")
        check_settings(self.measures)
        self.initial = initial
        self.origins: dict[str, list[str]] = {}  # the metric keys of each measure
        self._start: dict[str, Tensor] | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(**self._settings(), split=self.split, measures=sorted(self.measures))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.initial is None and trainer.global_step == 0:
            self._start = self.weights(pl_module)

    def keys(self, splits: Sequence[str]) -> list[str]:
        return [
            f"{key_prefix(function, self.split)}/{estimate}"
            for name, function in self.measures.items()
            for estimate in names_of(name, function)
            if self.split in (*splits, ALL) or not needs_data(function)
        ]

    def check(self, pl_module: pl.LightningModule) -> None:
        check_network(self.measures, self.subject(pl_module))

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        initial = self._start if self.initial is None else self.initial
        settings: dict[str, Any] = {
            "initial": initial,
            "scaling": getattr(getattr(trainer, "datamodule", None), "scaling", (0.0, 1.0)),
        }
        try:
            views = Views.of(
                self.measures,
                self.split,
                examples=self.examples,
                snapshot=lambda split: self.snapshot(trainer, pl_module, split, **settings),
                data=lambda examples: self._splits.data(trainer, pl_module, self.split, examples=examples),
                without=lambda batches: Snapshot(
                    self.subject(pl_module), self.loss, batches, forward=self.forward, **settings
                ),
            )
        except Exception as error:  # a failed measurement never ends training
            unmeasured = Estimate(None, note=reason(error))
            return {
                f"{key_prefix(function, self.split)}/{name}": unmeasured for name, function in self.measures.items()
            }
        unfinished: Unfinished | None = getattr(pl_module, "unfinished", None)
        known = {} if unfinished is None else unfinished.of(self.state_key)
        self.origins = {name: list(estimates) for name, estimates in known.items()}

        def keep(name: str, estimates: dict[str, Estimate]) -> None:
            self.origins[name] = list(estimates)
            if unfinished is not None:
                unfinished.keep(self.state_key, name, noted(estimates, self._notes))

        return views.evaluate(known=dict(known), keep=keep)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._start = state_dict["start"]
