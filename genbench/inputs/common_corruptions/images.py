"""Common corruptions of images [B, C, H, W] in [0, 1]."""

import io
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.inputs.common_corruptions.filters import (
    Corruption,
    bell,
    box,
    filtered,
    plasma,
    sampled,
    scale,
    smoothed,
    streaked,
    zoomed,
)
from genbench.rng import StepRandom

_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R 601-2)


def _gaussian_noise(x: Tensor, sigma: float, draw: StepRandom) -> Tensor:
    return x + sigma * draw.normal("gaussian_noise", *x.shape).to(x)


def _shot_noise(x: Tensor, photons: float, draw: StepRandom) -> Tensor:
    return torch.poisson(photons * x.cpu(), generator=draw.generator("shot_noise")).to(x) / photons


def _salt_and_pepper(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    u, salt = (draw.uniform(f"impulse_noise.{name}", *x.shape).to(x.device) for name in ("where", "salt"))
    return torch.where(u < share, (salt < 0.5).to(x), x)


def _defocus_blur(x: Tensor, c: tuple[float, float], draw: StepRandom) -> Tensor:
    radius, alias = c[0] * scale(x), c[1]
    reach = math.floor(radius) + 1  # the disk, and a point for its smoothed edge
    grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).double()
    smooth = bell(torch.arange(-1, 2, dtype=torch.float64), alias)
    kernel = F.conv2d((disk / disk.sum())[None, None], torch.outer(smooth, smooth)[None, None], padding=1)[0, 0]
    return filtered(x, kernel, "reflect")


def _glass_blur(x: Tensor, c: tuple[float, int, int], draw: StepRandom) -> Tensor:
    """Blur, replace each point from the last to the first by a random neighbour, and blur again.

    The paper swaps the two points. The original code swaps views of an array: with several channels both points end
    with the value of the neighbour, and the benchmark's images were made this way. Grey images are truly swapped.
    """
    import numpy as np

    sigma, delta, rounds = c[0] * scale(x), max(1, round(c[1] * scale(x))), c[2]
    batch, _, height, width = x.shape
    blurred = smoothed(x, sigma)
    # points in sequence, all images at once
    order = np.tile(np.arange(height * width), (batch, 1))
    rows = np.arange(batch)
    # as in the original, the first rows and columns stay
    ys, xs = range(height - delta, delta, -1), range(width - delta, delta, -1)
    u = draw.uniform("glass_blur", batch, rounds, len(ys), len(xs), 2)
    offset = ((u * 2 * delta).long() - delta).numpy()  # −delta to delta − 1
    step = offset[..., 0] * width + offset[..., 1]
    for k in range(rounds):
        for i, row in enumerate(ys):
            for j, column in enumerate(xs):
                here = row * width + column
                there = here + step[:, k, i, j]
                before = order[:, here].copy()
                order[:, here] = order[rows, there]
                if x.shape[1] == 1:
                    order[rows, there] = before
    index = torch.from_numpy(order).to(x.device)[:, None].expand(-1, x.shape[1], -1)
    return smoothed(blurred.flatten(2).gather(2, index).view_as(x), sigma)


def _motion_blur(x: Tensor, c: tuple[float, float], draw: StepRandom) -> Tensor:
    angle = 90 * draw.uniform("motion_blur", len(x)) - 45
    return streaked(x, radius=c[0] * scale(x), sigma=c[1] * scale(x), degrees=angle)


def _zoom_blur(x: Tensor, steps: int, draw: StepRandom) -> Tensor:
    """Average the image and its enlargements by 1, 1.01, …, ``steps`` of them.

    The original's ``numpy.arange(1, 1.06, 0.01)`` has 7 elements, as rounding adds 1.06; that for 1.11 has 12.
    """
    step = 1.01 - 1  # as NumPy steps, slightly above 0.01: at 1.25, 26 points become 33, not 32
    zooms = [zoomed(x, 1 + step * k) for k in range(steps)]
    return (x + torch.stack(zooms).sum(0)) / (steps + 1)


def _snow(x: Tensor, c: tuple[float, ...], draw: StepRandom) -> Tensor:
    mean, std, zoom, least, radius, sigma, kept = c
    batch, channels, height, width = x.shape
    flakes = mean + std * draw.normal("snow.flakes", batch, 1, height, width).to(x)
    flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < least, 0, flakes).clamp(0, 1)
    angle = -135 + 90 * draw.uniform("snow.angle", batch)
    flakes = streaked(flakes, radius=radius * scale(x), sigma=sigma * scale(x), degrees=angle)
    weights = x.new_tensor(_GREY if channels == 3 else [1 / channels] * channels)
    grey = (x * weights[:, None, None]).sum(1, keepdim=True)
    faded = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey + 0.5)
    return faded + flakes + flakes.flip(2, 3)


