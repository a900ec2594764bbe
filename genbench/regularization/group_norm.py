"""Group normalization."""

from torch import nn

from genbench.checks import check_integer
from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class GroupNorm(SlotNormalization):
    """Normalizes each of ``groups`` equal groups of channels over its channels and positions, each example by itself,
    then scales and shifts each channel, at every normalization slot of the network (Wu & He 2018, arXiv 1803.08494);
    torch's ε = 1e-5.

    One group is layer normalization over channels and positions, a group for each channel instance normalization.
    """

    per_lane = ()

    def __init__(self, *, groups: int) -> None:
        super().__init__()
        self.groups = check_integer("regularization group_norm: groups", groups, least=1)

    def layer(self, slot: Normalization) -> nn.Module:
        if slot.channels % self.groups:
            fitting = [n for n in range(1, slot.channels + 1) if slot.channels % n == 0]
            raise ValueError(
                f"regularization group_norm: groups is {self.groups}, which does not divide {slot.channels} channels; "
                f"accepted: {', '.join(map(str, fitting))}"
            )
        return slot.group_norm(self.groups)
