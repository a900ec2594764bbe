"""Sharpness: how much the loss rises near the weights."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from genbench.checks import check_choice, check_flag, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.curvature import leading_vectors
from genbench.measures.outputs import with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records import SEARCH
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_NO_LOGITS = Estimate(
    None,
    note="undefined: no logits of two or more classes to normalize (normalize_logits=false takes the loss as it is)",
)
_PARALLEL = 1 - 1e-9  # cosine from which two directions are one


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
    """max L(w + δ) − L(w) over ‖δ‖ ≤ ρ (Foret et al. 2021, arXiv 2010.01412, eq. 1): the largest rise that was found,
    a lower bound of the maximum.

    The loss has many local maxima in the ball: of a network that fits its data, one or more for each example that can
    be lost in it. ``starts`` ascents look for the largest: from SAM's own perturbation ρ∇L/‖∇L‖ (ρ sign ∇L in ℓ∞; it
    alone with ``starts=1``, as in the paper), from the gradients of the examples whose own loss can become largest in
    the ball, and for every six further starts from the two ends of an eigenvector of the Hessian (the largest first,
    from 12 Lanczos steps) and from a random direction.

    Each is a conditional-gradient ascent: a step moves towards the point of the ball that the gradient names, all the
    way for a rising loss and half as far after each fall. No direction rises any more if the gap max_s ∇L·(s − δ),
    reported as ``residual`` relative to the rise, is at most ``tolerance``.

    ``converged``: the largest rise has such a gap, and another start, not its mirror image, came within ``tolerance``
    of it; never with one start. The note says how many did and how far apart the ends are.

    Which examples can become worst: with q = log(e^ℓ − 1), which is −margin for a binary cross-entropy ℓ, those of the
    largest q + max_δ ∇q·δ, one pass over the examples' gradients; with ℓ for q where a loss is negative.

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
    view = _logit_normalized(snapshot, normalize_logits)
    if view is None:
        return _NO_LOGITS
    ball = Ball(torch.ones_like(view.vector), rho, norm)
    return _worst_case(view, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)


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

    Each weight moves in proportion to its size, so the value does not change when units or layers of a ReLU network are
    rescaled without changing its function; nor, through the normalization, when the last layer is rescaled. The
    ascents, their starts and ``converged`` are those of :func:`sam_sharpness`; a weight that is zero does not move. The
    authors' code divides logits by their norm (√K times smaller); the paper's standard deviation is used here.

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
    view = _logit_normalized(snapshot, normalize_logits)
    if view is None:
        return _NO_LOGITS
    ball = Ball(view.vector.abs(), rho, norm)
    return _worst_case(view, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)


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
    of ReLU networks add to it). In ℓ∞, δ is uniform in the box [−ρ, ρ]^ω, as in the code of Andriushchenko et al. 2023,
    and the rise about ρ² tr(∇²L) / 6.

    Never above the maximum that :func:`sam_sharpness` bounds at the same ρ, but far below it in many dimensions, hence
    the larger default. Directions are taken in pairs ±δ, which cancels the slope. The average-case sharpness of
    Andriushchenko et al. 2023 (arXiv 2302.07011) draws δ ~ N(0, σ²I): ρ = σ√ω here.

    Args:
        snapshot: network, loss and data.
        rho: radius ρ > 0, in units of the weights.
        norm: ``l2`` or ``linf``.
        pairs: pairs ±δ, each two forward passes, at least 2.
        normalize_logits: the loss of normalized logits, see :func:`adaptive_sharpness`.
        seed: of the directions, from a generator of its own.
    """
    rho = _positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf"))
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "average_sharpness")
    view = _logit_normalized(snapshot, normalize_logits)
    if view is None:
        return _NO_LOGITS

    def draw() -> Tensor:
        if norm == "linf":
            return uniform(view, generator).mul_(rho)
        z = _gaussian(view, generator)
        return z * (rho / z.norm())

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
    rho = _positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf"))
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "adaptive_average_sharpness")
    view = _logit_normalized(snapshot, normalize_logits)
    if view is None:
        return _NO_LOGITS
    draw = uniform if norm == "linf" else _gaussian
    return _average(view, lambda: draw(view, generator) * view.vector.abs() * rho, pairs=pairs)


@measure("flatness", moves=True, passes=lambda given: 2 * given["pairs"])
def low_pass_filter_sharpness(snapshot: Snapshot, *, sigma: float = 0.01, pairs: int = 50, seed: int = 0) -> Estimate:
    """The loss convolved with a Gaussian kernel, E L(w + δ), δ ~ N(0, σ²I), with its standard error (Bisla et al. 2022,
    arXiv 2201.08025: σ = 0.01 and 100 draws). The loss itself is not subtracted: a network that does not fit its
    data is sharp by this measure. The authors' code first divides each unit's weights and bias by ‖w‖ + |b| and puts
    the scale back by a fixed factor behind it; here the weights stay as they are, so that the value depends on their
    scale and σ = 0.01 is not the same noise.

    Args:
        snapshot: network, loss and data.
        sigma: standard deviation σ > 0, in units of the weights.
        pairs: pairs ±δ, each two forward passes, at least 2.
        seed: of the noise, from a generator of its own.
    """
    sigma = _positive("sigma", sigma)
    check_integer("pairs", pairs, least=2)
    generator = generator_of(seed, "low_pass_filter_sharpness")
    rise = _average(snapshot, lambda: _gaussian(snapshot, generator) * sigma, pairs=pairs)
    assert rise.value is not None
    return Estimate(snapshot.mean_loss + rise.value, stderr=rise.stderr)


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
    normalize_logits: bool = False,
    seed: int = 0,
) -> Estimate:
    """The mean over batches of m examples of the largest rise of the batch's own loss in the ball ‖δ‖ ≤ ρ, with its
    standard error over batches (Foret et al. 2021, arXiv 2010.01412, section 4.1; Andriushchenko et al. 2023, arXiv
    2302.07011: 8 batches of 128).

    The batches are drawn from all examples without replacement, whatever batches the data come in: no more than there
    are, and ``None`` for fewer than m examples. The maximum is that of :func:`sam_sharpness`; ``converged`` says
    whether all were reached, ``residual`` is the largest, the note says how many ascents agree in each batch.

    Args:
        snapshot: network, loss and data.
        m: examples a batch, at least 1.
        batches: how many, at least 2.
        rho, norm, starts, steps, tolerance, normalize_logits: as in :func:`sam_sharpness`.
        seed: of the batches, and as there.
    """
    check_integer("m", m, least=1)
    check_integer("batches", batches, least=2)
    _check_ascents(rho, norm, starts, steps, tolerance, seed)
    view = _logit_normalized(snapshot, normalize_logits)
    if view is None:
        return _NO_LOGITS
    ball = Ball(torch.ones_like(view.vector), rho, norm)
    order = torch.randperm(view.examples, generator=generator_of(seed, "m_sharpness"))
    chosen = [part.sort().values for part in order.split(m)[:batches] if len(part) == m]
    if not chosen:
        return Estimate(None, note=f"undefined: {view.examples} examples are fewer than m = {m}")
    found = [
        _worst_case(part, ball, starts=starts, steps=steps, tolerance=tolerance, seed=seed)
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
        + (f"; {_ONE_START}" if starts == 1 else ""),
    )


@measure("flatness", moves=True)
def keskar_sharpness(
    snapshot: Snapshot,
    *,
    epsilon: float = 1e-3,
    starts: int = 1,
    steps: int = 10,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Estimate:
    """100 · (max L(w + δ) − L(w)) / (1 + L(w)) over the box |δᵢ| ≤ ε(|wᵢ| + 1) (Keskar et al. 2017, arXiv 1609.04836,
    metric 2.1 in the full space), in percent: the largest value that was found, a lower bound.

    As in the paper, the maximum is sought by ten iterations of L-BFGS-B, once. It does not say from where: here from
    the corner of the box that the gradient at w names, which is as far from w for a converged network, whose gradient
    is nearly zero, as for any other; from a random corner where it is zero. More ``starts`` are those of
    :func:`sam_sharpness`, as corners, and ``converged`` is as there, so never with one start: ``residual`` is the gap
    max_s ∇L·(s − δ) over the box relative to the rise.

    Args:
        snapshot: network, loss and data.
        epsilon: ε > 0; the paper reports 1e-3 and 5e-4.
        starts: runs of L-BFGS-B, at least 1.
        steps: bound on the iterations of each; the passes forward and backward are at most 20 times as many, twice as
            a rule.
        tolerance: relative gap that counts as stationary, and relative difference at which two runs agree, > 0.
        seed: of random corners.
    """
    _positive("epsilon", epsilon)
    _check_ascents(epsilon, "linf", starts, steps, tolerance, seed)
    w, base = snapshot.vector, snapshot.mean_loss
    box = epsilon * (w.abs() + 1)
    bad: list[float] = []

    def falling(delta: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = snapshot.gradient_at(w + torch.from_numpy(delta).to(w.device))
        if not math.isfinite(loss):
            bad.append(loss)
        return -loss, -slope.cpu().numpy()

    climbs = []
    ball = Ball(w.abs() + 1, epsilon, "linf")
    for line, slope in directions(snapshot, ball, starts=starts, seed=seed):
        found = minimize(
            falling,
            (box * slope.sign()).cpu().numpy(),
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
    return _highest(climbs, tolerance, scale=100 / (1 + base))


class Ball:
    """The perturbations scale·u with ‖u‖ ≤ ρ, in ``l2`` or ``linf``."""

    def __init__(self, scale: Tensor, rho: float, norm: str) -> None:
        self.scale = scale
        self.rho, self.norm = rho, norm

    def towards(self, slope: Tensor) -> Tensor:
        """The point u of the ball that is farthest along ``slope``."""
        if self.norm == "linf":
            return self.rho * slope.sign()
        return self.rho * slope / slope.norm().clamp_min(1e-300)

    def reach(self, slopes: Tensor) -> Tensor:
        """max slope·u over the ball, of each of ``slopes`` [N, size]: ρ times the dual norm."""
        return self.rho * slopes.norm(dim=1, p=1 if self.norm == "linf" else 2)

    def outwards(self, u: Tensor, slope: Tensor) -> Tensor:
        """On the sphere instead of inside it, where the loss rises along ``u``."""
        if self.norm == "l2" and slope @ u > 0:
            return self.rho * u / u.norm()
        return u


def directions(snapshot: Snapshot, ball: Ball, *, starts: int, seed: int) -> list[tuple[int, Tensor]]:
    """Where ascents in the ball start, as slopes of u where the weights are w + scale·u: see :func:`sam_sharpness`.

    Each with the number of its line through the centre, which mirror images have in common; none twice, so that there
    may be fewer than ``starts``."""
    found: list[tuple[int, Tensor]] = []
    lines: list[Tensor] = []
    for slope in _slopes(snapshot, ball, starts, generator_of(seed, "sharpness"), seed):
        length = slope.norm()
        if not (length > 0 and length.isfinite()):
            continue
        unit = slope / length
        line = next((i for i, other in enumerate(lines) if abs(float(other @ unit)) > _PARALLEL), len(lines))
        if line == len(lines):
            lines.append(unit)
        elif any(i == line and float(lines[i] @ unit) * float(lines[i] @ other) > 0 for i, other in found):
            continue
        found.append((line, unit))
        if len(found) == starts:
            break
    return found


def _slopes(snapshot: Snapshot, ball: Ball, starts: int, generator: torch.Generator, seed: int) -> Iterator[Tensor]:
    """Candidates, the most promising first; zero where a kind of them is none."""
    slope = snapshot.gradient_at(snapshot.vector)[1] * ball.scale
    # at a stationary point any direction may rise
    yield slope if slope.any() else _gaussian(snapshot, generator)
    if starts == 1:
        return
    several = (starts - 1) // 6
    yield from _worst_examples(snapshot, ball, starts - 1 - 3 * several)
    if several:
        try:
            vectors = list(leading_vectors(snapshot, several, scale=ball.scale, seed=seed))
        except (RuntimeError, ValueError):  # the network has no second derivative, or none that is finite
            vectors = []
        for vector in vectors:
            yield vector
            yield -vector
    for _ in range(2 * starts):  # also for what is missing above; some may lie on a line that there is
        yield _gaussian(snapshot, generator)


def _worst_examples(snapshot: Snapshot, ball: Ball, count: int) -> list[Tensor]:
    """The gradients, as slopes of u, of the examples whose own loss can become largest in the ball; none where the
    examples' losses cannot be told apart."""
    if snapshot.examples == 1:  # the mean gradient is its
        return []
    plain = bool((ball.scale == 1).all())
    kept: list[tuple[float, Tensor]] = []
    first = 0
    try:
        losses = _example_losses(snapshot)
        positive = bool((losses >= 0).all())
        for some in snapshot.example_gradients():
            slopes = some if plain else some * ball.scale
            value = losses[first : first + len(some)]
            first += len(some)
            highest = value + ball.reach(slopes).double()
            if positive:
                # q and what stands before ∇ℓ in ∇q; −expm1(−ℓ) is 1 − e^−ℓ without cancellation
                room = -torch.expm1(-value)
                highest = torch.where(value > 0, value + room.log() + (highest - value) / room, -math.inf)
            top = highest.topk(min(count, len(highest)))
            kept += [(float(q), slopes[i].double()) for q, i in zip(*top, strict=True)]
            kept = sorted(kept, key=lambda pair: -pair[0])[:count]
    except (RuntimeError, TypeError, ValueError):  # a loss that is no mean over examples, or cannot take one alone
        return []
    return [slope for _, slope in kept]


