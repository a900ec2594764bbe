"""The small AlexNet of Zhang et al."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import Classifier, activation, convolution, max_pool, normalization
from genbench.models.mlp import hidden


class AlexNet(Classifier):
    """Two convolutions with local response normalization, two hidden layers and a linear head (Zhang et al. 2017, arXiv
    1611.03530, appendix A), in one dimension on sequences and two on images.

    The convolutions have ``width`` channels and 5 points a side; each is followed by normalization, activation, max
    pooling (3 points, stride 2) and local response normalization (Krizhevsky et al. 2012, of 9 channels, α = 1e-3 over
    them, β = 0.75; the paper does not state them). The hidden layers have 6 and 3 times ``width`` units, each with
    normalization, activation and dropout. With the defaults it has the paper's 1,387,786 parameters on 28 × 28 × 3
    images.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        width: int = 64,
        activation: str = "relu",
        normalization: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        channels, sides = self.spatial(least=1)
        layers: list[nn.Module] = []
        for size in (channels, width):
            layers.append(local(size, width, len(sides), activation, normalization))
            sides = [(side + 1) // 2 for side in sides]
        layers.append(nn.Flatten())
        for size, units in ((width * prod(sides), 6 * width), (6 * width, 3 * width)):
            layers.append(hidden(size, units, activation, normalization, dropout, branch=False))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(3 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x)


def local(channels: int, width: int, dims: int, name: str, norm: str) -> nn.Sequential:
    """Return one convolutional layer that halves each side."""
    conv = convolution(channels, width, 5, dims, padding=2)
    pool = max_pool(3, dims, stride=2, padding=1)
    return nn.Sequential(
        conv, normalization(norm, width, dims), activation(name), pool, nn.LocalResponseNorm(9, alpha=1e-3)
    )
