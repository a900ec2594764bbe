"""Squared error."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.regularization.base import Method


def squared_error(output: Tensor, y: Tensor) -> Tensor:
    """½‖f − e_y‖², the mean over the batch, e_y the one-hot vector of the class; ``output`` f [B, C, ...], ``y``
    classes [B, ...] or class probabilities [B, C, ...], which stand for e_y."""
    target = y if y.is_floating_point() else F.one_hot(y, output.shape[1]).movedim(-1, 1)
    return 0.5 * torch.sum((output - target) ** 2, 1).mean()


class SquaredError(Method):
    """Replaces the cross-entropy by ½‖f − e_y‖², the squared distance of the outputs from the one-hot vector of the
    class (Hui & Belkin 2021, arXiv 2006.07322, without their scales).

    For class probabilities as targets it is the distance from these.
    """

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        return squared_error(output, y)
