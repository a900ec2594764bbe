"""Adversarial attacks: gradient ascent of a loss in a ball around each input."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_number
from genbench.rng import StepRandom

NORMS = ("linf", "l2")


def perturb(
    net: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    epsilon: float | Tensor,
    step_size: float | Tensor,
    steps: int,
    start: Tensor | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Attack inputs by projected gradient ascent of the cross-entropy (Madry et al. 2018, arXiv 1706.06083).

    ``steps`` times, x' ← Π(x' + step_size · u), where u is the sign of the gradient by x' (``linf``) or the gradient
    divided by its norm (``l2``), and Π projects on the ball of radius ``epsilon`` around x and then on [low, high]. One
    step from x with ``step_size`` ≥ ``epsilon`` is the fast gradient (sign) method (Goodfellow et al. 2015, arXiv
    1412.6572). It works under ``torch.vmap`` and leaves gradients unchanged.

    Args:
        net: inputs [B, ...] -> logits [B, K, ...].
        x: inputs within [low, high].
        y: classes [B, ...] or class probabilities.
        norm: norm of the ball and the steps, ``linf`` or ``l2``, over all entries of an input.
        start: first point, in units of the ball, [B, ...]; ``None``: the centre.

    Returns:
        Inputs after the last step, [B, ...].
    """
    slope = torch.func.grad(lambda z: F.cross_entropy(net(z), y, reduction="sum"))
    radius, stride = (torch.as_tensor(size, device=x.device).to(x.dtype) for size in (epsilon, step_size))

    def inside(offset: Tensor) -> Tensor:
        if norm == "l2":
            offset = offset * (radius / _norms(offset)).clamp(max=1)
        else:
            offset = torch.minimum(torch.maximum(offset, -radius), radius)
        moved = x + offset
        return moved if low is None and high is None else moved.clamp(low, high)

    with torch.no_grad():
        moved = x if start is None else inside(radius * start)
        for _ in range(steps):
            gradient = slope(moved)
            unit = gradient / _norms(gradient) if norm == "l2" else gradient.sign()
            moved = inside(moved + stride * unit - x)
    return moved


def random_start(draw: StepRandom, site: str, x: Tensor, norm: str) -> Tensor:
    """Draw uniform points of the unit ball, in the shape of x [B, ...]."""
    if norm == "linf":
        return (2 * draw.uniform(site, *x.shape) - 1).to(x)
    # the first n coordinates of a uniform point on the sphere in n + 2 dimensions (Voelker et al. 2017)
    sphere = draw.normal(site, len(x), x[0].numel() + 2)
    return (sphere / _norms(sphere))[:, :-2].reshape(x.shape).to(x)


def stride_of(name: str, step_size: float | None, *, epsilon: float, steps: int) -> float:
    """Return the step size; ``None``: the usual 2.5 · epsilon / steps, which can reach every point of the ball."""
    return 2.5 * epsilon / steps if step_size is None else check_number(name, step_size, low=0)


def check_range(name: str, low: float | None, high: float | None) -> None:
    """Refuse ends of a range that are neither numbers nor ``None``, or are in the wrong order."""
    ends = [
        check_number(f"{name} {end}", value, low=-float("inf"))
        for end, value in (("low", low), ("high", high))
        if value is not None
    ]
    if len(ends) == 2 and ends[0] >= ends[1]:
        raise ValueError(f"{name} low is {low!r} and high {high!r}; accepted: low below high")


def _norms(x: Tensor) -> Tensor:
    """Return ‖x_b‖₂ [B, 1, ...], at least 1e-12."""
    norms = x.flatten(1).norm(dim=1).clamp(min=1e-12)
    return norms.reshape(-1, *[1] * (x.ndim - 1))
