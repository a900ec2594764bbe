"""Gradient clipping by norm."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters
from genbench.rng import StepRandom


class GradientClipping(Method):
    """Scales the gradient to ℓ2 norm ``max_norm`` whenever it is longer (Pascanu et al. 2013, arXiv 1211.5063)."""

    order = 90  # after every method that changes the gradient

    max_norm: Tensor

    def __init__(self, *, max_norm: float) -> None:
        super().__init__()
        self.setting("max_norm", max_norm, low=0, open_low=True)

    @torch.no_grad()
    def gradient(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        scale = (self.max_norm / (global_norm(grads) + 1e-12)).clamp(max=1)
        return [g * scale.to(g.dtype) for g in grads]


def global_norm(tensors: Parameters) -> Tensor:
    """ℓ2 norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))
