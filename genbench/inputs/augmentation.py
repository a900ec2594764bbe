"""Random changes of sequences and images that keep their class."""

import torch
from torch import Tensor

from genbench.inputs.geometry import turned, vector, warped
from genbench.rng import StepRandom

Strength = float | Tensor


def augmented(
    x: Tensor, draw: StepRandom, *, shift: Strength, scale: Strength, rotation: Strength, noise: Strength
) -> Tensor:
    """A random version of every example, each its own (Simard et al. 2003, ICDAR, for images).

    - Sequences [B, C, L] are shifted circularly by up to ``shift`` of their length in whole points, as MNIST-1D's own
      generator does, and multiplied by a factor from U(1 − scale, 1 + scale).
    - Images [B, C, H, W] are shifted by up to ``shift`` of each side and rotated about their centre by up to
      ``rotation`` degrees (bilinear, zeros outside).
    - Both get Gaussian noise of standard deviation ``noise``, in units of the input.
    """
    moved = _sequences(x, draw, shift, scale) if x.ndim == 3 else _images(x, draw, shift, rotation)
    return moved + noise * draw.normal("augmentation.noise", *x.shape).to(x.dtype)


def symmetric(draw: StepRandom, site: str, *shape: int) -> Tensor:
    """Draw uniform numbers on [−1, 1)."""
    return 2 * draw.uniform(site, *shape) - 1


def _sequences(x: Tensor, draw: StepRandom, shift: Strength, scale: Strength) -> Tensor:
    batch, channels, length = x.shape
    points = (shift * length * symmetric(draw, "augmentation.shift", batch, 1)).round().long()
    index = (torch.arange(length, device=x.device) - points) % length
    factor = 1 + scale * symmetric(draw, "augmentation.scale", batch, 1, 1)
    return factor.to(x.dtype) * x.gather(2, index[:, None].expand(batch, channels, length))


def _images(x: Tensor, draw: StepRandom, shift: Strength, rotation: Strength) -> Tensor:
    side = vector((x.shape[3], x.shape[2]), dtype=x.dtype, device=x.device)
    points = shift * symmetric(draw, "augmentation.shift", len(x), 2).to(x.dtype) * side
    turn = turned(rotation * symmetric(draw, "augmentation.rotation", len(x)).to(x.dtype))
    return warped(x, turn, -(turn @ points[:, :, None])[:, :, 0])  # rotated first, then shifted
