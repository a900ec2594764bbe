"""Flat minimum search."""

from torch import Tensor, nn

from genbench.models.flat_box import flat_box_information
from genbench.models.slots import tracked_norms
from genbench.regularization.base import Method
from genbench.rng import StepRandom


class FlatMinimumSearch(Method):
    """Adds strength · mean B to the loss: −B is the log-volume of the box of weights in which an example's logits stay
    within a tolerance (Hochreiter & Schmidhuber 1997, Flat minima, Neural Comput. 9, 1; see
    :func:`genbench.models.flat_box.flat_box_information`).

    B is of the order of the number L of weights, times a few nats. The tolerance ε adds −½ L log ε, which has no
    gradient, and is left out. The paper's outputs are sigmoid units, which are flat where they saturate, and its error
    is squared; here they are the logits, in which confidence is never flat, and the cross-entropy. The paper scales the
    gradient of B to the length of the error's and then by a λ that follows the error; here λ is constant. A step
    computes the Jacobian of each example, examples × outputs × L numbers, and is differentiated twice: for small
    networks. Examples share one dropout mask in it.

    Args:
        strength: λ ≥ 0.
        floor: replaces smaller |∂o_k/∂wᵢ|, > 0, by 1e-20 in the paper; bounds the box along weights without effect,
            and the gradient of log |∂o_k/∂wᵢ|, which is at most 1/floor times that of the derivative.
    """

    order = 100  # sees the parameters that other methods add

    strength: Tensor
    floor: Tensor

    def __init__(self, *, strength: float, floor: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)
        self.setting("floor", floor, low=0, open_low=True)
        self._frozen: frozenset[str] = frozenset()

    def build(self, net: nn.Module) -> nn.Module:
        if tracked_norms(net):
            raise ValueError(
                "regularization FlatMinimumSearch: computes each example alone, which batch normalization does not "
                "allow; accepted: a network without it"
            )
        self._frozen = frozenset(name for name, p in net.named_parameters() if not p.requires_grad)
        return net

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        weights = {name: p for name, p in net.named_parameters() if name not in self._frozen}
        information = flat_box_information(net, weights, x, floor=self.floor.to(output.dtype))
        return self.strength.to(output.dtype) * information.mean()
