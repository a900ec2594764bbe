"""Ascents of the loss in a ball around the weights: where they start, how they climb, and the largest rise."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from genbench.measures.curvature import leading_vectors
from genbench.measures.example_gradients import example_gradient_norms
from genbench.measures.perturbations import gaussian, generator_of
from genbench.measures.snapshot import Snapshot
from genbench.records import SEARCH
from genbench.records.estimate import Estimate

Rising = Callable[[Tensor], tuple[float, Tensor]]  # at a perturbation of the weights: a value and its gradient

_PARALLEL = 1 - 1e-9  # cosine from which two directions are one
ONE_START = "one start: nothing says that it is more than a local maximum"


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

    def outwards(self, u: Tensor, slope: Tensor) -> Tensor:
        """Move a point inside the ball to the sphere if the loss rises along ``u``."""
        if self.norm == "l2" and slope @ u > 0:
            return self.rho * u / u.norm()
        return u


def directions(
    snapshot: Snapshot, ball: Ball, *, starts: int, seed: int, start: Callable[[Tensor], Tensor] | None = None
) -> list[tuple[int, Tensor]]:
    """Start directions of ascents in the ball, as slopes of u for weights w + scale·u: see :func:`sam_sharpness`.

    Pairs (line, direction): where ascents start from mirror images, both have the same line through the centre. No two
    start from one point, so that there may be fewer than ``starts``. ``start`` gives the point that an ascent along a
    slope starts from, by default that of the ball which is farthest along it.
    """
    start = start or ball.towards
    found: list[tuple[int, Tensor]] = []
    lines: list[Tensor] = []
    units: list[Tensor] = []
    for slope in _slopes(snapshot, ball, starts, generator_of(seed, "sharpness"), seed):
        point = start(slope)
        length = point.norm()
        if not (length > 0 and length.isfinite()):
            continue
        unit = point / length  # two slopes may lead to one corner of a box
        line = next((i for i, other in enumerate(lines) if abs(float(other @ unit)) > _PARALLEL), len(lines))
        if line == len(lines):
            lines.append(unit)
        elif any(i == line and float(other @ unit) > 0 for (i, _), other in zip(found, units, strict=True)):
            continue
        units.append(unit)
        found.append((line, slope / slope.norm()))
        if len(found) == starts:
            break
    return found


def _slopes(snapshot: Snapshot, ball: Ball, starts: int, generator: torch.Generator, seed: int) -> Iterator[Tensor]:
    """Candidates of directions, the most promising first."""
    slope = snapshot.gradient_at(snapshot.vector)[1] * ball.scale
    if not slope.isfinite().all():
        raise ValueError("the gradient of the loss is not finite")
    # at a stationary point any direction may rise
    yield slope if slope.any() else gaussian(snapshot, generator)
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
        yield gaussian(snapshot, generator)


def _worst_examples(snapshot: Snapshot, ball: Ball, count: int) -> list[Tensor]:
    """The gradients, as slopes of u, of the examples whose own loss can become largest in the ball; none if the loss
    does not split into the examples' losses."""
    if snapshot.examples == 1 or not count:  # of one example the mean gradient is its
        return []
    try:
        value = _example_losses(snapshot)
        rise = ball.rho * example_gradient_norms(snapshot, ball.scale, p=1 if ball.norm == "linf" else 2)
        highest = value + rise
        if bool((value >= 0).all()):
            # q and what stands before ∇ℓ in ∇q; −expm1(−ℓ) is 1 − e^−ℓ without cancellation
            room = -torch.expm1(-value)
            highest = torch.where(value > 0, value + room.log() + rise / room, -math.inf)
        top = highest.topk(min(count, len(highest))).indices
        rows = torch.cat(list(snapshot.subsets([top.sort().values])[0].example_gradients()))
    except (RuntimeError, TypeError, ValueError):  # a loss that is no mean over examples, or cannot take one alone
        return []
    return [rows[i].double() * ball.scale for i in top.argsort().argsort()]


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


def ascend(rising: Rising, ball: Ball, slope: Tensor, *, steps: int) -> Iterator[tuple[Tensor, float, float]]:
    """Conditional-gradient ascent in the ball from its point along ``slope``: see :func:`sam_sharpness`.

    Yields, at the start and after each of ``steps`` steps, the perturbation δ, its value (which never falls) and the
    gap max_s ∇·(s − δ).
    """

    def evaluate(u: Tensor) -> tuple[float, Tensor]:
        value, gradient = rising(ball.scale * u)
        return value, gradient * ball.scale

    u = ball.towards(slope)
    value, slope = evaluate(u)
    rate = 1.0
    for _ in range(steps):
        target = ball.towards(slope)
        yield ball.scale * u, value, float(slope @ (target - u))
        step = ball.outwards(u + rate * (target - u), slope)
        new_value, new_slope = evaluate(step)
        if new_value > value:
            u, value, slope, rate = step, new_value, new_slope, min(2 * rate, 1.0)
        else:
            rate /= 2
    yield ball.scale * u, value, float(slope @ (ball.towards(slope) - u))


class Climb(NamedTuple):
    """The end of an ascent: the line of its start, the rise, and the remaining first-order gain."""

    line: int
    rise: float
    gap: float


def worst_case(snapshot: Snapshot, ball: Ball, *, starts: int, steps: int, tolerance: float, seed: int) -> Estimate:
    """max L(w + δ) − L(w) over the ball."""
    base = snapshot.mean_loss

    def rising(delta: Tensor) -> tuple[float, Tensor]:
        loss, slope = snapshot.gradient_at(snapshot.vector + delta)
        return loss - base, slope

    lines = directions(snapshot, ball, starts=starts, seed=seed)
    return largest(rising, ball, lines, name="the loss", steps=steps, tolerance=tolerance)


def largest(
    rising: Rising,
    ball: Ball,
    lines: Sequence[tuple[int, Tensor]],
    *,
    name: str,
    steps: int,
    tolerance: float,
    floor: float = 0.0,
    scale: float = 1.0,
) -> Estimate:
    """``scale`` times the largest value that ascents from these :func:`directions` find, at least ``floor``; ``name``
    is that of the value, for the note where it is not finite."""
    climbs = []
    for line, direction in lines:
        rise, gap = floor, math.inf
        for _, value, gap in ascend(rising, ball, direction, steps=steps):
            if not math.isfinite(value):
                return Estimate(None, note=f"undefined: {name} is {value} within rho = {ball.rho:g}")
            rise = max(rise, value)
            if gap <= tolerance * rise:
                break
        climbs.append(Climb(line, rise, gap))
    return highest(climbs, tolerance, scale=scale)


def highest(climbs: Sequence[Climb], tolerance: float, *, scale: float = 1.0) -> Estimate:
    """Estimate of the maximum rise; the residual is the remaining first-order gain divided by it."""
    best = max(climbs, key=lambda climb: climb.rise)
    reached = [climb for climb in climbs if climb.rise >= (1 - tolerance) * best.rise]
    # without a rise the ratio is undefined
    residual = best.gap / best.rise if best.rise > 0 and math.isfinite(best.gap) else None
    low = min(climb.rise for climb in climbs)
    return Estimate(
        scale * best.rise,
        converged=best.gap <= tolerance * best.rise and any(climb.line != best.line for climb in reached),
        residual=residual,
        note=ONE_START
        if len(climbs) == 1
        else f"{SEARCH}{len(climbs)} starts, {len(reached)} reached it, the lowest {scale * low:.3g}",
    )
