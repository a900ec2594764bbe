"""Group normalization."""

from torch import nn

from genbench.checks import check_integer
from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class GroupNorm(SlotNormalization):
    """Normalizes each of ``groups`` equal groups of channels of an example, at every normalization slot of the network.

    Mean and variance are over the group's channels and positions, with torch's ε = 1e-5; each channel is then scaled
    and shifted (Wu & He 2018, arXiv 1803.08494). One group is layer normalization over channels and positions; one
    group for each channel is instance normalization.
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
