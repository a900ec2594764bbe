"""Decoupled weight decay."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters
from genbench.rng import StepRandom


class WeightDecay(Method):
    """w ← (1 − lr · strength) · w before each step, for any optimizer (Loshchilov & Hutter 2019, arXiv 1711.05101).

    With Adam this is exactly AdamW. All trainable parameters decay, as in torch.
    """

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)

    @torch.no_grad()
    def before_step(self, params: Parameters, lr: Tensor, draw: StepRandom) -> None:
        for p in params:
            p.mul_((1 - lr * self.strength).to(p.dtype))
