"""Sharpness: how much the loss rises near the weights."""

import math
from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_flag, check_integer, check_number
from genbench.draw import derive
from genbench.measures.base import measure
from genbench.measures.estimate import Estimate
from genbench.measures.snapshot import Snapshot


@measure("flatness")
def sam_sharpness(
    snapshot: Snapshot, *, rho: float = 0.05, steps: int = 20, tolerance: float = 1e-3, seed: int = 0
) -> Estimate:
    """max L(w + δ) − L(w) over ‖δ‖₂ ≤ ρ (Foret et al. 2021, arXiv 2010.01412, eq. 1): the largest rise that was found,
    a lower bound of the maximum.

    Conditional-gradient ascent from SAM's own perturbation ρ∇L/‖∇L‖: each step moves towards the point of the ball that
    the gradient names, all the way for a rising loss and half as far after each fall. ``converged`` says whether no
    direction rises any more: the gap max_s ∇L·(s − δ), reported as ``residual`` relative to the rise, is at most
    ``tolerance``.

    Args:
        snapshot: network, loss and data.
        rho: radius ρ > 0, in units of the weights.
        steps: bound on the ascent steps, each one pass forward and backward.
        tolerance: relative gap at which to stop, > 0.
        seed: of the direction taken where the gradient is zero.
    """
    return _worst_case(snapshot, torch.ones_like(snapshot.vector), rho=rho, steps=steps, tolerance=tolerance, seed=seed)


@measure("flatness")
def adaptive_sharpness(
    snapshot: Snapshot,
    *,
    rho: float = 0.5,
    steps: int = 20,
    tolerance: float = 1e-3,
    normalize_logits: bool = True,
    seed: int = 0,
) -> Estimate:
    """Worst-case adaptive sharpness, logit-normalized: max L̃(w + δ) − L̃(w) over ‖δ / |w|‖₂ ≤ ρ, where L̃ is the loss of
    the logits f / √(1/K Σᵢ (fᵢ − f̄)²) (Andriushchenko et al. 2023, arXiv 2302.07011, eqs. 1–3 and section 3).

    Each weight moves in proportion to its size, so the value does not change when units or layers of a ReLU network are
    rescaled without changing its function; nor, through the normalization, when the last layer is rescaled. The
    ascent, its bound and ``converged`` are those of :func:`sam_sharpness`; a weight that is zero does not move. The
    authors' code divides logits by their norm (√K times smaller); the paper's standard deviation is used here.

    Args:
        snapshot: network, loss and data; outputs are logits [N, K, ...], K ≥ 2.
        rho: radius ρ > 0, relative to the weights.
        steps: bound on the ascent steps.
        tolerance: relative gap at which to stop, > 0.
        normalize_logits: without it, the loss itself is used, for any output.
        seed: of the direction taken where the gradient is zero.
    """
    if check_flag("normalize_logits", normalize_logits):
        outputs = [output for output, _ in snapshot.predictions]
        if not all(isinstance(f, Tensor) and f.ndim >= 2 and f.shape[1] >= 2 for f in outputs):
            return Estimate(None, note="undefined: outputs are not logits [N, K, ...] with K ≥ 2")
        loss = snapshot.loss
        snapshot = snapshot.with_loss(lambda output, target: loss(_normalized(output), target))
    return _worst_case(snapshot, snapshot.vector.abs(), rho=rho, steps=steps, tolerance=tolerance, seed=seed)


@measure("flatness")
def average_sharpness(snapshot: Snapshot, *, rho: float = 0.5, pairs: int = 10, seed: int = 0) -> Estimate:
    """E L(w + δ) − L(w) over directions δ drawn uniformly on the sphere ‖δ‖₂ = ρ (a Gaussian vector, normalized), with
    its standard error; about ρ² tr(∇²L) / 2ω near the weights, ω their number.

    Never above the maximum that :func:`sam_sharpness` bounds at the same ρ, but far below it in many dimensions, hence
    the larger default. Directions are taken in pairs ±δ, which cancels the slope. The average-case sharpness of
    Andriushchenko et al. 2023 (arXiv 2302.07011) draws δ ~ N(0, σ²I): ρ = σ√ω here.

    Args:
        snapshot: network, loss and data.
        rho: radius ρ > 0, in units of the weights.
        pairs: pairs ±δ, each two forward passes, at least 2.
        seed: of the directions, from a generator of its own.
    """
    rho = _radius(rho)
    check_integer("pairs", pairs, least=2)
    check_integer("seed", seed, least=0)
    generator = torch.Generator().manual_seed(derive(seed, "average_sharpness"))
    w, base = snapshot.vector, snapshot.mean_loss
    rises = []
    for _ in range(pairs):
        z = torch.randn(snapshot.size, generator=generator, dtype=torch.float64).to(w.device)
        delta = z * (rho / z.norm())
        rises.append((snapshot.loss_at(w + delta) + snapshot.loss_at(w - delta)) / 2 - base)
    rise = torch.tensor(rises, dtype=torch.float64)
    return Estimate(float(rise.mean()), stderr=float(rise.std()) / math.sqrt(pairs))


def _worst_case(snapshot: Snapshot, scale: Tensor, *, rho: float, steps: int, tolerance: float, seed: int) -> Estimate:
    """max L(w + scale·u) − L(w) over ‖u‖₂ ≤ ρ."""
    rho = _radius(rho)
    check_integer("steps", steps, least=1)
    check_integer("seed", seed, least=0)
    if check_number("tolerance", tolerance, low=0) == 0:
        raise ValueError(f"tolerance is {tolerance!r}; accepted: a number > 0")

    def evaluate(u: Tensor) -> tuple[float, Tensor]:
        loss, gradient = snapshot.gradient_at(snapshot.vector + scale * u)
        return loss, gradient * scale

    base = snapshot.mean_loss
    _, slope = evaluate(torch.zeros_like(scale))
    if not slope.any():  # a stationary point: any direction may rise
        generator = torch.Generator().manual_seed(derive(seed, "sharpness"))
        slope = torch.randn(snapshot.size, generator=generator, dtype=torch.float64).to(scale.device)
    u = rho * slope / slope.norm()
    loss, slope = evaluate(u)
    best, rate, gap = max(loss, base), 1.0, math.inf
    for _ in range(steps):
        if not math.isfinite(loss):
            return Estimate(None, note=f"undefined: the loss is {loss} within rho = {rho:g}")
        target = rho * slope / slope.norm().clamp_min(1e-300)
        gap = float(slope @ (target - u)) / max(best - base, 1e-300)
        if gap <= tolerance:
            break
        step = u + rate * (target - u)
        if slope @ step > 0:  # the loss rises outwards: stay on the sphere
            step = rho * step / step.norm()
        new_loss, new_slope = evaluate(step)
        if new_loss > loss:
            u, loss, slope, rate = step, new_loss, new_slope, min(2 * rate, 1.0)
        else:
            rate /= 2
        best = max(best, loss)
    return Estimate(best - base, converged=gap <= tolerance, residual=gap if math.isfinite(gap) else None)


def _normalized(logits: Any) -> Tensor:
    centred = logits - logits.mean(1, keepdim=True)
    # a network that outputs zeros keeps them; its gradient stays finite
    return centred / centred.square().mean(1, keepdim=True).clamp_min(1e-24).sqrt()


def _radius(rho: float) -> float:
    if check_number("rho", rho, low=0) == 0:
        raise ValueError(f"rho is {rho!r}; accepted: a number > 0")
    return float(rho)
