"""What methods that mix examples share."""

import torch.nn.functional as F
from torch import Tensor, nn

from genbench.regularization.base import Method


class Mixing(Method):
    """Trains on examples that are mixed with another one of the batch, a share λ ~ Beta(α, α) of one and 1 − λ of the
    other, drawn once a batch, and on their targets mixed alike.

    Targets become class probabilities [B, C]; classes are read from ``net.classes``. ``alpha=0`` leaves inputs as they
    are (λ = 1), the limit of the papers.
    """

    name: str
    alters = "trained on mixed targets, another loss"
    order = 20  # what is mixed has been augmented
    alpha: Tensor

    def __init__(self, *, alpha: float) -> None:
        super().__init__()
        self.setting("alpha", alpha, low=0)

    def build(self, net: nn.Module) -> nn.Module:
        if not hasattr(net, "classes"):
            raise ValueError(f"regularization {self.name}: {type(net).__name__} does not say how many classes it has")
        return net


def probabilities(net: nn.Module, y: Tensor, like: Tensor) -> Tensor:
    """Targets as class probabilities [B, C, ...] of the type of ``like``; those that are already stay."""
    return y if y.is_floating_point() else F.one_hot(y, net.classes).movedim(-1, 1).to(like.dtype)  # type: ignore[arg-type]


def mixed(a: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share · a + (1 − share) · a[partner], a convex combination of the rows of a with others."""
    return share * a + (1 - share) * a[partner]
