"""Boxes in signals, and affine maps of images."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def vector(values: Iterable[float], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor [n] that is filled on its device: a GPU would have to wait for a copy from the CPU."""
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])


def box(x: Tensor, start: Tensor, size: Tensor) -> Tensor:
    """Return the mask [B or 1, 1, ...] of a box: 1 where start ≤ point < start + size on every axis, else 0.

    Args:
        x: signals [B, C, ...].
        start: first point of the box on each axis, [B or 1, axes].
        size: points of the box on each axis, [axes].
    """
    inside = x.new_ones(())
    for axis, side in enumerate(x.shape[2:]):
        offset = torch.arange(side, device=x.device) - start[:, axis, None]
        along = ((offset >= 0) & (offset < size[axis])).to(x.dtype)  # [B or 1, side]
        inside = inside * along.view(len(start), *(side if i == axis else 1 for i in range(-1, x.ndim - 2)))
    return inside


def warped(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Warp images [B, C, H, W]: point p takes the value at A (p − c) + c + t, bilinearly, with zeros outside.

    Args:
        matrix: A [B, 2, 2], on (column, row): the inverse of the map from old to new places.
        shift: t [B, 2] in pixels, as (columns, rows).

    c is the centre. Unlike kornia's ``warp_affine``, it works under ``torch.vmap``.
    """
    height, width = x.shape[2:]
    columns, rows = (torch.arange(side, device=x.device, dtype=x.dtype) - (side - 1) / 2 for side in (width, height))
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).view(-1, 2)
    source = points @ matrix.to(x.dtype).mT + shift.to(x.dtype)[:, None]
    grid = (source * 2 / vector((width, height), dtype=x.dtype, device=x.device)).view(-1, height, width, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def turned(angle: Tensor) -> Tensor:
    """Return the matrices [B, 2, 2] with which :func:`warped` rotates images clockwise by ``angle`` [B] degrees."""
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
