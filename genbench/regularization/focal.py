"""Focal loss."""

import torch
from torch import Tensor

from genbench.regularization.base import Method, expected


class Focal(Method):
    """−(1 − p_y)^gamma · log p_y in place of the cross-entropy: what is classified well counts less (Lin et al. 2017,
    arXiv 1708.02002, Eq. 4, without class weights).

    For class probabilities as targets it is the mean over the classes. ``gamma=0`` is the cross-entropy.
    """

    gamma: Tensor

    def __init__(self, *, gamma: float) -> None:
        super().__init__()
        self.setting("gamma", gamma, low=0)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        log_p = output.log_softmax(1)
        # where rounding leaves nothing of 1 − p, a power below 1 has no finite derivative
        rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
        return expected(-(rest ** self.gamma.to(rest.dtype)) * log_p, y)
