"""Random features."""

import math
from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from genbench.checks import check_integer, check_number
from genbench.models.base import Classifier, activation
from genbench.models.slots import Dropout


class RandomFeatures(Classifier):
    """Trains a linear head on ``width`` random features φ(W x + b) of the flattened input, with W and b frozen.

    With a ``bandwidth`` σ the features are random Fourier features √(2/width) cos(W x + b), W normal with standard
    deviation 1/σ and b uniform on [0, 2π), and ``activation`` is not used. The expectation of φ(x)·φ(z) is the Gaussian
    kernel exp(−‖x − z‖² / 2σ²), so that the norm of the head tends to that of the kernel's function as the width grows.

    Source: Rahimi & Recht 2007, Random features for large-scale kernel machines; with ReLU it is the model of Mei &
    Montanari 2019 (arXiv 1908.05355).
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        width: int = 1000,
        activation: str = "relu",
        bandwidth: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        self.layer = hidden(prod(self.input_shape), width, activation, dropout)
        if bandwidth is not None:
            check_number("model.bandwidth", bandwidth, low=0, open_low=True)
            linear = self.layer[0]
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=1 / bandwidth)
            nn.init.uniform_(linear.bias, 0, 2 * math.pi)
            self.layer[1] = Cosine(width)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class Cosine(nn.Module):
    """√(2/width) cos x: a vector of this width has length 1 on average where phases are uniform."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = math.sqrt(2 / width)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.cos()


def hidden(size: int, width: int, name: str, dropout: float) -> nn.Sequential:
    """Return the features, whose weights are frozen."""
    return nn.Sequential(nn.Linear(size, width).requires_grad_(False), activation(name), Dropout(dropout))
