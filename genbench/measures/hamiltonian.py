"""Hamiltonian Monte Carlo around the weights: chains without the bias of a step size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# acceptances of the fastest chains in many dimensions: of one leap (Roberts & Rosenthal 1998, J. R. Stat. Soc. B 60,
# 255) and of several (Beskos et al. 2013, arXiv 1001.4460)
LANGEVIN, HAMILTONIAN = 0.574, 0.651

_SHORTEST = 8  # times as long as the shortest leap is the longest

LossAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]  # [chains, size] -> [chains], [chains, size]


@dataclass(frozen=True)
class Chains:
    """What several chains drew after their burn-in.

    Attributes:
        start: L(w*).
        losses: L of each draw [chains, draws].
        distances: ‖w − w*‖² of each draw [chains, draws].
        slopes: ∇L(w*)·(w − w*) of each draw [chains, draws].
        acceptance: mean probability of acceptance [chains].
    """

    start: float
    losses: Tensor
    distances: Tensor
    slopes: Tensor
    acceptance: Tensor

    @property
    def stuck(self) -> int:
        """The number of chains that never moved."""
        return int((self.distances == self.distances[:, :1]).all(1).sum())


def hamiltonian_chains(
    evaluate: LossAndGradient,
    center: Tensor,
    generators: Sequence[torch.Generator],
    *,
    nbeta: float,
    gamma: float,
    leaps: int,
    burn_in: int,
    steps: int,
) -> Chains:
    """Draw weights from p(w) ∝ exp(−nβ L(w) − (γ/2)‖w − w*‖²), with a chain from w* for each generator.

    A step takes δ = w − w* and a new velocity v ~ N(0, I) through ``leaps`` leaps of size ε,

        v ← v − (ε/2) nβ∇L(w* + δ)
        δ, v ← δ cos θ + v sin θ / √γ, v cos θ − δ √γ sin θ
        v ← v − (ε/2) nβ∇L(w* + δ)

    and accepts the end with probability min(1, e^(H − H′)), H = nβL + (γ/2)‖δ‖² + ½‖v‖²; else it stays. This leaves p
    invariant. θ = ε√γ: the turn is exact for the localization (Neal 2011, arXiv 1206.1901, sect. 5.1), so that weights
    which only that holds, however many, do not shorten the leaps; for γ = 0 it is δ + εv. One leap is the
    Metropolis-adjusted Langevin algorithm with step size ε² (Roberts & Tweedie 1996, Bernoulli 2, 341), more are
    Hamiltonian Monte Carlo.

    Each step draws its size, log ε uniform between log ε̂ and log ε̂/8: valleys that narrow away from w*, as where
    L = (ab)², are entered by short leaps alone, and no length of a step is a multiple of an oscillation's. In the
    burn-in each chain adapts its ε̂ to an acceptance of 0.574, for several leaps 0.651 (Robbins & Monro 1951), up to a
    quarter turn; then it keeps the mean of log ε̂ over the second half. Where the loss or its gradient is not finite
    nothing is accepted. Chains share nothing but their passes over the data.

    Args:
        evaluate: L and its gradient at several weights.
        center: w* [size], float64.
        generators: of the chains' random numbers.
        nbeta: nβ > 0.
        gamma: γ ≥ 0.
        leaps: gradients of a step, at least 1.
        burn_in: steps whose ends are dropped.
        steps: draws of each chain.
    """
    target, root = LANGEVIN if leaps == 1 else HAMILTONIAN, math.sqrt(gamma)
    highest = math.log(math.pi / 2 / root) if gamma else math.inf
    log_size = center.new_full((len(generators),), min(highest, -math.log(gamma + nbeta) / 2))

    def energy(loss: Tensor, delta: Tensor, velocity: Tensor) -> Tensor:
        return nbeta * loss + (gamma * delta.square() + velocity.square()).sum(1) / 2

    def drawn(draw: Callable[..., Tensor], count: int) -> Tensor:
        return torch.stack([draw(count, generator=g, dtype=torch.float64) for g in generators]).to(center.device)

    delta = center.new_zeros(len(generators), len(center))
    loss, slope = evaluate(center + delta)
    first, slope, start = slope[0], nbeta * slope, float(loss[0])
    adapted, found = [], []
    for step in range(burn_in + steps):
        velocity, (shorter, threshold) = drawn(torch.randn, len(center)), drawn(torch.rand, 2).T
        size = (log_size - math.log(_SHORTEST) * shorter).exp()[:, None]
        cos, sin = (root * size).cos(), (root * size).sin()
        along = sin / root if gamma else size
        before = energy(loss, delta, velocity)
        there, new_loss, new_slope = delta, loss, slope
        for _ in range(leaps):
            velocity = velocity - size / 2 * new_slope
            there, velocity = cos * there + along * velocity, cos * velocity - root * sin * there
            inside = there.isfinite().all(1, keepdim=True)
            new_loss, new_slope = evaluate(center + torch.where(inside, there, 0.0))
            new_slope = nbeta * new_slope
            velocity = velocity - size / 2 * new_slope
        change = before - energy(new_loss, there, velocity)
        probability = torch.where(change.isfinite(), change.clamp(max=0).exp(), 0.0)
        accepted = threshold < probability
        delta = torch.where(accepted[:, None], there, delta)
        slope = torch.where(accepted[:, None], new_slope, slope)
        loss = torch.where(accepted, new_loss, loss)
        if step < burn_in:
            gain = min(1.0, burn_in / (4 * (step + 1)))
            log_size = (log_size + gain / 2 * (probability - target)).clamp(max=highest)
            adapted.append(log_size)
            if step == burn_in - 1:
                log_size = torch.stack(adapted[burn_in // 2 :]).mean(0)
        else:
            found.append(torch.stack([loss, delta.square().sum(1), delta @ first, probability]))
    losses, distances, slopes, probabilities = torch.stack(found, 2)
    return Chains(start, losses, distances, slopes, probabilities.mean(1))
