"""Horizontal flips."""

import torch
from torch import Tensor, nn

from genbench.draw import Draw
from genbench.regularization.base import Method
from genbench.regularization.images import check_images


class Flip(Method):
    """Mirrors each image [B, C, H, W] left to right with the given probability (Krizhevsky et al. 2012).

    For what a mirror does not turn into something else: not for digits and letters.
    """

    order = 10
    probability: Tensor

    def __init__(self, *, probability: float) -> None:
        super().__init__()
        self.setting("probability", probability, low=0, high=1)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        check_images("flip", x)
        columns = torch.arange(x.shape[3], device=x.device)
        columns = torch.where(draw.uniform("flip", len(x), 1) < self.probability, columns.flip(0), columns)
        return x.gather(3, columns[:, None, None].expand(x.shape)), y  # faster than to choose between two batches
