"""Random crops."""

import torch
from torch import Tensor

from genbench.inputs.geometry import vector
from genbench.regularization.shared.inputs import check_images, integers
from genbench.regularization.shared.pixels import PixelMethod, Pixels
from genbench.rng import StepRandom


class RandomCrop(PixelMethod):
    """Pads each image [B, C, H, W] with zeros on all sides and crops it to its old size at a random place (He et al.
    2016, arXiv 1512.03385, Sec. 4.2).

    This shifts it by whole pixels, uniformly from −p to p on each axis, where p is ``padding`` times the side, rounded:
    the usual 4 pixels of 32 are 0.125. Zero is the mean of standardized inputs.
    """

    order = 10
    padding: Tensor

    def __init__(self, *, padding: float) -> None:
        super().__init__()
        self.setting("padding", padding, low=0, high=1)

    def rearrange(self, pixels: Pixels, draw: StepRandom) -> None:
        x = pixels.x
        check_images("random_crop", x)
        sides = vector(x.shape[2:], dtype=torch.int64, device=x.device)
        most = (self.padding * sides).round().long()
        offset = integers(draw.uniform("random_crop", len(x), 2), 2 * most + 1) - most
        for axis, moved in ((2, offset[:, :1]), (3, offset[:, 1:])):
            pixels.move(axis, torch.arange(x.shape[axis], device=x.device) + moved, leaving=True)
