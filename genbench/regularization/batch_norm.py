"""Batch normalization."""

from torch import nn

from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class BatchNorm(SlotNormalization):
    """Normalizes each channel over the batch, then scales and shifts it, at every normalization slot of the network
    (Ioffe & Szegedy 2015, arXiv 1502.03167); torch's defaults: momentum 0.1, ε = 1e-5.

    The same weights then give another function: do not compare raw curvature and norms with and without it.
    """

    def layer(self, slot: Normalization) -> nn.Module:
        return slot.batch_norm()
