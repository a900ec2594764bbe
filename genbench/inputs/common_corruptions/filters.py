"""Filters, interpolation and fractals that common corruptions are made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.rng import StepRandom

Corruption = Callable[[Tensor, Any, StepRandom], Tensor]  # (inputs, constant, draw) -> inputs

_SIDE = 32  # points a side of the images for which the constants were chosen


def scale(x: Tensor) -> float:
    """Return the shorter side of images relative to 32 points."""
    return min(x.shape[2:]) / _SIDE


def bell(at: Tensor, sigma: float) -> Tensor:
    """Return the weights of a normal density at places ``at``, with sum 1."""
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    return weights / weights.sum()


def padded(x: Tensor, before: tuple[int, int], mode: str) -> Tensor:
    """Pad rows and columns on each side: repeat the outermost (``replicate``), mirror about the outermost (``reflect``)
    or mirror about the edge (``symmetric``)."""
    for axis, reach in zip((2, 3), before, strict=True):
        at, side = torch.arange(-reach, x.shape[axis] + reach), x.shape[axis]
        if mode == "replicate" or side == 1:
            at = at.clamp(0, side - 1)
        elif mode == "reflect":
            at = (side - 1) - (at.remainder(2 * (side - 1)) - (side - 1)).abs()
        else:
            at = at.remainder(2 * side)
            at = torch.minimum(at, 2 * side - 1 - at)
        x = x.index_select(axis, at.to(x.device))
    return x


def filtered(x: Tensor, kernel: Tensor, mode: str) -> Tensor:
    """Filter each channel with a kernel of odd sides."""
    reach = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    flat = padded(x, reach, mode).flatten(0, 1)[:, None]
    return F.conv2d(flat, kernel.to(x)[None, None]).view_as(x)


def smoothed(x: Tensor, sigma: float, *, mode: str = "replicate", truncate: float = 4) -> Tensor:
    """Blur with a Gaussian cut off at ``truncate`` standard deviations, as SciPy does."""
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return x
    kernel = bell(torch.arange(-reach, reach + 1, dtype=torch.float64), sigma)
    return filtered(filtered(x, kernel[:, None], mode), kernel[None], mode)


def streaked(x: Tensor, *, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Blur along a direction, one for each image, as ImageMagick's motion blur does.

    The result is the mean of the image moved by 0, 1, …, 2 · radius points, weighted by half a bell; the outermost
    points are repeated.
    """
    length = 2 * max(1, round(radius)) + 1
    weights = bell(torch.arange(length, dtype=torch.float64), sigma)
    turn = torch.deg2rad(degrees.double())
    height, width = x.shape[2:]
    ys, xs = torch.arange(height), torch.arange(width)
    result = torch.zeros_like(x)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    for i, weight in enumerate(weights.tolist()):
        down, right = (torch.ceil(i * part(turn) - 0.5).long() for part in (torch.sin, torch.cos))
        rows = (ys + down[:, None]).clamp(0, height - 1).to(x.device)
        columns = (xs + right[:, None]).clamp(0, width - 1).to(x.device)
        result += weight * x[images, :, rows[:, :, None], columns[:, None]].movedim(-1, 1)
    return result


def zoomed(x: Tensor, zoom: float) -> Tensor:
    """Enlarge the middle of images to their whole size by linear interpolation, as SciPy's zoom of a crop does."""

    def matrix(side: int) -> Tensor:
        crop = math.ceil(side / zoom)
        top, out = (side - crop) // 2, round(crop * zoom)
        places = (out - side) // 2 + torch.arange(side, dtype=torch.float64)
        return linear(top + places * (crop - 1) / max(1, out - 1), side)

    rows, columns = (matrix(side).to(x) for side in x.shape[2:])
    return rows @ x @ columns.mT


def linear(at: Tensor, side: int) -> Tensor:
    """Return the matrix [len(at), side] that interpolates linearly at places ``at``, clamped to the side."""
    at = at.clamp(0, side - 1)
    return (1 - (at[:, None] - torch.arange(side)).abs()).clamp(min=0)


def box(side: int, fewer: int) -> Tensor:
    """Return the matrix [side, side] that reduces a side to ``fewer`` points and enlarges it again, as Pillow's box
    filter does: each new point is the mean of the points that it covers."""

    def resized(n: int, m: int) -> Tensor:
        scale = n / m
        centres = (torch.arange(m, dtype=torch.float64) + 0.5) * scale
        distance = (torch.arange(n) + 0.5 - centres[:, None]) / max(1.0, scale)
        inside = ((distance > -0.5) & (distance <= 0.5)).double()
        return inside / inside.sum(1, keepdim=True)

    return resized(fewer, side) @ resized(side, fewer)


def sampled(x: Tensor, at: Tensor, *, reflect_edge: bool) -> Tensor:
    """Interpolate images bilinearly at places (column, row) [B, H, W, 2] in points.

    Outside, images are mirrored about their edge (``reflect_edge``) or about their outermost points.
    """
    sides = at.new_tensor([x.shape[3], x.shape[2]])
    grid = (2 * at + 1) / sides - 1 if reflect_edge else 2 * at / (sides - 1) - 1
    return F.grid_sample(x, grid.to(x), padding_mode="reflection", align_corners=not reflect_edge)


def plasma(x: Tensor, decay: float, draw: StepRandom, site: str) -> Tensor:
    """Draw fractals [B, 1, H, W] in [0, 1] by midpoint displacement (diamond-square) on a torus.

    From each scale to the next, displacements are divided by ``decay``².
    """
    batch, _, height, width = x.shape
    side = 2 ** math.ceil(math.log2(max(height, width)))
    field = torch.zeros(batch, side, side, dtype=torch.float64)
    step, wibble = side, 100.0

    def displaced(total: Tensor, name: str) -> Tensor:
        u = 2 * draw.uniform(f"{site}.{name}.{step}", *total.shape).double() - 1
        return total / 4 + wibble**2 * u

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        total = corners + corners.roll(-1, 1)
        total = total + total.roll(-1, 2)
        field[:, half::step, half::step] = displaced(total, "square")
        centres = field[:, half::step, half::step]
        rows = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        field[:, ::step, half::step] = displaced(rows, "row")
        columns = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, half::step, ::step] = displaced(columns, "column")
        step, wibble = half, wibble / decay
    field = field - field.amin((1, 2), keepdim=True)
    field = field / field.amax((1, 2), keepdim=True)
    return field[:, None, :height, :width].to(x)
