"""Mixup."""

from torch import Tensor, nn

from genbench.regularization.shared.mixing import Mixing, mixed, probabilities
from genbench.rng import StepRandom


class Mixup(Mixing):
    """Trains on λ · (x, y) + (1 − λ) · (x', y'), where (x', y') is the batch in another order.

    λ ~ Beta(α, α) is drawn once for each batch (Zhang et al. 2018, arXiv 1710.09412, Eq. 1). Targets become class
    probabilities [B, C]; classes are read from ``net.classes``. ``alpha=0`` leaves inputs unchanged, the limit of the
    paper.
    """

    name = "mixup"

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        share, partner = draw.beta("mixup.share", self.alpha), draw.permutation("mixup.partner", len(x))
        return mixed(x, partner, share), mixed(probabilities(net, y, x), partner, share)
