"""The box of weights in which the outputs for an example stay within a tolerance: Hochreiter & Schmidhuber 1997."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap


def flat_box_information(net: nn.Module, weights: Mapping[str, Tensor], x: Tensor, *, floor: float | Tensor) -> Tensor:
    """B of each example in ``x`` [B, ...], in nats, for a tolerance of 1 (Hochreiter & Schmidhuber 1997, Flat minima,
    Neural Comput. 9, 1):

        B = ½ (Σᵢ log sᵢ + L log Σ_k (Σᵢ |∂o_k/∂wᵢ| / √sᵢ)²),  sᵢ = Σ_k (∂o_k/∂wᵢ)²,

    over the L numbers in ``weights`` and the outputs o_k of the example. Half the edge of the box along wᵢ is
    Δwᵢ = 1 / (√sᵢ · √(Σ_k(…)²)), so that −B is Σᵢ log Δwᵢ: to first order Σ_k (Δo_k)² ≤ 1 in the box, and all weights
    change the outputs equally much. A weight without effect, as behind a dead ReLU, would have an infinite edge:
    absolute derivatives below ``floor`` are replaced by it, as in the paper, where it is 1e-20, and have no gradient.

    The network computes each example alone.
    """
    j = derivatives(net, weights, x).abs().clamp_min(floor)
    largest = j.detach().amax(1, keepdim=True)  # the square of 1e-20 is below the numbers of float32
    length = largest * (j / largest).square().sum(1, keepdim=True).sqrt()
    reach = (j / length).sum(2)
    return length.log().sum((1, 2)) + j.shape[2] / 2 * reach.square().sum(1).log()


def derivatives(net: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return ∂o_k/∂wᵢ of each example in ``x`` alone, [B, K, L], over the L numbers in ``weights``."""

    def outputs(values: Mapping[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(net, dict(values), (one.unsqueeze(0),)).flatten()

    each = {name: w.expand(len(x), *w.shape) for name, w in weights.items()}  # torch's GRU and LSTM need it
    # a mode that replaces linear layers by a function of its own, as a pack does, cannot be differentiated in here
    with torch._C.DisableTorchFunction():
        slopes = vmap(jacrev(outputs), randomness="same")(each, x)
    return torch.cat([slope.flatten(2) for slope in slopes.values()], 2)
