"""Worst-case sharpness: the largest rise of the loss near the weights."""

import math

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice, check_flag, check_integer
from genbench.measures.base import measure
from genbench.measures.perturbations import NO_LOGITS, check_positive, generator_of, logit_normalized
from genbench.measures.sharpness_ascent import ONE_START, Ball, Climb, directions, highest, largest, worst_case
from genbench.measures.snapshot import Snapshot
from genbench.records import SEARCH
from genbench.records.estimate import Estimate

_BASIS = 2**28  # entries of a random basis: 2 GB


@measure("flatness", moves=True, passes=lambda given: given["starts"] * (given["steps"] + 1))
def sam_sharpness(
    snapshot: Snapshot,
    *,
    rho: float = 0.05,
    norm: str = "l2",
    starts: int = 8,
    steps: int = 20,
    tolerance: float = 1e-3,
    normalize_logits: bool = False,
    seed: int = 0,
) -> Estimate:
    """max L(w + δ) − L(w) over ‖δ‖ ≤ ρ (Foret et al. 2021, arXiv 2010.01412, eq. 1), estimated by several ascents.

    The value is the largest rise found, a lower bound of the maximum. The loss has many local maxima in the ball: if
    the network fits its data, at least one for each example that it can lose there. ``starts`` ascents start from

    - SAM's own perturbation ρ∇L/‖∇L‖ (ρ sign ∇L in ℓ∞); with ``starts=1`` from it alone, as in the paper;
    - the gradients of the examples whose own loss can become largest in the ball: those with the largest
      q + max_δ ∇q·δ, q = log(e^ℓ − 1), to first order (−margin for a binary cross-entropy ℓ; q = ℓ if a loss is
      negative);
    - for every six further starts, both ends of an eigenvector of the Hessian (the largest first, from 12 Lanczos
      steps) and a random direction.

    Each is a conditional-gradient ascent: a step moves towards the point of the ball farthest along the gradient, all
    the way while the loss rises and half as far after each fall. It stops when the remaining first-order gain
    max_s ∇L·(s − δ), divided by the rise and reported as ``residual``, is at most ``tolerance``.

    ``converged``: the best ascent reached that tolerance, and another start, not its mirror image, came within
    ``tolerance`` of its rise; never with one start. The note says how many starts did and the lowest rise.

    Args:
        snapshot: network, loss and data.
        rho: radius ρ > 0, in units of the weights.
        norm: ``l2`` or ``linf``, of the ball.
        starts: ascents, at least 1.
        steps: bound on the steps of each ascent, each one pass forward and backward.
        tolerance: relative gap at which to stop, and relative difference at which two ascents agree, > 0.
        normalize_logits: the loss of normalized logits, see :func:`adaptive_sharpness`.
        seed: of the Lanczos iteration and of random directions, also of the first where the gradient is zero.
    """
    _check_ascents(rho, norm, starts, steps, tolerance, seed)
    view = logit_normalized(snapshot, normalize_logits)
    if view is None:
        return NO_LOGITS
    ball = Ball(torch.ones_like(view.vector), rho, norm)
    return worst_case(view, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)


@measure("flatness", moves=True, passes=lambda given: given["starts"] * (given["steps"] + 1))
def adaptive_sharpness(
    snapshot: Snapshot,
    *,
    rho: float = 0.5,
    norm: str = "l2",
    starts: int = 4,
    steps: int = 20,
    tolerance: float = 1e-3,
    normalize_logits: bool = True,
    seed: int = 0,
) -> Estimate:
    """Worst-case adaptive sharpness, logit-normalized: max L̃(w + δ) − L̃(w) over ‖δ / |w|‖ ≤ ρ, where L̃ is the loss of
    the logits (f − f̄) / √(1/K Σᵢ (fᵢ − f̄)²) (Andriushchenko et al. 2023, arXiv 2302.07011, eqs. 1–3 and section 3).

    Each weight moves in proportion to its size. Rescaling units or layers of a ReLU network without changing its
    function therefore does not change the value; nor, by the normalization, does rescaling the last layer. A weight
    that is zero does not move. Ascents, starts and ``converged`` are those of :func:`sam_sharpness`. The authors' code
    divides logits by their norm (√K times smaller); here they are divided by the paper's standard deviation.

    Args:
        snapshot: network, loss and data; outputs are logits [N, K, ...], K ≥ 2.
        rho: radius ρ > 0, relative to the weights.
        norm: ``l2`` or ``linf``, of the ball.
        starts: ascents, at least 1.
        steps: bound on the steps of each ascent.
        tolerance: relative gap at which to stop, and relative difference at which two ascents agree, > 0.
        normalize_logits: without it, the loss itself is used, for any output.
        seed: of the Lanczos iteration and of random directions.
    """
    _check_ascents(rho, norm, starts, steps, tolerance, seed)
    view = logit_normalized(snapshot, normalize_logits)
    if view is None:
        return NO_LOGITS
    ball = Ball(view.vector.abs(), rho, norm)
    return worst_case(view, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)


