"""Common corruptions of sequences [B, C, L] in any unit."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.inputs.common_corruptions.filters import Corruption, bell, box, filtered
from genbench.rng import StepRandom


def _noise(x: Tensor, sigma: float, draw: StepRandom) -> Tensor:
    return x + sigma * _std(x) * draw.normal("gaussian_noise", *x.shape).to(x)


def _impulses(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Set single points to three standard deviations above or below the mean."""
    u, up = (draw.uniform(f"impulse_noise.{name}", *x.shape).to(x.device) for name in ("where", "up"))
    return torch.where(u < share, _mean(x) + torch.where(up < 0.5, -3, 3) * _std(x), x)


def _blur(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    sigma = share * x.shape[2]
    reach = int(4 * sigma + 0.5)
    kernel = bell(torch.arange(-reach, reach + 1, dtype=torch.float64), sigma)[None]
    return filtered(x[:, :, None], kernel, "replicate")[:, :, 0]


def _dropout(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Set a span to the mean, as if the sensor had been off."""
    span = max(1, round(share * x.shape[2]))
    first = (draw.uniform("dropout", len(x), 1, 1) * (x.shape[2] - span + 1)).long()
    at = torch.arange(x.shape[2])
    return torch.where(((at >= first) & (at < first + span)).to(x.device), _mean(x), x)


def _shift(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Shift circularly, to the left or to the right at random."""
    sign = torch.where(draw.uniform("shift", len(x), 1, 1) < 0.5, -1, 1)
    at = (torch.arange(x.shape[2]) - sign * round(share * x.shape[2])) % x.shape[2]
    return x.gather(2, at.expand_as(x).to(x.device))


def _amplitude(x: Tensor, log_factor: float, draw: StepRandom) -> Tensor:
    """Multiply or divide by e^c."""
    sign = torch.where(draw.uniform("scale", len(x), 1, 1) < 0.5, -1.0, 1.0)
    return x * torch.exp(log_factor * sign).to(x)


def _baseline_drift(x: Tensor, amplitude: float, draw: StepRandom) -> Tensor:
    """Add a slow wave of half a period to two periods."""
    u = draw.uniform("baseline_drift", len(x), 1, 2)
    at = torch.arange(x.shape[2]) / x.shape[2]
    wave = torch.sin(2 * math.pi * ((0.5 + 1.5 * u[..., :1]) * at + u[..., 1:]))
    return x + amplitude * _std(x) * wave.to(x)


def _time_warp(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Read the sequence at t + c L sin(π t / L) sin(2π t / L + φ), which keeps its ends."""
    phase = 2 * math.pi * draw.uniform("time_warp", len(x), 1)
    at = torch.arange(x.shape[2]) / max(1, x.shape[2] - 1)
    warped = at + share * torch.sin(math.pi * at) * torch.sin(2 * math.pi * at + phase)
    places = (warped.clamp(0, 1) * (x.shape[2] - 1)).double()
    below = places.floor().long().clamp(max=max(0, x.shape[2] - 2))
    part = (places - below).to(x)[:, None]
    low = below[:, None].expand_as(x).to(x.device)
    return x.gather(2, low) * (1 - part) + x.gather(2, (low + 1).clamp(max=x.shape[2] - 1)) * part


def _clipping(x: Tensor, reach: float, draw: StepRandom) -> Tensor:
    """Clip at c standard deviations from the mean."""
    return torch.minimum(torch.maximum(x, _mean(x) - reach * _std(x)), _mean(x) + reach * _std(x))


def _quantization(x: Tensor, levels: int, draw: StepRandom) -> Tensor:
    """Round to ``levels`` values, evenly spaced from the example's smallest to its largest."""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    step = ((high - low) / (levels - 1)).clamp(min=1e-12)
    return low + ((x - low) / step).round() * step


def _downsampling(x: Tensor, share: float, draw: StepRandom) -> Tensor:
    """Reduce to a share of the points, each the mean of those that it covers, and enlarge again."""
    return x @ box(x.shape[2], max(1, int(share * x.shape[2]))).mT.to(x)


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)


def _std(x: Tensor) -> Tensor:
    return x.std((1, 2), correction=0, keepdim=True)


SEQUENCES: dict[str, tuple[Corruption, Sequence[Any]]] = {
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
