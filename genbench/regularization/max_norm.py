"""Max-norm constraint."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, Parameters


class MaxNorm(Method):
    """Scales the incoming weights of a unit down to ℓ2 norm ``limit`` after each step that leaves them longer.

    Every row of a weight out × rest is a unit; biases and parameters of normalizations are not limited (Srebro et al.
    2005; Srivastava et al. 2014).
    """

    order = 100  # after every method that changes the weights
    limit: Tensor

    def __init__(self, *, limit: float) -> None:
        super().__init__()
        self.setting("limit", limit, low=0, open_low=True)

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        for p in params:
            if p.ndim > 1:
                norm = torch.linalg.vector_norm(p, dim=tuple(range(1, p.ndim)), keepdim=True)
                p.mul_((self.limit.to(p.dtype) / norm.clamp(min=1e-12)).clamp(max=1))
