"""Shifts of the test distribution: what may happen to an input after training, in five severities.

Images are [B, C, H, W] in [0, 1]. Their 15 common corruptions are those of CIFAR-10-C (Hendrycks & Dietterich 2019,
arXiv 1903.12261), with the constants of its code (hendrycks/robustness, ``make_cifar_c.py``) for 32 points a side; on
other images, lengths in points are in proportion to the shorter side. What is unlike the original: nothing is rounded
to 8 bits but for JPEG, *frost* lies on the image as ridges of a fractal in place of six photographs, which are not
free to be copied, and *motion_blur* and *snow* are ImageMagick's formula without ImageMagick. *rotation* and
*translation* are no common corruptions.

Sequences are [B, C, L] in any unit. Their corruptions are the matching ones, with amplitudes in units of the standard
deviation of the example itself and lengths as shares of L.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_choice, check_integer
from genbench.rng import Draw

Shift = Callable[[Tensor, Any, Draw], Tensor]  # (inputs, constant, draw) -> inputs

SEVERITIES = 5
_SIDE = 32  # of the images that the constants are for
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue


def shifted(x: Tensor, shift: str, severity: int, draw: Draw) -> Tensor:
    """Inputs x after a shift, in their shape and type; severity 0 leaves them as they are.

    Each example has its own draws at the site of the shift, on the CPU, the same at every severity.

    Raises:
        ValueError: a shift that is not there for inputs of this shape, a severity that is not 0 to 5, or images
            outside [0, 1].
    """
    table = shifts_of(x)
    check_choice(f"shift of {_what(x)}", shift, tuple(table))
    check_integer("severity", severity, least=0, most=SEVERITIES)
    if severity == 0:
        return x
    function, constants = table[shift]
    if x.ndim == 3:
        return function(x, constants[severity - 1], draw)
    low, high = x.min().item(), x.max().item()
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(f"images lie in [{low:.4g}, {high:.4g}]; accepted: [0, 1], or the scaling of a snapshot")
    return function(x.clamp(0, 1), constants[severity - 1], draw).clamp(0, 1)


def corruptions_of(x: Tensor) -> tuple[str, ...]:
    """The common corruptions of inputs of this shape, by name."""
    return tuple(name for name in shifts_of(x) if name not in ("rotation", "translation"))


def shifts_of(x: Tensor) -> dict[str, tuple[Shift, Sequence[Any]]]:
    """Every shift of inputs of this shape by name, with its constant at each severity."""
    if not x.is_floating_point() or x.ndim not in (3, 4):
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(
            f"shifts: inputs are {kind} of shape {tuple(x.shape)}; accepted: real sequences (batch, channels, length) "
            "or images (batch, channels, height, width)"
        )
    return SEQUENCES if x.ndim == 3 else IMAGES


def _what(x: Tensor) -> str:
    return "sequences" if x.ndim == 3 else "images"


# -- images


def _gaussian_noise(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    return x + sigma * draw.normal("gaussian_noise", *x.shape).to(x)


def _shot_noise(x: Tensor, photons: float, draw: Draw) -> Tensor:
    return torch.poisson(photons * x.cpu(), generator=draw.generator("shot_noise")).to(x) / photons


def _salt_and_pepper(x: Tensor, share: float, draw: Draw) -> Tensor:
    u, salt = (draw.uniform(f"impulse_noise.{name}", *x.shape).to(x.device) for name in ("where", "salt"))
    return torch.where(u < share, (salt < 0.5).to(x), x)


def _defocus_blur(x: Tensor, c: tuple[float, float], draw: Draw) -> Tensor:
    radius, alias = c[0] * _scale(x), c[1]
    reach = math.floor(radius) + 1  # the disk, and a point to smooth its edge
    grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).double()
    smooth = _bell(torch.arange(-1, 2, dtype=torch.float64), alias)
    kernel = F.conv2d((disk / disk.sum())[None, None], torch.outer(smooth, smooth)[None, None], padding=1)[0, 0]
    return _filtered(x, kernel, "reflect")


def _glass_blur(x: Tensor, c: tuple[float, int, int], draw: Draw) -> Tensor:
    """Blurred, each point from the last to the first replaced by a neighbour drawn at random, and blurred again.

    The paper speaks of points that swap places. The original's swap works on views of an array, so that with several
    channels both points end with the value of the neighbour, and that is what the benchmark's images were made with;
    grey images without an axis of channels are truly swapped.
    """
    import numpy as np

    sigma, delta, rounds = c[0] * _scale(x), max(1, round(c[1] * _scale(x))), c[2]
    batch, _, height, width = x.shape
    blurred = _smoothed(x, sigma)
    # one point after the other, of all images at once
    order = np.tile(np.arange(height * width), (batch, 1))
    rows = np.arange(batch)
    ys, xs = range(height - delta, delta, -1), range(width - delta, delta, -1)  # as the original: its first stays
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
    return _smoothed(blurred.flatten(2).gather(2, index).view_as(x), sigma)


def _motion_blur(x: Tensor, c: tuple[float, float], draw: Draw) -> Tensor:
    angle = 90 * draw.uniform("motion_blur", len(x)) - 45
    return _streaked(x, radius=c[0] * _scale(x), sigma=c[1] * _scale(x), degrees=angle)


def _zoom_blur(x: Tensor, steps: int, draw: Draw) -> Tensor:
    """The mean of the image and of it enlarged by 1, 1.01, …, so many times: ``numpy.arange(1, 1.06, 0.01)`` of the
    original has 7 elements, as 1.06 comes out too by rounding, and for 1.11 there are 12."""
    step = 1.01 - 1  # NumPy's, a little more than 0.01: 26 points become 33 at 1.25, not 32
    zooms = [_zoomed(x, 1 + step * k) for k in range(steps)]
    return (x + torch.stack(zooms).sum(0)) / (steps + 1)


def _snow(x: Tensor, c: tuple[float, ...], draw: Draw) -> Tensor:
    mean, std, zoom, least, radius, sigma, kept = c
    batch, channels, height, width = x.shape
    flakes = mean + std * draw.normal("snow.flakes", batch, 1, height, width).to(x)
    flakes = _zoomed(flakes, zoom)
    flakes = torch.where(flakes < least, 0, flakes).clamp(0, 1)
    angle = -135 + 90 * draw.uniform("snow.angle", batch)
    flakes = _streaked(flakes, radius=radius * _scale(x), sigma=sigma * _scale(x), degrees=angle)
    weights = x.new_tensor(_GREY if channels == 3 else [1 / channels] * channels)
    grey = (x * weights[:, None, None]).sum(1, keepdim=True)
    faded = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey + 0.5)
    return faded + flakes + flakes.flip(2, 3)


def _frost(x: Tensor, c: tuple[float, float], draw: Draw) -> Tensor:
    return c[0] * x + c[1] * (1 - (2 * _plasma(x, 2.0, draw, "frost") - 1).abs())


def _fog(x: Tensor, c: tuple[float, float], draw: Draw) -> Tensor:
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + c[0] * _plasma(x, c[1], draw, "fog")) * brightest / (brightest + c[0])


def _brightness(x: Tensor, more: float, draw: Draw) -> Tensor:
    """Adds to the value of hue, saturation and value, which scales the channels of a point alike."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-12)), raised)