@measure("flatness", moves=True, passes=lambda given: 2 * given["starts"] * (given["steps"] + 1))
def first_order_flatness(
    snapshot: Snapshot, *, rho: float = 0.05, starts: int = 8, steps: int = 20, tolerance: float = 1e-3, seed: int = 0
) -> Estimate:
    """ρ · max ‖∇L(w + δ)‖₂ over ‖δ‖₂ ≤ ρ (Zhang et al. 2023, arXiv 2303.03108): large where the loss
    rises steeply anywhere in the ball, also where it rises to no great height.

    At a minimum of a quadratic loss it is ρ²λ₁, twice its SAM sharpness. Like that it changes when weights are rescaled
    and the function is not. The value is the largest found, a lower bound of the maximum. Ascents, starts, ``residual``
    and ``converged`` are those of :func:`sam_sharpness`, on ‖∇L‖ with its gradient ∇²L ∇L/‖∇L‖; the authors' optimizer
    takes one such step.

    Args:
        snapshot: network, loss and data.
        rho: radius ρ > 0, in units of the weights.
        starts: ascents, at least 1.
        steps: bound on the steps of each ascent, each a gradient and a Hessian-vector product at new weights.
        tolerance: relative gap at which to stop, and relative difference at which two ascents agree, > 0.
        seed: of the Lanczos iteration and of random directions.
    """
    _check_ascents(rho, "l2", starts, steps, tolerance, seed)
    ball = Ball(torch.ones_like(snapshot.vector), rho, "l2")

    def steepness(moved: Snapshot) -> tuple[float, Tensor]:
        _, slope = moved.gradient_at(moved.vector)
        norm = slope.norm()
        if not (norm > 0 and norm.isfinite()):
            return float(norm), torch.zeros_like(slope)
        return float(norm), moved.hessian.matvec(slope / norm)

    def rising(delta: Tensor) -> tuple[float, Tensor]:
        parameters = snapshot.split(snapshot.vector + delta)
        # what the first product finds of the network holds elsewhere too
        return steepness(snapshot.view(("structure", "second derivative"), parameters=parameters))

    floor, _ = steepness(snapshot)
    lines = directions(snapshot, ball, starts=starts, seed=seed)
    name = "the norm of the gradient"
    return largest(rising, ball, lines, name=name, steps=steps, tolerance=tolerance, floor=floor, scale=rho)


@measure("flatness", moves=True)
def m_sharpness(
    snapshot: Snapshot,
    *,
    m: int = 128,
    batches: int = 8,
    rho: float = 0.05,
    norm: str = "l2",
    starts: int = 8,
    steps: int = 20,
    tolerance: float = 1e-3,
    adaptive: bool = False,
    normalize_logits: bool = False,
    seed: int = 0,
) -> Estimate:
    """The mean, over batches of m examples, of the maximum rise of the batch's own loss in the ball ‖δ‖ ≤ ρ (‖δ / |w|‖
    ≤ ρ if ``adaptive``), with its standard error over batches (Foret et al. 2021, arXiv 2010.01412, section 4.1;
    Andriushchenko et al. 2023, arXiv 2302.07011: 8 batches of 128, one start).

    Draws the batches from all examples without replacement, whatever the batches of the data; ``None`` for fewer than
    m examples. The maxima are those of :func:`sam_sharpness`, or of :func:`adaptive_sharpness`. ``converged``: all of
    them converged; ``residual``: the largest; the note says how many batches converged.

    Args:
        snapshot: network, loss and data.
        m: examples a batch, at least 1.
        batches: number of batches, at least 2.
        rho, norm, starts, steps, tolerance, normalize_logits: as in :func:`sam_sharpness`.
        adaptive: ρ is relative to the weights, as in :func:`adaptive_sharpness`.
        seed: of the batches, the Lanczos iteration and random directions.
    """
    check_integer("m", m, least=1)
    check_integer("batches", batches, least=2)
    _check_ascents(rho, norm, starts, steps, tolerance, seed)
    check_flag("adaptive", adaptive)
    view = logit_normalized(snapshot, normalize_logits)
    if view is None:
        return NO_LOGITS
    ball = Ball(view.vector.abs() if adaptive else torch.ones_like(view.vector), rho, norm)
    order = torch.randperm(view.examples, generator=generator_of(seed, "m_sharpness"))
    chosen = [part.sort().values for part in order.split(m)[:batches] if len(part) == m]
    if not chosen:
        return Estimate(None, note=f"undefined: {view.examples} examples are fewer than m = {m}")
    found = [
        worst_case(part, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)
        for part in view.subsets(chosen)
    ]
    missing = [e for e in found if e.value is None]
    if missing:
        return missing[0]
    rises = torch.tensor([e.value for e in found], dtype=torch.float64)
    return Estimate(
        float(rises.mean()),
        stderr=float(rises.std()) / math.sqrt(len(rises)) if len(rises) > 1 else None,
        converged=all(e.converged for e in found),
        residual=max((e.residual for e in found if e.residual is not None), default=None),
        note=f"{SEARCH}{len(found)} batches, {sum(bool(e.converged) for e in found)} converged"
        + (f"; {ONE_START}" if starts == 1 else ""),
    )


