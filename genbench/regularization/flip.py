"""Horizontal flips."""

import torch
from torch import Tensor

from genbench.regularization.shared.inputs import check_images
from genbench.regularization.shared.pixels import PixelMethod, Pixels
from genbench.rng import StepRandom


class Flip(PixelMethod):
    """Mirrors each image [B, C, H, W] left to right with the given probability (Krizhevsky et al. 2012).

    Not for digits and letters, whose mirror images are others.
    """

    order = 10
    probability: Tensor

    def __init__(self, *, probability: float) -> None:
        super().__init__()
        self.setting("probability", probability, low=0, high=1)

    def rearrange(self, pixels: Pixels, draw: StepRandom) -> None:
        x = pixels.x
        check_images("flip", x)
        columns = torch.arange(x.shape[3], device=x.device)
        mirrored = draw.uniform("flip", len(x), 1) < self.probability
        pixels.move(3, torch.where(mirrored, columns.flip(0), columns))
