"""Focal loss."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, expected


class Focal(Method):
    """Replaces the cross-entropy by −(1 − p_y)^gamma · log p_y, which gives well-classified examples less weight.

    Source: Lin et al. 2017 (arXiv 1708.02002, Eq. 4), without class weights. For class probabilities as targets it is
    the expectation over the classes. ``gamma=0`` is the cross-entropy.
    """

    gamma: Tensor

    def __init__(self, *, gamma: float) -> None:
        super().__init__()
        self.setting("gamma", gamma, low=0)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        log_p = output.log_softmax(1)
        # if 1 − p rounds to 0, a power below 1 has no finite derivative
        rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
        return expected(-(rest ** self.gamma.to(rest.dtype)) * log_p, y)
