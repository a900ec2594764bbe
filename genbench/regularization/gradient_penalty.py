"""Gradient penalty."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.models.slots import frozen_norm_statistics
from genbench.regularization.base import Method, refuse_tokens
from genbench.rng import StepRandom


class GradientPenalty(Method):
    """Adds strength · mean ‖∂ℓ/∂x‖₂² to the loss, where ℓ is an example's cross-entropy and x its input.

    Also known as double backpropagation (Drucker & LeCun 1992). A step costs one more forward and backward pass, and
    is differentiated twice.
    """

    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        refuse_tokens(self, x)
        with frozen_norm_statistics(net):
            slope = torch.func.grad(lambda z: F.cross_entropy(net(z), y, reduction="sum"))(x)
        return self.strength.to(x.dtype) * slope.square().sum() / len(x)
