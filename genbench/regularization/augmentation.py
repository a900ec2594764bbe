"""Random changes of inputs that keep their class."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import Method
from genbench.regularization.shared.geometry import turned, warped
from genbench.regularization.shared.inputs import check_signals, symmetric
from genbench.rng import StepRandom


class Augmentation(Method):
    """Trains on a new random version of every example at every step (Simard et al. 2003, ICDAR, for images).

    - Sequences [B, C, L] are shifted circularly by up to ``shift`` of their length in whole points, as MNIST-1D's own
      generator does, and multiplied by a factor from U(1 − scale, 1 + scale).
    - Images [B, C, H, W] are shifted by up to ``shift`` of each side and rotated about their centre by up to
      ``rotation`` degrees (bilinear, zeros outside).
    - Both get Gaussian noise of standard deviation ``noise``.

    Args:
        shift: largest shift as a share of the side, in [0, 1].
        scale: largest relative change of the amplitude, in [0, 1]; sequences only.
        rotation: largest rotation in degrees, in [0, 180]; images only.
        noise: standard deviation in units of the input, at least 0.
    """

    order = 10
    shift: Tensor
    scale: Tensor
    rotation: Tensor
    noise: Tensor

    def __init__(self, *, shift: float, scale: float, rotation: float, noise: float) -> None:
        super().__init__()
        self.setting("shift", shift, low=0, high=1)
        self.setting("scale", scale, low=0, high=1)
        self.setting("rotation", rotation, low=0, high=180)
        self.setting("noise", noise, low=0)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_signals("augmentation", x)
        moved = self._sequences(x, draw) if x.ndim == 3 else self._images(x, draw)
        return moved + self.noise * draw.normal("augmentation.noise", *x.shape).to(x.dtype), y

    def _sequences(self, x: Tensor, draw: StepRandom) -> Tensor:
        batch, channels, length = x.shape
        shift = (self.shift * length * symmetric(draw, "augmentation.shift", batch, 1)).round().long()
        index = (torch.arange(length, device=x.device) - shift) % length
        factor = 1 + self.scale * symmetric(draw, "augmentation.scale", batch, 1, 1)
        return factor.to(x.dtype) * x.gather(2, index[:, None].expand(batch, channels, length))

    def _images(self, x: Tensor, draw: StepRandom) -> Tensor:
        side = x.new_tensor([x.shape[3], x.shape[2]])
        shift = self.shift * symmetric(draw, "augmentation.shift", len(x), 2).to(x.dtype) * side
        turn = turned(self.rotation * symmetric(draw, "augmentation.rotation", len(x)).to(x.dtype))
        return warped(x, turn, -(turn @ shift[:, :, None])[:, :, 0])  # rotated first, then shifted