def _frost(x: Tensor, c: tuple[float, float], draw: StepRandom) -> Tensor:
    return c[0] * x + c[1] * (1 - (2 * plasma(x, 2.0, draw, "frost") - 1).abs())


def _fog(x: Tensor, c: tuple[float, float], draw: StepRandom) -> Tensor:
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + c[0] * plasma(x, c[1], draw, "fog")) * brightest / (brightest + c[0])


def _brightness(x: Tensor, more: float, draw: StepRandom) -> Tensor:
    """Add to the value of HSV, which scales the channels of a point alike."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-12)), raised)


def _contrast(x: Tensor, factor: float, draw: StepRandom) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _elastic_transform(x: Tensor, c: tuple[float, float, float], draw: StepRandom) -> Tensor:
    batch, _, height, width = x.shape
    side = min(height, width)
    strength, sigma, corner = (share * side for share in c)
    centre, reach = torch.tensor([width // 2, height // 2], dtype=torch.float64), side // 3
    before = centre + reach * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    u = draw.uniform("elastic_transform.affine", batch, 3, 2).double()
    after = before + corner * (2 * u - 1)
    # the affine map from where three points have moved back to where they were: out(p) = x(A p + b)
    ones = torch.ones(batch, 3, 1, dtype=torch.float64)
    matrix = torch.linalg.solve(torch.cat([after, ones], 2), before.expand(batch, 3, 2))  # [B, 3, 2], rows A and b
    points = torch.stack(torch.meshgrid(*map(torch.arange, (width, height)), indexing="xy"), -1).double()
    at = points @ matrix[:, None, :2] + matrix[:, None, None, 2]
    x = sampled(x, at, reflect_edge=False)
    field = 2 * draw.uniform("elastic_transform.field", batch, 2, height, width).double() - 1
    moved = strength * smoothed(field, sigma, mode="symmetric", truncate=3)
    return sampled(x, points + moved.movedim(1, -1), reflect_edge=True)


def _pixelate(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    rows, columns = (box(side, int(side * share)).to(x) for side in x.shape[2:])
    return rows @ x @ columns.mT


def _jpeg_compression(x: Tensor, quality: int, draw: StepRandom) -> Tensor:
    import numpy as np
    from PIL import Image

    if x.shape[1] not in (1, 3):
        raise ValueError(f"jpeg_compression: images have {x.shape[1]} channels; accepted: 1 or 3")
    found = []
    for image in (255 * x).round().byte().movedim(1, -1).squeeze(-1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(found)).to(x).view(len(x), *x.shape[2:], -1).movedim(-1, 1) / 255


def _rotation(x: Tensor, degrees: float, draw: StepRandom) -> Tensor:
    """Rotate about the centre, counter-clockwise, bilinear, with zeros outside."""
    turn = math.radians(degrees)
    height, width = x.shape[2:]
    # sides have length 2 in the coordinates of an affine grid
    matrix = x.new_tensor(
        [
            [math.cos(turn), -math.sin(turn) * height / width, 0],
            [math.sin(turn) * width / height, math.cos(turn), 0],
        ]
    )
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _translation(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Move by a share of each side in whole points, left or right and up or down at random; fill with zeros."""
    signs = torch.where(draw.uniform("translation", len(x), 2) < 0.5, -1, 1)
    for axis, side in ((2, x.shape[2]), (3, x.shape[3])):
        k = round(share * side)
        there = torch.arange(side) - k * signs[:, axis - 2, None]  # [B, side]
        shape = [len(x), 1, *([side, 1] if axis == 2 else [1, side])]
        index = there.clamp(0, side - 1).view(shape).expand_as(x).to(x.device)
        outside = ((there < 0) | (there >= side)).view(shape).to(x.device)
        x = x.gather(axis, index).masked_fill(outside, 0)
    return x


IMAGES: dict[str, tuple[Corruption, Sequence[Any]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_salt_and_pepper, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (7, 12, 16, 21, 26)),
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
    "rotation": (_rotation, (15, 30, 45, 60, 75)),
    "translation": (_translation, (0.05, 0.1, 0.15, 0.2, 0.25)),
}
