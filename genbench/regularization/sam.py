"""Sharpness-aware minimization."""

import torch
from torch import Tensor

from genbench.checks import check_integer
from genbench.regularization.base import Method, Parameters
from genbench.regularization.gradient_clipping import global_norm


class SAM(Method):
    """Takes the gradient at w + rho · g/‖g‖₂, to first order the point with the largest loss in the ρ-ball around w
    (Foret et al. 2021, arXiv 2010.01412, Eq. 2).

    Each step costs two passes. The second uses the batch, augmentation and dropout masks of the first, and does not
    update batch-norm statistics.

    With ``m``, every m examples of the batch have a perturbation of their own, and the gradients there are averaged
    (m-sharpness), as on accelerators that each see m examples and do not tell each other theirs. Batch
    norms normalize within the m examples.

    Args:
        rho: radius of the ball, ≥ 0.
        m: number of examples that share a perturbation, which divides the batch; ``None``: all of it.
    """

    per_lane = ("rho",)

    rho: Tensor

    def __init__(self, *, rho: float, m: int | None = None) -> None:
        super().__init__()
        self.setting("rho", rho, low=0)
        if m is not None:
            self.m = check_integer("regularization sam: m", m, least=1)
            self.whole_batch = True

    @torch.no_grad()
    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        step = (self.rho / (global_norm(grads) + 1e-12)).to(grads[0].dtype)
        return [p + g * step for p, g in zip(params, grads, strict=True)]
