"""Random features."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import Classifier, activation
from genbench.models.slots import Dropout


class RandomFeatures(Classifier):
    """``width`` random features of the flattened input, φ(W x + b) with W and b as they were drawn, and a trained
    linear head (Rahimi & Recht 2007; with ReLU the model of Mei & Montanari 2019, arXiv 1908.05355)."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        width: int = 1000,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        self.layer = hidden(prod(self.input_shape), width, activation, dropout)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def hidden(size: int, width: int, name: str, dropout: float) -> nn.Sequential:
    """The features, whose weights no training changes."""
    return nn.Sequential(nn.Linear(size, width).requires_grad_(False), activation(name), Dropout(dropout))
