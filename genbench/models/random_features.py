"""Random features."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import Classifier, activation
from genbench.models.slots import Dropout


class RandomFeatures(Classifier):
    """Trains a linear head on ``width`` random features φ(W x + b) of the flattened input, with W and b frozen.

    Source: Rahimi & Recht 2007; with ReLU it is the model of Mei & Montanari 2019 (arXiv 1908.05355).
    """

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
    """Return the features, whose weights are frozen."""
    return nn.Sequential(nn.Linear(size, width).requires_grad_(False), activation(name), Dropout(dropout))
