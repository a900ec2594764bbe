"""Label smoothing."""

import torch.nn.functional as F
from torch import Tensor

from genbench.regularization.base import Method


class LabelSmoothing(Method):
    """Cross-entropy against (1 − smoothing) · target + smoothing · uniform (Szegedy et al. 2016, arXiv 1512.00567)."""

    alters = "trained on smoothed targets, another loss"
    smoothing: Tensor

    def __init__(self, *, smoothing: float) -> None:
        super().__init__()
        self.setting("smoothing", smoothing, low=0, high=1)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        uniform = -F.log_softmax(output, dim=1).mean()
        return (1 - self.smoothing) * F.cross_entropy(output, y) + self.smoothing * uniform
