"""Image operations of AutoAugment and its successors, chosen for each image of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.inputs.geometry import turned, vector, warped
from genbench.regularization.shared.inputs import integers
from genbench.rng import StepRandom

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCEMENTS = ("brightness", "contrast", "color", "sharpness")
OPERATIONS = ("identity", "autocontrast", "equalize", "posterize", "solarize", *GEOMETRY, *ENHANCEMENTS)


class Ranges(NamedTuple):
    """Effects of the operations at strength 1."""

    angle: float  # degrees
    shear: float  # columns a row, rows a column
    shift: float  # share of the side
    factor: float  # of an enhancement, less 1
    bits: tuple[int, int]  # kept by posterize at strength 0, and how many fewer at 1


class Choice(NamedTuple):
    """The operation chosen for each image of a batch."""

    operation: Tensor  # [B], index into OPERATIONS
    strength: Tensor  # [B], in [0, 1]
    sign: Tensor  # [B], −1 or 1: direction of a movement; enhancement or reduction


def choice(draw: StepRandom, site: str, names: tuple[str, ...], strength: Tensor, n: int) -> Choice:
    """Draw operations uniformly from ``names`` for ``n`` images, and their signs."""
    place = integers(draw.uniform(f"{site}.operation", n), len(names))
    numbers = (OPERATIONS.index(name) for name in names)
    operation = vector(numbers, dtype=place.dtype, device=place.device)[place]
    positive = draw.uniform(f"{site}.sign", n) < 0.5
    return Choice(operation, strength.expand(n), torch.where(positive, 1.0, -1.0))


def relative(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``function`` to images rescaled to [0, 1] by their own smallest and largest value, and rescale back.

    Inputs may thus be on any scale.
    """
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    span = high - low
    return low + span * function((x - low) / torch.where(span > 0, span, 1))


def applied(x: Tensor, what: Choice, ranges: Ranges) -> Tensor:
    """Apply the chosen operation to each image [B, C, H, W] in [0, 1].

    AutoAugment is defined by PIL's operations; these are the same on images of floating-point numbers:

    - ``rotate``, ``shear``, ``translate``: about the centre, bilinear, 0 outside;
    - ``brightness``, ``contrast``, ``color``, ``sharpness``: away from (factor > 1) or towards (factor < 1) black, the
      mean grey, the image in grey, the smoothed image; factor = 1 ± strength times its range;
    - ``solarize``: values of at least 1 − strength are inverted;
    - ``posterize``: the highest bits of 8 are kept;
    - ``autocontrast``: each channel is scaled to [0, 1];
    - ``equalize``: the histogram of each channel, of 256 levels, is flattened.
    """

    def chosen(name: str) -> Tensor:
        return what.operation == OPERATIONS.index(name)

    def put(names: tuple[str, ...], value: Tensor, other: Tensor) -> Tensor:
        return torch.where(torch.stack([chosen(name) for name in names]).any(0)[:, None, None, None], value, other)

    strength = what.strength.to(x.dtype)
    result = put(GEOMETRY, _moved(x, chosen, strength * what.sign.to(x.dtype), ranges), x)
    result = put(ENHANCEMENTS, _enhanced(x, put, 1 + ranges.factor * strength * what.sign.to(x.dtype)), result)
    result = put(("solarize",), torch.where(x < (1 - strength)[:, None, None, None], x, 1 - x), result)
    most, fewer = ranges.bits
    result = put(("posterize",), _posterized(x, most - (fewer * what.strength).floor().to(x.dtype)), result)
    result = put(("autocontrast",), _autocontrast(x), result)
    return put(("equalize",), _equalized(x), result)


def _moved(x: Tensor, chosen: Callable[[str], Tensor], amount: Tensor, ranges: Ranges) -> Tensor:
    """Move all images by one interpolation; amounts are 0 where another operation was chosen."""
    angle, shear_x, shear_y, right, down = (chosen(name) * amount for name in GEOMETRY)
    zero = torch.zeros_like(amount)
    shear = ranges.shear * torch.stack([torch.stack([zero, shear_x], -1), torch.stack([shear_y, zero], -1)], -2)
    side = vector((x.shape[3], x.shape[2]), dtype=x.dtype, device=x.device)
    return warped(x, turned(ranges.angle * angle) + shear, -ranges.shift * side * torch.stack([right, down], -1))


def _enhanced(x: Tensor, put: Callable[[tuple[str, ...], Tensor, Tensor], Tensor], factor: Tensor) -> Tensor:
    grey = _grey(x)
    smooth = (9 * F.avg_pool2d(x, 3, stride=1, padding=1) + 4 * x) / 13
    inner = F.pad(torch.ones_like(x[:1, :1, 2:, 2:]), (1, 1, 1, 1))  # the border stays unchanged
    plain = put(("sharpness",), torch.where(inner > 0, smooth, x), torch.zeros_like(x))
    plain = put(("color",), grey.expand(x.shape), plain)
    plain = put(("contrast",), grey.mean((1, 2, 3), keepdim=True).expand(x.shape), plain)
    return (plain + factor[:, None, None, None] * (x - plain)).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    """Return grey images [B, 1, H, W]: the luma of three channels (ITU-R 601-2), the mean of others."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * vector((0.299, 0.587, 0.114), dtype=x.dtype, device=x.device)[:, None, None]).sum(1, keepdim=True)


def _posterized(x: Tensor, bits: Tensor) -> Tensor:
    step = (2 ** (8 - bits))[:, None, None, None]
    return ((255 * x).round() / step).floor() * step / 255


def _autocontrast(x: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / torch.where(high > low, high - low, 1), x)


def _equalized(x: Tensor) -> Tensor:
    """Equalize histograms as PIL does: level i becomes (pixels below i + step // 2) // step.

    The step is 1/255 of the pixels that are not of the brightest level; channels with fewer than 255 such pixels stay.
    """
    level = (255 * x).round().long().flatten(2)
    counts = torch.zeros_like(level[..., :1]).expand(*level.shape[:2], 256)
    counts = counts.scatter_add(2, level, torch.ones_like(level))
    brightest = counts.gather(2, level.amax(2, keepdim=True))
    step = (level.shape[2] - brightest) // 255
    table = ((counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step[..., None] > 0, table.gather(2, level).view(x.shape).to(x.dtype) / 255, x)
