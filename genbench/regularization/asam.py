"""Adaptive sharpness-aware minimization."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters
from genbench.regularization.gradient_clipping import global_norm


class ASAM(Method):
    """Takes the gradient at w + rho · T²g/‖Tg‖₂, where T = |w| + eta elementwise.

    To first order, this is the point with the largest loss in the region ‖T⁻¹ε‖₂ ≤ rho, which scales with the weights
    (Kwon et al. 2021, arXiv 2102.11600, Eq. 9 and 10). With ``eta=0``, rescaled weights of the same function have the
    same largest loss. All parameters are scaled, as in the paper's equations; its code does not scale biases. A step
    costs two passes, as with :class:`genbench.regularization.SAM`.
    """

    rho: Tensor
    eta: Tensor

    def __init__(self, *, rho: float, eta: float) -> None:
        super().__init__()
        self.setting("rho", rho, low=0)
        self.setting("eta", eta, low=0)

    @torch.no_grad()
    def perturb(self, params: Parameters, grads: Parameters) -> Parameters:
        scales = [p.abs() + self.eta.to(p.dtype) for p in params]
        scaled = [t * g for t, g in zip(scales, grads, strict=True)]
        step = (self.rho / (global_norm(scaled) + 1e-12)).to(grads[0].dtype)
        return [p + t * s * step for p, t, s in zip(params, scales, scaled, strict=True)]
