"""The flatness of the loss while a network trains."""

from collections.abc import Mapping

import pytorch_lightning as pl
from torch import nn

from genbench.callbacks.base import SPLITS, MeasureOf, Measuring, attempt
from genbench.checks import check_choice
from genbench.measures import (
    Estimate,
    adaptive_sharpness,
    average_sharpness,
    hessian_eigenvalues,
    hessian_trace,
    sam_sharpness,
)
from genbench.measures.snapshot import Forward, Loss

_STANDARD: dict[str, MeasureOf] = {
    "lambda_1": hessian_eigenvalues,
    "trace": hessian_trace,
    "sam_sharpness": sam_sharpness,
    "average_sharpness": average_sharpness,
    "adaptive_sharpness": adaptive_sharpness,
}


class Flatness(Measuring):
    """Any set of measures of the loss surface, as ``train/flatness/<name>``.

    Args:
        every_n_epochs: how often, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; ``None`` for the end only.
        loss: (output, target) -> mean over the batch.
        forward: (model, batch) -> (output, target), for batches that are not (input, target).
        examples: measure on the first so many of the split; ``None`` for all.
        split: train, val or test.
        measures: name -> function of a snapshot; one that gives several estimates names them itself. ``None`` for
            largest eigenvalue, trace, and SAM, average and adaptive sharpness with their defaults.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int | str | None = None,
        loss: Loss = nn.functional.cross_entropy,
        forward: Forward | None = None,
        examples: int | None = None,
        split: str = "train",
        measures: Mapping[str, MeasureOf] | None = None,
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs, loss=loss, forward=forward, examples=examples)
        self.split = check_choice("Flatness split", split, SPLITS)
        self.measures = dict(_STANDARD if measures is None else measures)
        for name, measure in self.measures.items():
            if not callable(measure):
                raise ValueError(f"Flatness measures.{name} is {measure!r}; accepted: a function of a snapshot")

    @property
    def state_key(self) -> str:
        settings = {"every_n_epochs": self.every_n_epochs, "examples": self.examples}
        return self._generate_state_key(**settings, split=self.split, measures=sorted(self.measures))

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        results: dict[str, Estimate] = {}
        try:
            snapshot = self.snapshot(trainer, pl_module, self.split)
            if snapshot is None:
                raise ValueError(f"there is no {self.split} split")
        except ValueError as error:
            results = {name: Estimate(None, note=str(error)) for name in self.measures}
        else:
            for name, measure in self.measures.items():
                results |= attempt(name, measure, snapshot)
        return {f"{self.split}/flatness/{name}": estimate for name, estimate in results.items()}
