"""L2 penalty."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import Method


class L2(Method):
    """Adds strength · Σw² over all trainable parameters to the loss (Hoerl & Kennard 1970, ridge).

    Its gradient is 2 · strength · w: with plain SGD it equals weight decay of 2 · strength; with adaptive optimizers it
    does not (Loshchilov & Hutter 2019, arXiv 1711.05101).
    """

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor) -> Tensor:
        return self.strength * torch.stack([p.square().sum() for p in net.parameters() if p.requires_grad]).sum()