def _contrast(x: Tensor, factor: float, draw: Draw) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _elastic_transform(x: Tensor, c: tuple[float, float, float], draw: Draw) -> Tensor:
    batch, _, height, width = x.shape
    side = min(height, width)
    strength, sigma, corner = (share * side for share in c)
    centre, reach = torch.tensor([width // 2, height // 2], dtype=torch.float64), side // 3
    before = centre + reach * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    u = draw.uniform("elastic_transform.affine", batch, 3, 2).double()
    after = before + corner * (2 * u - 1)
    # the map that takes where three points have gone to where they were: out(p) = x(A p + b)
    ones = torch.ones(batch, 3, 1, dtype=torch.float64)
    matrix = torch.linalg.solve(torch.cat([after, ones], 2), before.expand(batch, 3, 2))  # [B, 3, 2], rows A and b
    points = torch.stack(torch.meshgrid(*map(torch.arange, (width, height)), indexing="xy"), -1).double()
    at = points @ matrix[:, None, :2] + matrix[:, None, None, 2]
    x = _sampled(x, at, reflect_edge=False)
    field = 2 * draw.uniform("elastic_transform.field", batch, 2, height, width).double() - 1
    moved = strength * _smoothed(field, sigma, mode="symmetric", truncate=3)
    return _sampled(x, points + moved.movedim(1, -1), reflect_edge=True)


def _pixelate(x: Tensor, share: float, draw: Draw) -> Tensor:
    rows, columns = (_box(side, int(side * share)).to(x) for side in x.shape[2:])
    return rows @ x @ columns.mT


def _jpeg_compression(x: Tensor, quality: int, draw: Draw) -> Tensor:
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


def _rotation(x: Tensor, degrees: float, draw: Draw) -> Tensor:
    """About the centre, against the clock, bilinear, zero outside."""
    turn = math.radians(degrees)
    height, width = x.shape[2:]
    # in the coordinates of an affine grid a side has length 2
    matrix = x.new_tensor(
        [
            [math.cos(turn), -math.sin(turn) * height / width, 0],
            [math.sin(turn) * width / height, math.cos(turn), 0],
        ]
    )
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _translation(x: Tensor, share: float, draw: Draw) -> Tensor:
    """By a share of each side, left or right and up or down at random, whole points, zero where nothing comes from."""
    signs = torch.where(draw.uniform("translation", len(x), 2) < 0.5, -1, 1)
    for axis, side in ((2, x.shape[2]), (3, x.shape[3])):
        k = round(share * side)
        there = torch.arange(side) - k * signs[:, axis - 2, None]  # [B, side]
        shape = [len(x), 1, *([side, 1] if axis == 2 else [1, side])]
        index = there.clamp(0, side - 1).view(shape).expand_as(x).to(x.device)
        outside = ((there < 0) | (there >= side)).view(shape).to(x.device)
        x = x.gather(axis, index).masked_fill(outside, 0)
    return x


# -- what they are made of


def _scale(x: Tensor) -> float:
    return min(x.shape[2:]) / _SIDE


def _bell(at: Tensor, sigma: float) -> Tensor:
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    return weights / weights.sum()


def _padded(x: Tensor, before: tuple[int, int], mode: str) -> Tensor:
    """Rows and columns more on each side: the outermost repeated (``replicate``), or mirrored about the outermost
    (``reflect``) or about the edge (``symmetric``)."""
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


def _filtered(x: Tensor, kernel: Tensor, mode: str) -> Tensor:
    """Each channel with a kernel of odd sides."""
    reach = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    flat = _padded(x, reach, mode).flatten(0, 1)[:, None]
    return F.conv2d(flat, kernel.to(x)[None, None]).view_as(x)


def _smoothed(x: Tensor, sigma: float, *, mode: str = "replicate", truncate: float = 4) -> Tensor:
    """Gaussian blur, cut off at ``truncate`` standard deviations as in scipy."""
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return x
    kernel = _bell(torch.arange(-reach, reach + 1, dtype=torch.float64), sigma)
    return _filtered(_filtered(x, kernel[:, None], mode), kernel[None], mode)


def _streaked(x: Tensor, *, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """ImageMagick's motion blur: the mean of the image moved by 0, 1, …, 2 radius points in a direction, one for each
    image, with the weights of half a bell; the outermost points are repeated."""
    length = 2 * max(1, round(radius)) + 1
    weights = _bell(torch.arange(length, dtype=torch.float64), sigma)
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


def _zoomed(x: Tensor, zoom: float) -> Tensor:
    """The middle, enlarged to the whole by linear interpolation, as scipy's zoom of a crop."""

    def matrix(side: int) -> Tensor:
        crop = math.ceil(side / zoom)
        top, out = (side - crop) // 2, round(crop * zoom)
        places = (out - side) // 2 + torch.arange(side, dtype=torch.float64)
        return _linear(top + places * (crop - 1) / max(1, out - 1), side)

    rows, columns = (matrix(side).to(x) for side in x.shape[2:])
    return rows @ x @ columns.mT


def _linear(at: Tensor, side: int) -> Tensor:
    """The matrix [len(at), side] of linear interpolation at places ``at``, held within the side."""
    at = at.clamp(0, side - 1)
    return (1 - (at[:, None] - torch.arange(side)).abs()).clamp(min=0)


def _box(side: int, fewer: int) -> Tensor:
    """The matrix [side, side] that makes a side of ``fewer`` points, means of those that they cover, and of them one of
    as many as before, as Pillow's box filter does."""

    def resized(n: int, m: int) -> Tensor:
        scale = n / m
        centres = (torch.arange(m, dtype=torch.float64) + 0.5) * scale
        distance = (torch.arange(n) + 0.5 - centres[:, None]) / max(1.0, scale)
        inside = ((distance > -0.5) & (distance <= 0.5)).double()
        return inside / inside.sum(1, keepdim=True)

    return resized(fewer, side) @ resized(side, fewer)


def _sampled(x: Tensor, at: Tensor, *, reflect_edge: bool) -> Tensor:
    """Bilinear interpolation at places (column, row) [B, H, W, 2] in points; outside, the image is mirrored about its
    edge, or about its outermost points."""
    sides = at.new_tensor([x.shape[3], x.shape[2]])
    grid = (2 * at + 1) / sides - 1 if reflect_edge else 2 * at / (sides - 1) - 1
    return F.grid_sample(x, grid.to(x), padding_mode="reflection", align_corners=not reflect_edge)


def _plasma(x: Tensor, decay: float, draw: Draw, site: str) -> Tensor:
    """Fractals [B, 1, H, W] in [0, 1] by midpoint displacement (diamond and square) on a torus; from each scale to the
    next, the displacements fall by the square of ``decay``."""
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


# -- sequences


def _noise(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    return x + sigma * _std(x) * draw.normal("gaussian_noise", *x.shape).to(x)


def _impulses(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Single points at three standard deviations from the mean, above or below."""
    u, up = (draw.uniform(f"impulse_noise.{name}", *x.shape).to(x.device) for name in ("where", "up"))
    return torch.where(u < share, _mean(x) + torch.where(up < 0.5, -3, 3) * _std(x), x)


def _blur(x: Tensor, share: float, draw: Draw) -> Tensor:
    sigma = share * x.shape[2]
    reach = int(4 * sigma + 0.5)
    kernel = _bell(torch.arange(-reach, reach + 1, dtype=torch.float64), sigma)[None]
    return _filtered(x[:, :, None], kernel, "replicate")[:, :, 0]


def _dropout(x: Tensor, share: float, draw: Draw) -> Tensor:
    """A span of the length at the mean: the sensor was off."""
    span = max(1, round(share * x.shape[2]))
    first = (draw.uniform("dropout", len(x), 1, 1) * (x.shape[2] - span + 1)).long()
    at = torch.arange(x.shape[2])
    return torch.where(((at >= first) & (at < first + span)).to(x.device), _mean(x), x)


def _shift(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Circular, to the left or to the right."""
    sign = torch.where(draw.uniform("shift", len(x), 1, 1) < 0.5, -1, 1)
    at = (torch.arange(x.shape[2]) - sign * round(share * x.shape[2])) % x.shape[2]
    return x.gather(2, at.expand_as(x).to(x.device))


def _amplitude(x: Tensor, log_factor: float, draw: Draw) -> Tensor:
    """Multiplied or divided by e^c."""
    sign = torch.where(draw.uniform("scale", len(x), 1, 1) < 0.5, -1.0, 1.0)
    return x * torch.exp(log_factor * sign).to(x)


def _baseline_drift(x: Tensor, amplitude: float, draw: Draw) -> Tensor:
    """A slow wave of half a period to two periods is added."""
    u = draw.uniform("baseline_drift", len(x), 1, 2)
    at = torch.arange(x.shape[2]) / x.shape[2]
    wave = torch.sin(2 * math.pi * ((0.5 + 1.5 * u[..., :1]) * at + u[..., 1:]))
    return x + amplitude * _std(x) * wave.to(x)


def _time_warp(x: Tensor, share: float, draw: Draw) -> Tensor:
    """Read off at t + c L sin(π t / L) sin(2π t / L + φ), which keeps the ends."""
    phase = 2 * math.pi * draw.uniform("time_warp", len(x), 1)
    at = torch.arange(x.shape[2]) / max(1, x.shape[2] - 1)
    warped = at + share * torch.sin(math.pi * at) * torch.sin(2 * math.pi * at + phase)
    places = (warped.clamp(0, 1) * (x.shape[2] - 1)).double()
    below = places.floor().long().clamp(max=max(0, x.shape[2] - 2))
    part = (places - below).to(x)[:, None]
    low = below[:, None].expand_as(x).to(x.device)
    return x.gather(2, low) * (1 - part) + x.gather(2, (low + 1).clamp(max=x.shape[2] - 1)) * part


def _clipping(x: Tensor, reach: float, draw: Draw) -> Tensor:
    """What is farther than c standard deviations from the mean is cut off."""
    return torch.minimum(torch.maximum(x, _mean(x) - reach * _std(x)), _mean(x) + reach * _std(x))


def _quantization(x: Tensor, levels: int, draw: Draw) -> Tensor:
    """To so many values, evenly spaced from the example's smallest to its largest."""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    step = ((high - low) / (levels - 1)).clamp(min=1e-12)
    return low + ((x - low) / step).round() * step


def _downsampling(x: Tensor, share: float, draw: Draw) -> Tensor:
    """To a share of the points, means of those that they cover, and back."""
    return x @ _box(x.shape[2], max(1, int(share * x.shape[2]))).mT.to(x)


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)


def _std(x: Tensor) -> Tensor:
    return x.std((1, 2), correction=0, keepdim=True)


IMAGES: dict[str, tuple[Shift, Sequence[Any]]] = {
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

SEQUENCES: dict[str, tuple[Shift, Sequence[Any]]] = {
    "gaussian_noise": (_noise, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "impulse_noise": (_impulses, (0.01, 0.03, 0.06, 0.1, 0.15)),
    "blur": (_blur, (0.0125, 0.025, 0.0375, 0.05, 0.075)),
    "dropout": (_dropout, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "shift": (_shift, (0.05, 0.1, 0.2, 0.3, 0.4)),
    "scale": (_amplitude, (0.1, 0.2, 0.4, 0.6, 0.8)),
    "baseline_drift": (_baseline_drift, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "time_warp": (_time_warp, (0.02, 0.04, 0.06, 0.09, 0.12)),
    "clipping": (_clipping, (2.0, 1.5, 1.25, 1.0, 0.75)),
    "quantization": (_quantization, (16, 8, 6, 4, 3)),
    "downsampling": (_downsampling, (0.5, 0.4, 0.3, 0.25, 0.2)),
}

# of inputs of any kind, by name
SHIFTS = tuple(dict.fromkeys((*IMAGES, *SEQUENCES)))
