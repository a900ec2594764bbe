"""Soft orthogonality."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import WeightPenalty, matrices


class Orthogonality(WeightPenalty):
    """Adds strength · Σ ‖W Wᵀ − I‖_F² over the weights W (out × rest) to the loss.

    For tall W it is ‖Wᵀ W − I‖_F², the smaller matrix; the two differ by a constant, the difference of their sizes. It
    is zero for orthonormal rows or columns (Bansal et al. 2018, arXiv 1810.09102; Brock et al. 2017, arXiv 1609.07093,
    sum absolute values instead of squares).
    """

    def weights(self, net: nn.Module) -> list[Tensor]:
        return matrices(super().weights(net))

    def size(self, parameter: Tensor) -> Tensor:
        rows = parameter if parameter.shape[0] <= parameter.shape[1] else parameter.mT
        return (rows @ rows.mT - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).square().sum()
