"""Base class and functions of methods that mix examples."""

import torch.nn.functional as F
from torch import Tensor, nn

from genbench.regularization.base import Method


class Mixing(Method):
    """Trains on mixtures of two examples of the batch and of their targets, with shares λ and 1 − λ.

    λ ~ Beta(α, α) is drawn once for each batch. Targets become class probabilities [B, C]; classes are read from
    ``net.classes``. ``alpha=0`` leaves inputs unchanged (λ = 1), the limit of the papers.
    """

    name: str
    alters = "trained on mixed targets, another loss"
    order = 20  # after augmentation
    alpha: Tensor

    def __init__(self, *, alpha: float) -> None:
        super().__init__()
        self.setting("alpha", alpha, low=0)

    def build(self, net: nn.Module) -> nn.Module:
        if not hasattr(net, "classes"):
            raise ValueError(f"regularization {self.name}: {type(net).__name__} does not say how many classes it has")
        return net


def probabilities(net: nn.Module, y: Tensor, like: Tensor) -> Tensor:
    """Return targets as class probabilities [B, C, ...] of the type of ``like``; class probabilities stay."""
    return y if y.is_floating_point() else F.one_hot(y, net.classes).movedim(-1, 1).to(like.dtype)  # type: ignore[arg-type]


def mixed(a: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Return share · a + (1 − share) · a[partner]."""
    return share * a + (1 - share) * a[partner]
