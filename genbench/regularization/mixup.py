"""Mixup."""

import torch.nn.functional as F
from torch import Tensor, nn

from genbench.draw import Draw
from genbench.regularization.base import Method


class Mixup(Method):
    """Trains on λ · (x, y) + (1 − λ) · (x', y'), where (x', y') is the batch in another order and λ ~ Beta(α, α), drawn
    once a batch (Zhang et al. 2018, arXiv 1710.09412, Eq. 1).

    Targets become class probabilities [B, C]; classes are read from ``net.classes``. ``alpha=0`` leaves inputs as they
    are, the limit of the paper.
    """

    alters = "trained on mixed targets, another loss"
    order = 20  # what is mixed has been augmented
    alpha: Tensor

    def __init__(self, *, alpha: float) -> None:
        super().__init__()
        self.setting("alpha", alpha, low=0)

    def build(self, net: nn.Module) -> nn.Module:
        if not hasattr(net, "classes"):
            raise ValueError(f"regularization mixup: {type(net).__name__} does not say how many classes it has")
        return net

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        if not y.is_floating_point():
            y = F.one_hot(y, net.classes).to(x.dtype)  # type: ignore[arg-type]
        share = draw.beta("mixup.share", self.alpha)
        partner = draw.permutation("mixup.partner", len(x))
        return share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]
