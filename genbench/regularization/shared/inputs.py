"""Checks of inputs, and random numbers for changing them."""

from torch import Tensor

from genbench.rng import StepRandom


def check_images(name: str, x: Tensor) -> None:
    """Refuse what is not a batch of images [B, C, H, W]."""
    if x.ndim != 4:
        raise ValueError(
            f"regularization {name}: inputs of shape {tuple(x.shape)}; "
            "accepted: images (batch, channels, height, width)"
        )


def check_signals(name: str, x: Tensor) -> None:
    """Refuse what is neither sequences [B, C, L] nor images [B, C, H, W]."""
    if x.ndim not in (3, 4):
        raise ValueError(
            f"regularization {name}: inputs of shape {tuple(x.shape)}; accepted: sequences "
            "(batch, channels, length) or images (batch, channels, height, width)"
        )


def symmetric(draw: StepRandom, site: str, *shape: int) -> Tensor:
    """Uniform numbers on [−1, 1)."""
    return 2 * draw.uniform(site, *shape) - 1


def integers(uniform: Tensor, n: int | Tensor) -> Tensor:
    """Uniform whole numbers 0, …, n − 1 from uniform numbers on [0, 1), int64."""
    return (uniform * n).long()
