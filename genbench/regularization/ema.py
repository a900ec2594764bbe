"""Exponential moving average of the weights."""

import torch
from torch import Tensor

from genbench.regularization.swa import WeightAverage


class EMA(WeightAverage):
    """The final weights are Σ_s decay^(t−s) w_s / Σ_s decay^(t−s) over the weights w_s after each of the t steps
    (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, arXiv 1703.01780): about the last 1 / (1 − decay) of them count.
    Batch-norm statistics are estimated anew for them.

    The division makes it a mean from the first step on; the initial weights are no part of it.
    """

    decay: Tensor

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        self.setting("decay", decay, low=0, high=1, open_high=True)

    def share(self, progress: float | Tensor) -> Tensor:
        self.averaged += torch.ones_like(self.averaged)
        return (1 - self.decay) / (1 - self.decay**self.averaged)
