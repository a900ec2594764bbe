"""The box of weights within which the outputs stay within a tolerance."""

import math
from typing import Any

import torch

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.snapshot import Snapshot
from genbench.models.flat_box import flat_box_information
from genbench.models.slots import tracked_norms
from genbench.records.estimate import Estimate

_MOST = 2**24  # derivatives that are held at once, in float64 128 MB


@measure("flatness")
def flat_box_volume(snapshot: Snapshot, *, epsilon: float = 1.0, floor: float = 1e-6) -> Estimate:
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
        floor: added to each Σ_k (∂o_k/∂wᵢ)², > 0; bounds the box along weights without effect.
    """
    check_number("epsilon", epsilon, low=0, open_low=True)
    check_number("floor", floor, low=0, open_low=True)
    if tracked_norms(snapshot.model):
        return undefined("batch normalization computes no example alone")
    output: Any = snapshot.predictions[0][0]
    if not isinstance(output, torch.Tensor):
        return undefined("the output is no tensor")
    each = output.numel() // snapshot.losses[0][1] * snapshot.size
    if each > _MOST:
        return undefined(f"{each:,} derivatives of an example are more than {_MOST:,}")
    state = {name: t.double() if t.is_floating_point() else t for name, t in snapshot.state.items()}
    weights = {name: state[name] for name in snapshot.parameters}
    total = 0.0
    with torch.no_grad(), snapshot.holding(state):
        for x, _ in snapshot.blocks(max(1, _MOST // each)):
            x = x.double() if x.is_floating_point() else x
            total += float(flat_box_information(snapshot.model, weights, x, floor=floor).sum())
    return Estimate(snapshot.size * math.log(2 * math.sqrt(epsilon)) - total / snapshot.examples)
