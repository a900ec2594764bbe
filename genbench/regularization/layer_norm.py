"""Layer normalization."""

from torch import nn

from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class LayerNorm(SlotNormalization):
    """Normalizes each position of an example over its channels, at every normalization slot of the network.

    Each channel is then scaled and shifted; torch's ε = 1e-5 (Ba et al. 2016, arXiv 1607.06450). Positions of a
    sequence or an image are normalized separately, as in recurrent networks and transformers; ``group_norm`` with one
    group normalizes all positions together.
    """

    def layer(self, slot: Normalization) -> nn.Module:
        return slot.layer_norm()