@measure("flatness", moves=True)
def keskar_sharpness(
    snapshot: Snapshot,
    *,
    epsilon: float = 1e-3,
    dimensions: int | None = None,
    starts: int = 1,
    steps: int = 10,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Estimate:
    """100 · (max L(w + δ) − L(w)) / (1 + L(w)) over the box |δᵢ| ≤ ε(|wᵢ| + 1) (Keskar et al. 2017, arXiv 1609.04836,
    metric 2.1), in percent; the largest value found, a lower bound.

    In a random subspace of p ``dimensions``, the maximum is over δ = Ay, |yᵢ| ≤ ε(|(A⁺w)ᵢ| + 1), with A [size, p] and
    its pseudo-inverse A⁺; the paper has p = 100. Here the entries of A are standard normal; the paper does not say.

    The paper takes ten iterations of L-BFGS-B from an unnamed start. Here the start is the corner of the box along the
    gradient at w, which is far from w also for a converged network with a gradient near zero; a random corner if the
    gradient is zero. More ``starts`` are those of :func:`sam_sharpness`, as corners. ``converged`` is as there, so
    never with one start; ``residual`` is the remaining first-order gain max_s ∇L·(s − δ) in the box over the rise.

    Args:
        snapshot: network, loss and data.
        epsilon: ε > 0; the paper reports 1e-3 and 5e-4.
        dimensions: p, at least 1; None: the full space.
        starts: runs of L-BFGS-B, at least 1.
        steps: maximum number of iterations of each run; the passes forward and backward are about twice, at most 20
            times as many.
        tolerance: relative gap that counts as stationary, and relative difference at which two runs agree, > 0.
        seed: of random corners and of A.
    """
    check_positive("epsilon", epsilon)
    if dimensions is not None:
        check_integer("dimensions", dimensions, least=1)
    _check_ascents(epsilon, "linf", starts, steps, tolerance, seed)
    w, base = snapshot.vector, snapshot.mean_loss
    basis, center = None, w
    if dimensions is not None:
        if not dimensions <= snapshot.size <= _BASIS // dimensions:
            return Estimate(None, note=f"undefined: {dimensions} directions, and {snapshot.size:,} weights")
        generator = generator_of(seed, "keskar_sharpness")
        basis = torch.randn(snapshot.size, dimensions, generator=generator, dtype=torch.float64).to(w.device)
        center = torch.linalg.lstsq(basis, w.unsqueeze(1)).solution[:, 0]
    box = epsilon * (center.abs() + 1)
    from scipy.optimize import Bounds, minimize

    bad: list[float] = []

    def falling(found: np.ndarray) -> tuple[float, np.ndarray]:
        y = torch.from_numpy(found).to(w.device)
        loss, slope = snapshot.gradient_at(w + (y if basis is None else basis @ y))
        if not math.isfinite(loss):
            bad.append(loss)
        return -loss, -(slope if basis is None else basis.T @ slope).cpu().numpy()

    climbs = []
    ball = Ball(w.abs() + 1, epsilon, "linf")

    def corner(slope: Tensor) -> Tensor:
        return box * (slope if basis is None else basis.T @ (slope / ball.scale)).sign()

    for line, slope in directions(snapshot, ball, starts=starts, seed=seed, start=corner):
        found = minimize(
            falling,
            corner(slope).cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(-box.cpu().numpy(), box.cpu().numpy()),
            options={"maxiter": steps, "maxfun": 20 * steps, "ftol": 0.0, "gtol": 0.0},
        )
        if bad:
            return Estimate(None, note=f"undefined: the loss is {bad[0]} within epsilon = {epsilon:g}")
        rise = max(-float(found.fun) - base, 0.0)
        gap = float(np.abs(found.jac) @ box.cpu().numpy() + found.jac @ found.x)
        climbs.append(Climb(line, rise, gap))
    return highest(climbs, tolerance, scale=100 / (1 + base))


def _check_ascents(rho: float, norm: str, starts: int, steps: int, tolerance: float, seed: int) -> None:
    check_positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf"))
    check_integer("starts", starts, least=1)
    check_integer("steps", steps, least=1)
    check_positive("tolerance", tolerance)
    check_integer("seed", seed, least=0)
