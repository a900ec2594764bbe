"""Exponential moving average of the weights."""

import torch
from torch import Tensor

from genbench.regularization.swa import WeightAverage


class EMA(WeightAverage):
    """Ends with the exponential moving average Σ_s decay^(t−s) w_s / Σ_s decay^(t−s) of the weights w_s after t steps.

    About the last 1 / (1 − decay) steps count (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, arXiv 1703.01780).
    The division makes it a mean from the first step on; initial weights are not part of it. Batch-norm statistics are
    recomputed for the average.
    """

    decay: Tensor

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        self.setting("decay", decay, low=0, high=1, open_high=True)

    def share(self, progress: float | Tensor) -> Tensor:
        self.averaged += torch.ones_like(self.averaged)
        return (1 - self.decay) / (1 - self.decay**self.averaged)
