"""Cutout."""

import torch
from torch import Tensor

from genbench.inputs.geometry import vector
from genbench.regularization.shared.inputs import check_signals, integers
from genbench.regularization.shared.pixels import PixelMethod, Pixels
from genbench.rng import StepRandom


class Cutout(PixelMethod):
    """Sets a box of each input to zero, in all channels (DeVries & Taylor 2017, arXiv 1708.04552): a rectangle of
    images [B, C, H, W], a span of sequences [B, C, L].

    Its sides are ``size`` times those of the input, rounded: the paper's 16 pixels of 32 are 0.5. Its centre is a point
    of the input drawn uniformly; part of the box may lie outside. Zero is the mean of standardized inputs.
    """

    order = 12  # after shifts, as in the paper
    size: Tensor

    def __init__(self, *, size: float) -> None:
        super().__init__()
        self.setting("size", size, low=0, high=1)

    def rearrange(self, pixels: Pixels, draw: StepRandom) -> None:
        x = pixels.x
        check_signals("cutout", x)
        sides = vector(x.shape[2:], dtype=torch.int64, device=x.device)
        size = (self.size * sides).round().long()
        centre = integers(draw.uniform("cutout", len(x), len(sides)), sides)
        pixels.blank(centre - size // 2, size)
