"""The box of weights in which the outputs for an example stay within a tolerance: Hochreiter & Schmidhuber 1997."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap


def flat_box_information(net: nn.Module, weights: Mapping[str, Tensor], x: Tensor, *, floor: float | Tensor) -> Tensor:
    """B of each example in ``x`` [B, ...], in nats, for a tolerance of 1 (Hochreiter & Schmidhuber 1997, Flat minima,
    Neural Comput. 9, 1):

        B = ½ (Σᵢ log sᵢ + L log (Σ_k (Σᵢ |∂o_k/∂wᵢ| / √sᵢ)² + δ)),  sᵢ = Σ_k (∂o_k/∂wᵢ)² + δ,

    over the L numbers in ``weights`` and the outputs o_k of the example. Half the edge of the box along wᵢ is
    Δwᵢ = 1 / (√sᵢ · √(Σ_k(…)² + δ)), so that −B is Σᵢ log Δwᵢ: to first order Σ_k (Δo_k)² ≤ 1 in the box, and all
    weights change the outputs equally much. δ is the ``floor``, without which a weight without effect, as behind a dead
    ReLU, would have an infinite edge; the paper replaces derivatives below 1e-20 by that number instead.

    The network computes each example alone.
    """

    def outputs(values: Mapping[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(net, dict(values), (one.unsqueeze(0),)).flatten()

    # a mode that replaces linear layers by a function of its own, as a pack does, cannot be differentiated in here
    with torch._C.DisableTorchFunction():
        slopes = vmap(jacrev(outputs), in_dims=(None, 0), randomness="same")(dict(weights), x)
    j = torch.cat([slope.flatten(2) for slope in slopes.values()], 2)  # [B, K, L]
    squares = j.square().sum(1) + floor
    reach = (j.abs() / squares.sqrt().unsqueeze(1)).sum(2)
    return (squares.log().sum(1) + j.shape[2] * (reach.square().sum(1) + floor).log()) / 2