def _example_losses(snapshot: Snapshot) -> Tensor:
    """ℓᵢ [N], float64, from the outputs."""
    found = []
    with torch.no_grad():
        for (output, target), (_, n) in zip(snapshot.predictions, snapshot.losses, strict=True):
            leaves, spec = tree_flatten((output, target))
            split = [isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == n for leaf in leaves]

            def loss(*rows: Tensor, leaves: Any = leaves, split: Any = split, spec: Any = spec) -> Tensor:
                rest = iter(rows)
                whole = [next(rest)[None] if s else leaf for leaf, s in zip(leaves, split, strict=True)]
                return snapshot.loss(*tree_unflatten(whole, spec)).reshape(())

            parts = [leaf for leaf, s in zip(leaves, split, strict=True) if s]
            try:
                found.append(torch.vmap(loss)(*parts))
            except RuntimeError:  # an operation that has no batching rule, or control flow on values
                found.append(torch.stack([loss(*rows) for rows in zip(*parts, strict=True)]))
    return torch.cat(found).double()


def ascend(snapshot: Snapshot, ball: Ball, slope: Tensor, *, steps: int) -> Iterator[tuple[Tensor, float, float]]:
    """Conditional-gradient ascent in the ball from its point along ``slope``, see :func:`sam_sharpness`.

    Where it starts and where it is after each of ``steps`` steps: the perturbation, its loss, which never falls, and
    the gap max_s ∇L·(s − δ)."""

    def evaluate(u: Tensor) -> tuple[float, Tensor]:
        loss, gradient = snapshot.gradient_at(snapshot.vector + ball.scale * u)
        return loss, gradient * ball.scale

    u = ball.towards(slope)
    loss, slope = evaluate(u)
    rate = 1.0
    for _ in range(steps):
        target = ball.towards(slope)
        yield ball.scale * u, loss, float(slope @ (target - u))
        step = ball.outwards(u + rate * (target - u), slope)
        new_loss, new_slope = evaluate(step)
        if new_loss > loss:
            u, loss, slope, rate = step, new_loss, new_slope, min(2 * rate, 1.0)
        else:
            rate /= 2
    yield ball.scale * u, loss, float(slope @ (ball.towards(slope) - u))


