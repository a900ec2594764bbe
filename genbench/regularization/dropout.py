"""Dropout."""

from torch import Tensor, nn

from genbench.models.slots import Dropout as Slot
from genbench.regularization.base import Method


class Dropout(Method):
    """Drops each unit with probability ``rate`` in training and scales the others by 1 / (1 − rate), at every dropout
    slot of the network (Srivastava et al. 2014).

    It replaces the model's own ``dropout`` setting.
    """

    rate: Tensor

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        self.setting("rate", rate, low=0, high=1, open_high=True)

    def build(self, net: nn.Module) -> nn.Module:
        slots = [module for module in net.modules() if isinstance(module, Slot)]
        if not slots:
            raise ValueError(f"regularization dropout: {type(net).__name__} has no dropout slots")
        for slot in slots:
            slot.set(float(self.rate))
        return net
