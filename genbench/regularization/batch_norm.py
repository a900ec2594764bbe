"""Batch normalization."""

from torch import nn

from genbench.models.slots import Normalization
from genbench.records import SCALE_FREE
from genbench.regularization.base import Method


class BatchNorm(Method):
    """Normalizes each channel over the batch, then scales and shifts it, at every normalization slot of the network
    (Ioffe & Szegedy 2015, arXiv 1502.03167); torch's defaults: momentum 0.1, ε = 1e-5.

    It changes the function a set of weights stands for: compare raw curvature and norms across it with care.
    """

    alters = SCALE_FREE

    def build(self, net: nn.Module) -> nn.Module:
        slots = [
            (parent, name, slot)
            for parent in net.modules()
            for name, slot in parent.named_children()
            if isinstance(slot, Normalization)
        ]
        if not slots:
            raise ValueError(f"regularization batch_norm: {type(net).__name__} has no free normalization slots")
        weight = next(net.parameters())
        for parent, name, slot in slots:
            setattr(parent, name, slot.batch_norm().to(weight.device, weight.dtype))
        return net
