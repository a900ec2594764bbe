"""Stochastic depth."""

from torch import Tensor, nn

from genbench.models.slots import StochasticDepth as Slot
from genbench.regularization.base import Method


class StochasticDepth(Method):
    """Drops the l-th of L residual branches in training with probability ``rate`` · l / L, independently for each
    example.

    This is the linear decay of Huang et al. 2016 (arXiv 1603.09382, Eq. 4), where ``rate`` is 1 − p_L. Branches are
    counted in the order of ``net.modules()``, from the input on.
    """

    rate: Tensor

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        self.setting("rate", rate, low=0, high=1, open_high=True)

    def build(self, net: nn.Module) -> nn.Module:
        slots = [module for module in net.modules() if isinstance(module, Slot)]
        if not slots:
            raise ValueError(f"regularization stochastic_depth: {type(net).__name__} has no residual branches")
        for index, slot in enumerate(slots, 1):
            slot.set(float(self.rate) * index / len(slots))
        return net