class Climb(NamedTuple):
    """Where an ascent ended: the line it started on, the rise, and the gap that the gradient still promises."""

    line: int
    rise: float
    gap: float


def _worst_case(snapshot: Snapshot, ball: Ball, *, starts: int, steps: int, tolerance: float, seed: int) -> Estimate:
    """max L(w + δ) − L(w) over the ball."""
    base = snapshot.mean_loss
    climbs = []
    for line, direction in directions(snapshot, ball, starts=starts, seed=seed):
        rise, gap = 0.0, math.inf
        for _, loss, gap in ascend(snapshot, ball, direction, steps=steps):
            if not math.isfinite(loss):
                return Estimate(None, note=f"undefined: the loss is {loss} within rho = {ball.rho:g}")
            rise = max(rise, loss - base)
            if gap <= tolerance * rise:
                break
        climbs.append(Climb(line, rise, gap))
    return _highest(climbs, tolerance)


_ONE_START = "one start: nothing says that it is more than a local maximum"


def _highest(climbs: Sequence[Climb], tolerance: float, *, scale: float = 1.0) -> Estimate:
    """The largest rise, whether it is to be believed, and how far apart the ascents ended."""
    best = max(climbs, key=lambda climb: climb.rise)
    reached = [climb for climb in climbs if climb.rise >= (1 - tolerance) * best.rise]
    # where nothing rises the relative gap is no number
    residual = best.gap / best.rise if best.rise > 0 and math.isfinite(best.gap) else None
    low = min(climb.rise for climb in climbs)
    return Estimate(
        scale * best.rise,
        converged=best.gap <= tolerance * best.rise and any(climb.line != best.line for climb in reached),
        residual=residual,
        note=_ONE_START
        if len(climbs) == 1
        else f"{SEARCH}{len(climbs)} starts, {len(reached)} reached it, the lowest {scale * low:.3g}",
    )


