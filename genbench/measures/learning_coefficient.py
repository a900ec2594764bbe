"""The local learning coefficient: how fast the volume of low loss around the weights shrinks."""

import math

import numpy as np
import torch

from genbench.checks import check_flag, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.hamiltonian import Chains, hamiltonian_chains
from genbench.measures.mixing import effective_sample_size, r_hat
from genbench.measures.perturbations import check_positive, generator_of
from genbench.measures.precision import in_double, movable
from genbench.measures.snapshot import Snapshot
from genbench.measures.weight_lanes import WeightLanes
from genbench.records import SEARCH
from genbench.records.estimate import Estimate

_STEEP = 0.05  # of the value, a first-order part that is named
_SELDOM = 0.1  # acceptance, below which the size of leaps had no time to settle
_GROWTH = 1.2  # of the mean squared distance from one half of the draws to the next, beyond which chains leave
_COARSE = 0.01  # rounding of nβL, beyond which it is computed in float64


@measure(
    "flatness",
    moves=None,
    names=("learning_coefficient", "learning_coefficient.*"),
    passes=lambda given: (
        0 if given["layers"] else given["chains"] * (1 + given["leaps"] * (given["burn_in"] + given["steps"]))
    ),
)
def learning_coefficient(
    snapshot: Snapshot,
    *,
    nbeta: float | None = None,
    gamma: float = 100.0,
    chains: int = 4,
    leaps: int = 4,
    burn_in: int = 100,
    steps: int = 400,
    tolerance: float = 0.05,
    layers: bool = False,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The local learning coefficient λ̂ = nβ (E L(w) − L(w*)) of the weights w*, with its standard error, as
    ``learning_coefficient`` (Lau et al. 2023, arXiv 2308.12108). E is the mean over

        p(w) ∝ exp(−nβ L(w) − (γ/2)‖w − w*‖²),   nβ = n / log n unless given, n the number of examples,

    with L the mean loss over all the data, also L(w*). The volume in which L exceeds L(w*) by at most ε shrinks as ε^λ:
    λ is half the number of weights at a regular minimum, and smaller where minima are degenerate, which no Hessian
    shows. At finite nβ and γ the value is another: Σ ½ nβh/(nβh + γ) for curvatures h. So compare values of equal nβ,
    γ and scale of the loss alone; nβ follows the number of examples unless it is given. Sequences count as one example
    each, whatever their length.

    Each draw is the end of a step of Hamiltonian Monte Carlo, with Langevin's algorithm as the case ``leaps=1``
    (:func:`genbench.measures.hamiltonian.hamiltonian_chains`), on gradients of all the examples: it has neither the
    bias of a step size nor that of mini-batches. (Leaps on some of the examples, accepted by the loss of all, have none
    either, but must be so short that they cost more: Betancourt 2015, arXiv 1502.01510.) On large data measure some of
    the examples, and give ``nbeta`` if it should be that of all; callbacks take at most 1,024 for measures of flatness
    unless ``examples`` says otherwise.

    The standard error is that of as many independent draws as the chains' autocorrelation leaves. ``residual`` is
    R̂ − 1, of the losses or of the distances from w*, whichever is larger; R̂ compares the chains and their halves.
    ``converged`` says whether it is at most ``tolerance``, and whether each chain accepts a tenth of its steps.
    Chains start at w*, so that a value that has not converged is mostly too small.

    λ̂ is of a minimum. Elsewhere its first-order part nβ ∇L(w*)·E(w − w*) is not 0 but negative, and so may be λ̂. The
    note says how much it is if more than three errors and 5 % of the value, and which share of the draws has a lower
    loss than w*. There is no value if the chains leave for infinity, as along flat directions with γ = 0.

    With ``layers``, also ``learning_coefficient.<layer>`` for each layer with matrices, all other weights held fixed
    (the weight-refined coefficient of Wang et al. 2024, arXiv 2410.02984), at the cost of the network's each.

    Args:
        snapshot: network, loss and data.
        nbeta: nβ > 0, the inverse temperature in units of the mean loss; by default n / log n.
        gamma: γ ≥ 0, the localization; 100, in units of 1 / weight², is common.
        chains: at least 2.
        leaps: gradients of a step, at least 1, which is Langevin's algorithm.
        burn_in: steps in which the leaps' size is adapted, at least 10; nothing is drawn from them.
        steps: draws of each chain, at least 10.
        tolerance: largest R̂ − 1 of chains that have converged, > 0.
        layers: whether each layer is measured too.
        seed: of the chains, each with a generator of its own.
    """
    if nbeta is not None:
        nbeta = check_positive("nbeta", nbeta)
    gamma = check_number("gamma", gamma, low=0, open_high=True)
    check_integer("chains", chains, least=2)
    check_integer("leaps", leaps, least=1)
    check_integer("burn_in", burn_in, least=10)
    check_integer("steps", steps, least=10)
    tolerance = check_positive("tolerance", tolerance)
    check_flag("layers", layers)
    check_integer("seed", seed, least=0)
    parts = {"": snapshot}
    if layers:
        matrices = [name for name, p in snapshot.parameters.items() if p.ndim >= 2]
        own = [layer for layer in snapshot.layers if any(name.startswith(f"{layer}.") for name in matrices)]
        parts |= {f".{layer}": snapshot.select(layer) for layer in own}
    if nbeta is None:
        if snapshot.examples == 1:
            undefined = Estimate(None, note="undefined: one example, and so no n / log n; accepted: nbeta")
            return {f"learning_coefficient{part}": undefined for part in parts}
        nbeta = snapshot.examples / math.log(snapshot.examples)
    found = {}
    for part, chosen in parts.items():
        view, rounding = _fine(chosen, nbeta)
        with view.measuring():
            name = f"learning_coefficient{part}"
            drawn = hamiltonian_chains(
                WeightLanes(view),
                view.vector,
                [generator_of(seed, f"{name}.{chain}") for chain in range(chains)],
                nbeta=nbeta,
                gamma=gamma,
                leaps=leaps,
                burn_in=burn_in,
                steps=steps,
            )
        found[name] = _estimate(drawn, nbeta, gamma, tolerance, rounding)
    return found


def _fine(snapshot: Snapshot, nbeta: float) -> tuple[Snapshot, str | None]:
    """The network in a precision whose rounding of nβL is small, and a note where there is none.

    The rises that are measured are of the order 1 in nβL, far above the rounding of most networks."""
    view = movable(snapshot)
    if _is_fine(view, nbeta):
        return view, None
    view = in_double(view)
    return view, None if _is_fine(view, nbeta) else "the loss is rounded by more than its rises: they may not show"


def _is_fine(snapshot: Snapshot, nbeta: float) -> bool:
    loss, _ = snapshot.losses[0]  # may be of another type than the network
    types = [loss.dtype, *(p.dtype for p in snapshot.parameters.values())]
    return nbeta * max(torch.finfo(t).eps for t in types) * max(1.0, abs(snapshot.mean_loss)) <= _COARSE


def _estimate(drawn: Chains, nbeta: float, gamma: float, tolerance: float, rounding: str | None) -> Estimate:
    rises = nbeta * (drawn.losses - drawn.start).cpu().numpy()
    distances = drawn.distances.cpu().numpy()
    gap = max(r_hat(rises), r_hat(distances)) - 1
    if reason := _failure(drawn, rises + gamma / 2 * distances, gamma, settled=gap <= tolerance):
        return Estimate(None, note=f"undefined: {reason}")
    notes = [
        _descent(rises, nbeta * drawn.slopes.cpu().numpy()),
        rounding,
        f"{SEARCH}nbeta {nbeta:.4g}, gamma {gamma:.4g}, {len(rises)} chains, R-hat {1 + gap:.2f}, acceptance "
        f"{float(drawn.acceptance.mean()):.2f}, worth {effective_sample_size(rises):.0f} independent draws",
    ]
    return Estimate(
        float(rises.mean()),
        stderr=_error(rises),
        converged=gap <= tolerance and float(drawn.acceptance.min()) >= _SELDOM,
        residual=gap,
        note="; ".join(filter(None, notes)),
    )


def _error(draws: np.ndarray) -> float:
    """The standard error of the mean of draws [chains, draws]."""
    return float(draws.std(ddof=1)) / math.sqrt(effective_sample_size(draws))


def _descent(rises: np.ndarray, slopes: np.ndarray) -> str | None:
    """A note if the weights are no minimum: the first-order part of the rises has a mean, or some are negative."""
    value, first, lower = rises.mean(), slopes.mean(), float((rises < -_COARSE).mean())
    found = []
    if first < -3 * _error(slopes) and first < -_STEEP * abs(value):
        found.append(f"to first order their gradient takes {-first:.2g} off the value")
    if lower:
        found.append(f"{100 * lower:.3g}% of the draws have a lower loss")
    return f"the weights are no minimum: {', '.join(found)}" if found else None


def _failure(drawn: Chains, potential: np.ndarray, gamma: float, *, settled: bool) -> str | None:
    """Why the draws have no mean, or None; ``potential`` is −log p + log p(w*) of each."""
    if drawn.stuck:
        return (
            f"{drawn.stuck} of {len(drawn.distances)} chains did not move: the loss or its gradient is not finite "
            "around the weights, or burn_in is too short to find the size of leaps"
        )
    half = drawn.distances.shape[1] // 2
    grows = bool(drawn.distances[:, -half:].mean() > _GROWTH * drawn.distances[:, :half].mean())
    if not gamma and grows and not settled:
        return (
            "with gamma = 0 the chains still leave the weights, and along flat directions would never stop; accepted: "
            "gamma > 0, or more burn_in"
        )
    if potential.mean() < 0 and not settled:
        return "the chains fall away from the weights, which are no minimum, or the loss has no lower bound"
    return None
