"""Average-case sharpness: the mean rise of the loss under random perturbations of the weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer
from genbench.measures.base import measure
from genbench.measures.perturbations import NO_LOGITS, check_positive, gaussian, generator_of, logit_normalized, uniform
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("flatness", moves=True, passes=lambda given: 2 * given["pairs"])
def average_sharpness(
    snapshot: Snapshot,
    *,
    rho: float = 0.5,
    norm: str = "l2",
    pairs: int = 10,
    normalize_logits: bool = False,
    seed: int = 0,
) -> Estimate:
    """E L(w + δ) − L(w) over directions δ drawn uniformly on the sphere ‖δ‖₂ = ρ (a Gaussian vector, normalized), with
    its standard error; for small ρ about ρ² tr(∇²L) / 2ω, ω the number of weights, where the loss is smooth (the kinks
    of ReLU networks add to it). In ℓ∞, δ is uniform in the box [−ρ, ρ]^ω, and the rise about ρ² tr(∇²L) / 6; in
    ``gaussian``, δ ~ N(0, ρ²I), and the rise about ρ² tr(∇²L) / 2: both as in Andriushchenko et al. 2023, arXiv
    2302.07011, whose average-case ℓ2 sharpness is the latter.

    Never above the maximum that :func:`sam_sharpness` bounds at the same ρ, but far below it in many dimensions, hence
    the larger default. Directions are taken in pairs ±δ, which cancels the slope.

    Args:
        snapshot: network, loss and data.
        rho: radius (half width, standard deviation) ρ > 0, in units of the weights.
        norm: ``l2``, ``linf`` or ``gaussian``.
        pairs: pairs ±δ, each two forward passes, at least 2.
        normalize_logits: the loss of normalized logits, see :func:`adaptive_sharpness`.
        seed: of the directions, from a generator of its own.
    """
    rho = check_positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf", "gaussian"))
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "average_sharpness")
    view = logit_normalized(snapshot, normalize_logits)
    if view is None:
        return NO_LOGITS

    def draw() -> Tensor:
        if norm == "linf":
            return uniform(view, generator).mul_(rho)
        z = gaussian(view, generator)
        return z * (rho if norm == "gaussian" else rho / z.norm())

    return _average(view, draw, pairs=pairs)


@measure("flatness", moves=True, passes=lambda given: 2 * given["pairs"])
def adaptive_average_sharpness(
    snapshot: Snapshot,
    *,
    rho: float = 0.1,
    norm: str = "l2",
    pairs: int = 10,
    normalize_logits: bool = True,
    seed: int = 0,
) -> Estimate:
    """Average-case adaptive sharpness E L̃(w + δ) − L̃(w), δ ~ N(0, ρ² diag(w²)) (Andriushchenko et al. 2023, arXiv
    2302.07011, eq. 1), L̃ the loss of normalized logits as in :func:`adaptive_sharpness`; in ℓ∞, δᵢ is uniform in
    [−ρ|wᵢ|, ρ|wᵢ|] (the authors' code). Unlike in :func:`average_sharpness`, ρ is a standard deviation (a half width),
    not the length of δ.

    Args:
        snapshot: network, loss and data; outputs are logits [N, K, ...], K ≥ 2.
        rho: ρ > 0, relative to the weights.
        norm: ``l2`` or ``linf``.
        pairs: pairs ±δ, each two forward passes, at least 2.
        normalize_logits: without it, the loss itself is used, for any output.
        seed: of the directions, from a generator of its own.
    """
    rho = check_positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf"))
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "adaptive_average_sharpness")
    view = logit_normalized(snapshot, normalize_logits)
    if view is None:
        return NO_LOGITS
    draw = uniform if norm == "linf" else gaussian
    return _average(view, lambda: draw(view, generator) * view.vector.abs() * rho, pairs=pairs)


@measure("flatness", moves=True, passes=lambda given: 2 * given["pairs"])
def low_pass_filter_sharpness(snapshot: Snapshot, *, sigma: float = 0.01, pairs: int = 50, seed: int = 0) -> Estimate:
    """The loss convolved with a Gaussian kernel, E L(w + δ), δ ~ N(0, σ²I), with its standard error (Bisla et al. 2022,
    arXiv 2201.08025: σ = 0.01 and 100 draws). L(w) is not subtracted: a network that does not fit its data is sharp
    by this measure. The authors' code first divides each unit's weights and bias by ‖w‖ + |b| and puts
    the scale back by a fixed factor behind it; here the weights stay as they are, so that the value depends on their
    scale and σ = 0.01 is not the same noise.

    Args:
        snapshot: network, loss and data.
        sigma: standard deviation σ > 0, in units of the weights.
        pairs: pairs ±δ, each two forward passes, at least 2.
        seed: of the noise, from a generator of its own.
    """
    sigma = check_positive("sigma", sigma)
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "low_pass_filter_sharpness")
    rise = _average(snapshot, lambda: gaussian(snapshot, generator) * sigma, pairs=pairs)
    assert rise.value is not None
    return Estimate(snapshot.mean_loss + rise.value, stderr=rise.stderr)


def _average(snapshot: Snapshot, draw: Callable[[], Tensor], *, pairs: int) -> Estimate:
    """The mean over ±δ of L(w ± δ) − L(w)."""
    w, base = snapshot.vector, snapshot.mean_loss
    rises = []
    for _ in range(pairs):
        delta = draw()
        rises.append((snapshot.loss_at(w + delta) + snapshot.loss_at(w - delta)) / 2 - base)
    rise = torch.tensor(rises, dtype=torch.float64)
    return Estimate(float(rise.mean()), stderr=float(rise.std()) / math.sqrt(pairs))
