"""Gradients of the examples: mean, spread, and the ratio of the two."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.gram import NOT_FINITE
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_ROUNDING = (
    16  # ε that rounding adds up to in a gradient that is zero: up to 2 were seen, and 100 of the least that is not
)
_ENTRIES = 2**21  # of gradients that are held in float64 at a time


class Gradients(NamedTuple):
    """Moments of the examples' gradients ∇ℓᵢ, from one pass over them, in float64."""

    examples: int
    mean: Tensor  # ∇L [size]
    spread: Tensor  # Σᵢ (∇ℓᵢ − ∇L)² [size], each parameter's
    along_weights: float  # Σᵢ ⟨w, ∇ℓᵢ⟩²


@measure("optimization")
def gradient_norm(snapshot: Snapshot) -> Estimate:
    """‖∇L(w)‖₂, zero at a stationary point."""
    _, gradient = snapshot.gradient_at(snapshot.vector)
    return Estimate(float(gradient.norm()))


@measure("optimization")
def gradient_variance(snapshot: Snapshot) -> Estimate:
    """1/N Σᵢ ‖∇ℓᵢ(w) − ∇L(w)‖₂² over the N examples: the trace of the covariance of their gradients, the noise of SGD
    (Jiang et al. 2020, arXiv 1912.02178, appendix C.4, who take it after the first epoch and at the end).

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    return Estimate(float(found.spread.sum()) / found.examples)


@measure("optimization", names=("drift", "diffusion", "drift_to_diffusion"))
def drift_and_diffusion(snapshot: Snapshot) -> dict[str, Estimate]:
    """The norms of the mean and of the standard deviation of the examples' gradients, and their ratio, of all
    parameters together (Shwartz-Ziv & Tishby 2017, arXiv 1703.00810, who take them of each layer, over the batches of
    an epoch).

    ``drift`` is ‖∇L‖₂ and ``diffusion`` (1/N Σᵢ ‖∇ℓᵢ − ∇L‖₂²)^½, over the N examples; ``drift_to_diffusion`` is the
    signal-to-noise ratio of one example's gradient, that of a batch of B is about √B times as large.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    drift = float(found.mean.norm())
    diffusion = math.sqrt(float(found.spread.sum()) / found.examples)
    ratio = Estimate(drift / diffusion) if diffusion else Estimate(None, note="undefined: the gradients do not vary")
    return {"drift": Estimate(drift), "diffusion": Estimate(diffusion), "drift_to_diffusion": ratio}


@measure("optimization")
def gradient_noise_scale(snapshot: Snapshot) -> Estimate:
    """tr Σ / ‖∇L‖₂², Σ the covariance of the examples' gradients: the batch size, in examples, at which the noise in a
    batch's gradient, tr Σ / B, is as large as the gradient (McCandlish et al. 2018, arXiv 1812.06162, the simple noise
    scale). Below it twice the batch is nearly worth two steps, above it hardly more than one.

    ``∇L`` and Σ are over all examples of the snapshot: exact, not estimated.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    square = float(found.mean.square().sum())
    if square == 0:
        return Estimate(None, note="undefined: the gradient is zero")
    return Estimate(float(found.spread.sum()) / found.examples / square)


@measure("optimization")
def gradient_snr(snapshot: Snapshot) -> Estimate:
    """The mean over the parameters j of the gradient's signal-to-noise ratio μⱼ²/σⱼ², μⱼ and σⱼ² the mean and the
    variance of ∂ℓᵢ/∂wⱼ over the examples (Liu et al. 2020, arXiv 2001.07384, Definition 1).

    Leaves out parameters on which no example's loss depends (of dead units, or attention's key biases): gradients
    within rounding of zero, √(μⱼ² + σⱼ²) ≤ 16 ε max with ε of the weights' precision. ``None`` if a parameter has the
    same gradient for every example, so that its ratio is infinite.

    Raises:
        ValueError: the loss of a batch is not the mean of its examples' losses.
    """
    found = gradients(snapshot)
    signal, noise = found.mean.square(), found.spread / found.examples
    power = signal + noise
    epsilon = max(torch.finfo(p.dtype).eps for p in snapshot.parameters.values())
    felt = power > (_ROUNDING * epsilon) ** 2 * power.max()
    if not felt.any():
        return Estimate(None, note="undefined: every gradient is zero")
    # less than rounding leaves of a spread that is zero
    constant = int((noise[felt] <= 1e-24 * signal[felt]).sum())
    if constant:
        return Estimate(None, note=f"undefined: the gradients of {constant} parameters do not vary over the examples")
    return Estimate(float((signal[felt] / noise[felt]).mean()))


def gradients(snapshot: Snapshot) -> Gradients:
    """One pass over the examples' gradients, kept for the measures that need it."""
    return snapshot.shared("gradients", lambda: _pass(snapshot))


def gradients_by_place(snapshot: Snapshot) -> Iterator[tuple[slice, Tensor]]:
    """The examples' gradients [b, size], float64, a few at a time, with their place among the examples."""
    first = 0
    for several in snapshot.example_gradients():
        for part in several.split(max(1, _ENTRIES // snapshot.size)):
            rows = part.double()
            if not math.isfinite(float(rows.sum())):
                raise ValueError(NOT_FINITE)
            yield slice(first, first + len(part)), rows
            first += len(part)


def _pass(snapshot: Snapshot) -> Gradients:
    n, along = 0, 0.0
    mean, spread = torch.zeros_like(snapshot.vector), torch.zeros_like(snapshot.vector)
    for _, g in gradients_by_place(snapshot):
        m = len(g)
        along += float((g @ snapshot.vector).square().sum())
        # joins the mean and spread of two samples without cancellation (Chan, Golub & LeVeque 1983)
        centre = g.mean(0)
        apart = centre - mean
        spread += (g - centre).square_().sum(0) + apart.square() * (n * m / (n + m))
        mean += apart * (m / (n + m))
        n += m
    return Gradients(n, mean, spread, along)
