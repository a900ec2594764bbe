"""Layer normalization."""

from torch import nn

from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class LayerNorm(SlotNormalization):
    """Normalizes the channels of each example over one another, then scales and shifts each, at every normalization
    slot of the network (Ba et al. 2016, arXiv 1607.06450); torch's ε = 1e-5.

    Each position of a sequence or an image is normalized by itself, as in recurrent networks and transformers; over
    all positions of a convolution together it is ``group_norm`` with one group.
    """

    def layer(self, slot: Normalization) -> nn.Module:
        return slot.layer_norm()
