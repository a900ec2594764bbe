"""Random rotations."""

import torch
from torch import Tensor, nn

from genbench.inputs.augmentation import symmetric
from genbench.inputs.geometry import turned, warped
from genbench.regularization.base import Method
from genbench.regularization.shared.inputs import check_images
from genbench.rng import StepRandom


class Rotation(Method):
    """Rotates each image [B, C, H, W] about its centre by an angle from U(−angle, angle), bilinearly, with zeros
    outside (Simard et al. 2003, ICDAR).

    Args:
        angle: largest rotation in degrees, in [0, 180].
    """

    order = 10
    angle: Tensor

    def __init__(self, *, angle: float) -> None:
        super().__init__()
        self.setting("angle", angle, low=0, high=180)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_images("rotation", x)
        angle = self.angle * symmetric(draw, "rotation", len(x)).double()
        return warped(x, turned(angle), torch.zeros_like(angle)[:, None].expand(-1, 2)), y