def _average(snapshot: Snapshot, draw: Callable[[], Tensor], *, pairs: int) -> Estimate:
    """The mean over ±δ of L(w ± δ) − L(w)."""
    w, base = snapshot.vector, snapshot.mean_loss
    rises = []
    for _ in range(pairs):
        delta = draw()
        rises.append((snapshot.loss_at(w + delta) + snapshot.loss_at(w - delta)) / 2 - base)
    rise = torch.tensor(rises, dtype=torch.float64)
    return Estimate(float(rise.mean()), stderr=float(rise.std()) / math.sqrt(pairs))


def _logit_normalized(snapshot: Snapshot, normalize: bool) -> Snapshot | None:
    """The snapshot under the loss of normalized logits; None where the outputs are no logits."""
    if not check_flag("normalize_logits", normalize):
        return snapshot
    reading = with_logits(snapshot)
    if isinstance(reading, str) or reading.axis is None:
        return None
    loss = snapshot.loss
    return snapshot.with_loss(
        lambda output, target: loss(reading.put(output, _normalized(reading.logits(output))), target),
        count=snapshot.count,
    )


def _normalized(logits: Any) -> Tensor:
    centred = logits - logits.mean(1, keepdim=True)
    # a network that outputs zeros keeps them; its gradient stays finite
    return centred / centred.square().mean(1, keepdim=True).clamp_min(1e-24).sqrt()


def _check_ascents(rho: float, norm: str, starts: int, steps: int, tolerance: float, seed: int) -> None:
    _positive("rho", rho)
    check_choice("norm", norm, ("l2", "linf"))
    check_integer("starts", starts, least=1)
    check_integer("steps", steps, least=1)
    _positive("tolerance", tolerance)
    check_integer("seed", seed, least=0)


def generator_of(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(check_integer("seed", seed, least=0), name))


def _gaussian(snapshot: Snapshot, generator: torch.Generator) -> Tensor:
    return torch.randn(snapshot.size, generator=generator, dtype=torch.float64).to(snapshot.device)


def uniform(snapshot: Snapshot, generator: torch.Generator) -> Tensor:
    """Uniform on [−1, 1)."""
    return torch.rand(snapshot.size, generator=generator, dtype=torch.float64).mul_(2).sub_(1).to(snapshot.device)


def _positive(name: str, value: float) -> float:
    if check_number(name, value, low=0) == 0:
        raise ValueError(f"{name} is {value!r}; accepted: a number > 0")
    return float(value)
