"""Places in a network that a regularization may fill."""

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_number
from genbench.draw import Draw


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014): in training, x · 1[u ≥ p] / (1 − p) with u uniform on [0, 1).

    The probability ``p`` is a 0-d buffer. A slot whose ``p`` was set to 0 passes its input on. Masks are those of
    ``draw`` at ``site`` (see :func:`use_draw`), or torch's, from its global generator, where no draw was assigned.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.draw: Draw | None = None
        self.site = "dropout"
        self.p: Tensor
        self.register_buffer("p", torch.tensor(0.0, dtype=torch.float64))
        self.set(p)

    def set(self, p: float) -> None:
        """Drop with probability ``p``, in [0, 1), from now on."""
        self.p.fill_(check_number("model.dropout", p, low=0, high=1, open_high=True))
        self.active = p > 0  # known without reading the tensor, which a device or vmap would not allow

    def forward(self, x: Tensor) -> Tensor:
        if not (self.active and self.training):
            return x
        if self.draw is None:
            return F.dropout(x, float(self.p))
        p = self.p.to(x.dtype)
        return x * ((self.draw.uniform(self.site, *x.shape) >= p) / (1 - p))

    def extra_repr(self) -> str:
        return f"active={self.active}"


class Normalization(nn.Module):
    """The identity, where a normalization over ``channels`` (axis 1) of an input with ``dims`` further axes may go."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.channels = channels
        self.dims = dims

    def batch_norm(self) -> nn.Module:
        """The batch normalization that fits this slot."""
        return (nn.BatchNorm2d if self.dims == 2 else nn.BatchNorm1d)(self.channels)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, dims={self.dims}"


_dropout_slots: WeakKeyDictionary[nn.Module, list[tuple[Dropout, str]]] = WeakKeyDictionary()


def use_draw(net: nn.Module, draw: Draw | None) -> None:
    """Let every dropout slot of ``net`` take its masks from ``draw``; ``None`` gives them back to torch.

    The i-th slot, in the order of ``net.modules()``, draws at site ``dropout.<i>``. The slots of a network are looked
    up once: call this after the network is built.
    """
    slots = _dropout_slots.get(net)
    if slots is None:
        found = [module for module in net.modules() if isinstance(module, Dropout)]
        slots = _dropout_slots[net] = [(slot, f"dropout.{index}") for index, slot in enumerate(found)]
    for slot, site in slots:
        slot.draw, slot.site = draw, site
