"""The box of weights within which the outputs stay within a tolerance, and the weights without effect on them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.precision import in_precision
from genbench.measures.snapshot import Snapshot
from genbench.models.flat_box import derivatives, flat_box_information
from genbench.models.slots import tracked_norms
from genbench.records.estimate import Estimate

_MOST = 2**24  # derivatives that are held at once, in float64 128 MB


@measure("flatness")
def flat_box_volume(snapshot: Snapshot, *, epsilon: float = 1.0, floor: float = 1e-3) -> Estimate:
    """The log-volume, in nats, of the box of weights in which the outputs of an example change by at most
    Σ_k (Δo_k)² = ε, to first order; the mean over the examples (Hochreiter & Schmidhuber 1997, Flat minima, Neural
    Comput. 9, 1):

        L log 2 + ½ L log ε − B,

    with the B of :func:`genbench.models.flat_box.flat_box_information`, over the L trainable weights. All weights
    change the outputs equally much, so that flat directions are long. Networks of different L are not comparable.
    Rescaling the layers of a ReLU network, which leaves its function, changes the volume unless as many weights grow as
    shrink (Dinh et al. 2017, arXiv 1703.04933).

    Computed in float64. Undefined with batch normalization, and for networks of more than 2²⁴ weights times outputs.

    Args:
        snapshot: network, loss and data: pairs of inputs and targets.
        epsilon: ε > 0.
        floor: replaces smaller |∂o_k/∂wᵢ|, > 0, by 1e-20 in the paper; bounds the box along weights without effect, of
            which there may be so many that it decides the volume.
    """
    check_number("epsilon", epsilon, low=0, open_low=True)
    check_number("floor", floor, low=0, open_low=True)
    found = _mean(snapshot, lambda *one: flat_box_information(snapshot.model, *one, floor=floor))
    if isinstance(found, str):
        return undefined(found)
    return Estimate(snapshot.size * math.log(2 * math.sqrt(epsilon)) - float(found))


@measure("flatness")
def sensitive_weights(snapshot: Snapshot, *, factor: float = 100.0) -> Estimate:
    """The number of trainable weights, biases included, that the outputs are sensitive to: with

        rᵢ = √(E_x Σ_k (∂o_k/∂wᵢ)²),

    those with rᵢ ≥ max r / factor. The others are what Hochreiter & Schmidhuber 1997 (Flat minima, Neural Comput. 9, 1)
    call pruned: weights with much longer edges of their box, by factors of 10² to 10⁵ (section 5.6; they give no
    bound). Of logits it does not depend on how confident they are, but rescaling the layers of a ReLU network changes
    it.

    Computed in float64. Undefined where :func:`flat_box_volume` is.

    Args:
        snapshot: network, loss and data: pairs of inputs and targets.
        factor: > 1.
    """
    check_number("factor", factor, low=1, open_low=True)
    found = _mean(snapshot, lambda *one: derivatives(snapshot.model, *one).square().sum(1))
    if isinstance(found, str):
        return undefined(found)
    return Estimate(float(((found * factor**2 >= found.max()) & (found > 0)).sum()))


def _mean(snapshot: Snapshot, function: Callable[[Mapping[str, Tensor], Tensor], Tensor]) -> Tensor | str:
    """Return the mean over the examples of a function of the weights and inputs [B, ...] that returns a row an example,
    in float64; or why there is none."""
    if tracked_norms(snapshot.model):
        return "batch normalization computes no example alone"
    output: Any = snapshot.predictions[0][0]
    if not isinstance(output, Tensor):
        return "the output is no tensor"
    each = output.numel() // snapshot.losses[0][1] * snapshot.size
    if each > _MOST:
        return f"{each:,} derivatives of an example are more than {_MOST:,}"
    view = in_precision(snapshot, torch.float64)
    if view is None:
        return "the network cannot be computed in float64"
    with view.measuring(), torch.no_grad():
        parts = [function(view.parameters, x).sum(0) for x, _ in view.blocks(max(1, _MOST // each))]
    found = torch.stack(parts).sum(0) / snapshot.examples
    return found if found.isfinite().all() else "a derivative of the outputs is not finite"
