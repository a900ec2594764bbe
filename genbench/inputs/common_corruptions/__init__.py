"""Common corruptions of inputs after training, each in five severities.

Images are [B, C, H, W] in [0, 1]. Their 15 common corruptions are those of CIFAR-10-C (Hendrycks & Dietterich 2019,
arXiv 1903.12261), with the constants of its code (hendrycks/robustness, ``make_cifar_c.py``) for 32 points a side; on
other images, lengths in points are in proportion to the shorter side. Differences from the original:

- Only JPEG rounds to 8 bits.
- *frost* adds the ridges of a fractal in place of six photographs, which are not free to be copied.
- *motion_blur* and *snow* use ImageMagick's formula without ImageMagick.
- *rotation* and *translation* are available as well; they do not count as common corruptions.

Sequences are [B, C, L] in any unit. Their corruptions correspond to those of images, with amplitudes in units of the
standard deviation of each example and lengths as shares of L.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genbench.checks import check_choice, check_integer
from genbench.inputs.common_corruptions.filters import Corruption
from genbench.inputs.common_corruptions.images import IMAGES
from genbench.inputs.common_corruptions.sequences import SEQUENCES
from genbench.rng import StepRandom

SEVERITIES = 5
CORRUPTIONS = tuple(dict.fromkeys((*IMAGES, *SEQUENCES)))  # names, for inputs of any kind


def corrupt(x: Tensor, corruption: str, severity: int, draw: StepRandom) -> Tensor:
    """Apply a corruption to inputs x; shape and type stay, and severity 0 returns x itself.

    Random numbers are drawn on the CPU, for each example its own, and are the same at every severity.

    Raises:
        ValueError: a corruption that inputs of this shape do not have, a severity outside 0 to 5, or images outside
            [0, 1].
    """
    table = corruptions_of(x)
    kind = "sequences" if x.ndim == 3 else "images"
    check_choice(f"corruption of {kind}", corruption, tuple(table))
    check_integer("severity", severity, least=0, most=SEVERITIES)
    if severity == 0:
        return x
    function, constants = table[corruption]
    if x.ndim == 3:
        return function(x, constants[severity - 1], draw)
    low, high = x.min().item(), x.max().item()
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(f"images lie in [{low:.4g}, {high:.4g}]; accepted: [0, 1], or the scaling of a snapshot")
    return function(x.clamp(0, 1), constants[severity - 1], draw).clamp(0, 1)


def common_corruptions_of(x: Tensor) -> tuple[str, ...]:
    """Return the names of the common corruptions of inputs of this shape: all but rotation and translation."""
    return tuple(name for name in corruptions_of(x) if name not in ("rotation", "translation"))


def corruptions_of(x: Tensor) -> dict[str, tuple[Corruption, Sequence[Any]]]:
    """Return every corruption of inputs of this shape by name, with its constant at each severity.

    Raises:
        ValueError: inputs that are neither real sequences nor real images.
    """
    if not x.is_floating_point() or x.ndim not in (3, 4):
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(
            f"corruptions: inputs are {kind} of shape {tuple(x.shape)}; accepted: real sequences (batch, channels, "
            "length) or images (batch, channels, height, width)"
        )
    return SEQUENCES if x.ndim == 3 else IMAGES
