"""Convolutional network."""

from math import prod
from typing import Any

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import activation, convolution, normalization
from genbench.models.parametrization import Parametrized
from genbench.models.slots import Dropout


class CNN(Parametrized):
    """``depth`` convolutions of ``width`` channels, in one dimension on sequences and two on images, and a linear head.

    Each is convolution, normalization, activation, dropout, with stride 2 and padding 1; the first kernel has 5 points
    a side, the others 3. With the defaults this is MNIST-1D's reference (greydanus/mnist1d, ``notebooks/models.py``,
    ConvBase), 5,210 parameters.
    """

    def __init__(
        self,
        *,
        width: int = 25,
        depth: int = 3,
        activation: str = "relu",
        normalization: str = "none",
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_integer("model.width", width, least=1)
        check_integer("model.depth", depth, least=1)
        channels, sides = self.spatial(least=3)
        layers: list[nn.Module] = []
        for kernel in [5] + [3] * (depth - 1):
            layers.append(hidden(channels, width, kernel, len(sides), activation, normalization, dropout))
            channels, sides = width, [(side + 2 - kernel) // 2 + 1 for side in sides]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels * prod(sides), self.classes)
        self.parametrize(width)

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)


def hidden(channels: int, width: int, kernel: int, dims: int, name: str, norm: str, dropout: float) -> nn.Sequential:
    """Return one convolutional layer that halves each side."""
    conv = convolution(channels, width, kernel, dims, stride=2, padding=1)
    return nn.Sequential(conv, normalization(norm, width, dims), activation(name), Dropout(dropout))
