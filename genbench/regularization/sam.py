"""Sharpness-aware minimization."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters
from genbench.regularization.gradient_clipping import global_norm


class SAM(Method):
    """Takes the gradient at w + rho · g/‖g‖₂, the worst point of the ρ-ball to first order (Foret et al. 2021,
    arXiv 2010.01412, Eq. 2).

    Each step costs two passes. The second keeps the batch, its augmentation and the dropout masks of the first, and
    leaves batch-norm statistics alone.
    """

    rho: Tensor

    def __init__(self, *, rho: float) -> None:
        super().__init__()
        self.setting("rho", rho, low=0)

    @torch.no_grad()
    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        step = (self.rho / (global_norm(grads) + 1e-12)).to(grads[0].dtype)
        return [p + g * step for p, g in zip(params, grads, strict=True)]
