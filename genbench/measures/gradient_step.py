"""How the loss and its gradient change along a gradient step."""

import copy
import math

import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.random_state import seed_all
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom, derive_seed

_NAMES = (
    "step_loss_low",
    "step_loss_high",
    "step_loss_range",
    "step_gradient_low",
    "step_gradient_high",
    "step_smoothness",
)
_BLOCK = 4096  # examples that are read at once


@measure("optimization", names=_NAMES)
def gradient_step(
    snapshot: Snapshot,
    *,
    lr: float,
    shortest: float = 0.5,
    longest: float = 4.0,
    points: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How the loss ℓ of a batch and its gradient change along w − ηg, g = ∇ℓ(w), for step lengths η evenly spaced from
    ``shortest`` to ``longest`` times the learning rate (after Santurkar et al. 2018, arXiv 1805.11604):

    - ``step_loss_low``, ``step_loss_high`` and ``step_loss_range``: the least and the largest loss, and their
      difference;
    - ``step_gradient_low`` and ``step_gradient_high``: the least and the largest ‖∇ℓ(w − ηg) − g‖₂;
    - ``step_smoothness``: the effective smoothness β, the largest ‖∇ℓ(w − ηg) − g‖₂ over the distance η‖g‖₂.

    On a quadratic ½wᵀAw, β is ‖Ag‖₂/‖g‖₂ whatever the lengths, and at most the largest modulus of an eigenvalue of A.

    The network is a copy in training mode, as the step is: batch norm takes the statistics of the batch, and dropout
    and noise draw the same numbers at every length. In evaluation mode batch norm would be a fixed scale. Networks that
    are scaled otherwise have other gradients: β is compared at one training, not at equal functions.

    Args:
        snapshot: network, loss and data.
        lr: learning rate, > 0.
        shortest: step length in learning rates, > 0.
        longest: likewise, at least the shortest.
        points: number of step lengths, at least 1.
        batch_size: examples of the batch, at random by ``seed``, at least 1; ``None`` for all.
        seed: of the batch and of the network's own random numbers, at least 0.
    """
    check_number("lr", lr, low=0, open_low=True)
    check_number("shortest", shortest, low=0, open_low=True)
    check_number("longest", longest, low=shortest)
    check_integer("points", points, least=1)
    check_integer("seed", seed, least=0)
    if batch_size is not None:
        check_integer("batch_size", batch_size, least=1)
    x, y = (torch.cat(parts) for parts in zip(*snapshot.blocks(_BLOCK), strict=True))
    if batch_size is not None:
        rows = StepRandom(seed, 0).permutation("gradient_step.batch", len(y))[:batch_size].to(y.device)
        x, y = x[rows], y[rows]
    net = copy.deepcopy(snapshot.model).double().train()
    x = x.double() if x.is_floating_point() else x
    y = y.double() if y.is_floating_point() else y
    weights = [p for p in net.parameters() if p.requires_grad]

    def slope() -> tuple[float, Tensor]:
        seed_all(derive_seed(seed, "gradient_step") % 2**32)  # restored after the measurement
        loss = snapshot.loss(net(x), y)
        found = torch.autograd.grad(loss, weights, materialize_grads=True)
        return float(loss.detach()), torch.cat([g.flatten() for g in found])

    start = torch.nn.utils.parameters_to_vector(weights).detach().clone()
    _, gradient = slope()
    norm = float(gradient.norm())
    if norm == 0 or not math.isfinite(norm):
        return dict.fromkeys(_NAMES, undefined("the gradient is zero" if norm == 0 else "the gradient is not finite"))
    losses, changes, ratios = [], [], []
    for length in torch.linspace(shortest, longest, points, dtype=torch.float64).tolist():
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(start - lr * length * gradient, weights)
        loss, there = slope()
        losses.append(loss)
        changes.append(float((there - gradient).norm()))
        ratios.append(changes[-1] / (lr * length * norm))
    numbers = (min(losses), max(losses), max(losses) - min(losses), min(changes), max(changes), max(ratios))
    return {name: Estimate(number) for name, number in zip(_NAMES, numbers, strict=True)}
