"""The size of the weights while a network trains."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from genbench.callbacks.base import Measuring, attempt, network
from genbench.measures import Estimate, Snapshot, distance_from_init, l2_norm, spectral_norm


class WeightNorms(Measuring):
    """L2 norm, distance from the initial weights and spectral norm as ``weights/norm/{l2, distance, spectral}``, and of
    each parameter as ``weights/norm/l2.<name>`` and so on.

    Args:
        every_n_epochs: how often, at least 1; ``"powers_of_two"`` for epochs 1, 2, 4, …; ``None`` for the end only.
        initial: state dict of the initial weights; ``None``: those at the start of training, kept in checkpoints.
    """

    def __init__(self, *, every_n_epochs: int | str | None = 1, initial: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.initial = initial
        self._start: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.initial is None and trainer.global_step == 0:
            self._start = {name: p.detach().clone() for name, p in network(pl_module).named_parameters()}

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Estimate]:
        initial = self._start if self.initial is None else self.initial
        measures = {"l2": l2_norm, "distance": distance_from_init, "spectral": spectral_norm}
        try:
            # norms need neither loss nor data
            snapshot = Snapshot(network(pl_module), nn.functional.cross_entropy, [], initial=initial)
        except ValueError as error:
            return {f"weights/norm/{name}": Estimate(None, note=str(error)) for name in measures}
        results: dict[str, Estimate] = {}
        with snapshot.measuring():
            for name, measure in measures.items():
                results |= attempt(name, measure, snapshot)
        return {f"weights/norm/{name}": estimate for name, estimate in results.items()}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._start = state_dict["start"]
