"""Slots of a network that a regularization may fill: dropout, stochastic depth and normalization."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_number
from genbench.rng import StepRandom


class Masked(nn.Module):
    """A slot that multiplies in training by 1[u ≥ p] / (1 − p), with u uniform on [0, 1).

    The probability ``p`` is a 0-d buffer; a slot whose ``p`` was set to 0 returns its input. Masks are drawn from
    ``draw`` at ``site`` (see :func:`use_draw`), or from torch's global generator if no draw was assigned.
    """

    site: str
    setting: str  # name of p in messages

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.draw: StepRandom | None = None
        self.p: Tensor
        self.register_buffer("p", torch.tensor(0.0, dtype=torch.float64))
        self.set(p)

    def set(self, p: float) -> None:
        """Drop with probability ``p``, in [0, 1), from now on."""
        self.p.fill_(check_number(self.setting, p, low=0, high=1, open_high=True))
        self.active = p > 0  # read instead of the tensor, which vmap does not allow and a GPU would wait for

    def dropped(self, x: Tensor) -> Sequence[int]:
        """Return the shape of the mask."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not (self.active and self.training):
            return x
        shape = self.dropped(x)
        if self.draw is None:
            return x * F.dropout(x.new_ones(shape), float(self.p))
        p = self.p.to(x.dtype)
        return x * ((self.draw.uniform(self.site, *shape) >= p) / (1 - p))

    def extra_repr(self) -> str:
        return f"active={self.active}"


class Dropout(Masked):
    """Inverted dropout (Srivastava et al. 2014): units are dropped independently."""

    site = "dropout"
    setting = "model.dropout"

    def dropped(self, x: Tensor) -> Sequence[int]:
        return x.shape


class StochasticDepth(Masked):
    """Ends a residual branch, ``x + slot(branch(x))``, and drops it in training independently for each example.

    Kept branches are scaled by 1 / (1 − p), so that evaluation needs no scaling. Huang et al. 2016 (arXiv 1603.09382)
    draw once for each batch and scale in evaluation; the mean is the same.
    """

    site = "stochastic_depth"
    setting = "stochastic depth"

    def dropped(self, x: Tensor) -> Sequence[int]:
        return (len(x), *(1,) * (x.ndim - 1))


class Normalization(nn.Module):
    """An empty slot for a normalization over ``channels`` (axis 1) of inputs with ``dims`` further axes: the
    identity."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.channels = channels
        self.dims = dims

    def batch_norm(self) -> nn.Module:
        """Return batch normalization for this slot."""
        return (nn.BatchNorm2d if self.dims == 2 else nn.BatchNorm1d)(self.channels)

    def layer_norm(self) -> nn.Module:
        """Return layer normalization for this slot."""
        return ChannelNorm(self.channels)

    def group_norm(self, groups: int) -> nn.Module:
        """Return group normalization for this slot; ``groups`` divides the channels."""
        return nn.GroupNorm(groups, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, dims={self.dims}"


class ChannelNorm(nn.LayerNorm):
    """Layer normalization of x [B, C, ...] over the channels, separately at each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


_masked_slots: WeakKeyDictionary[nn.Module, list[tuple[Masked, str]]] = WeakKeyDictionary()


def use_draw(net: nn.Module, draw: StepRandom | None) -> None:
    """Let every dropping slot of ``net`` draw its masks from ``draw``; ``None``: from torch's global generator.

    The i-th dropout slot, in the order of ``net.modules()``, draws at site ``dropout.<i>``, the i-th residual branch at
    ``stochastic_depth.<i>``. Slots are looked up once, so call this only after the network is complete.
    """
    slots = _masked_slots.get(net)
    if slots is None:
        slots = _masked_slots[net] = [
            (slot, f"{kind.site}.{index}")
            for kind in (Dropout, StochasticDepth)
            for index, slot in enumerate(module for module in net.modules() if isinstance(module, kind))
        ]
    for slot, site in slots:
        slot.draw, slot.site = draw, site


def tracked_norms(net: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms that keep running statistics."""
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]


@contextmanager
def frozen_norm_statistics(net: nn.Module) -> Iterator[None]:
    """Let batch norms normalize by the batch without updating their running statistics."""
    norms = tracked_norms(net)
    for norm in norms:
        norm.track_running_stats = False
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (mean, var, count) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, var, count
            norm.track_running_stats = True
