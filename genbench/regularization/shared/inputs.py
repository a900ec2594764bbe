"""Checks of inputs, and random integers for changing them."""

from torch import Tensor


def check_images(name: str, x: Tensor) -> None:
    """Refuse inputs that are not images [B, C, H, W]."""
    if x.ndim != 4:
        raise ValueError(
            f"regularization {name}: inputs of shape {tuple(x.shape)}; "
            "accepted: images (batch, channels, height, width)"
        )


def check_signals(name: str, x: Tensor) -> None:
    """Refuse inputs that are neither sequences [B, C, L] nor images [B, C, H, W]."""
    if x.ndim not in (3, 4):
        raise ValueError(
            f"regularization {name}: inputs of shape {tuple(x.shape)}; accepted: sequences "
            "(batch, channels, length) or images (batch, channels, height, width)"
        )


def integers(uniform: Tensor, n: int | Tensor) -> Tensor:
    """Turn uniform numbers on [0, 1) into uniform integers 0, …, n − 1 (int64)."""
    return (uniform * n).long()
