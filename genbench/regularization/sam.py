"""Sharpness-aware minimization."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters
from genbench.regularization.gradient_clipping import global_norm


class SAM(Method):
    """Takes the gradient at w + rho · g/‖g‖₂, to first order the point with the largest loss in the ρ-ball around w
    (Foret et al. 2021, arXiv 2010.01412, Eq. 2).

    Each step costs two passes. The second uses the batch, augmentation and dropout masks of the first, and does not
    update batch-norm statistics.
    """

    rho: Tensor

    def __init__(self, *, rho: float) -> None:
        super().__init__()
        self.setting("rho", rho, low=0)

    @torch.no_grad()
    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        step = (self.rho / (global_norm(grads) + 1e-12)).to(grads[0].dtype)
        return [p + g * step for p, g in zip(params, grads, strict=True)]
