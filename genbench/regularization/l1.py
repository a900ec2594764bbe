"""L1 penalty."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import Method


class L1(Method):
    """Adds strength · Σ|w| over all trainable parameters (Tibshirani 1996)."""

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor) -> Tensor:
        return self.strength * torch.stack([p.abs().sum() for p in net.parameters() if p.requires_grad]).sum()
