"""The five-layer convolutional network of double descent."""

from typing import Any

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import activation, convolution, max_pool, normalization
from genbench.models.parametrization import Parametrized
from genbench.models.slots import Dropout


class CNN5(Parametrized):
    """Four convolutions of k, 2k, 4k and 8k channels, k = ``width``, and a linear head (Nakkiran et al. 2020, arXiv
    1912.02292), in one dimension on sequences and two on images.

    Each is convolution (3 points a side, padding 1), normalization, activation, dropout; max pooling halves the sides
    after the second and the third, and covers all remaining points after the fourth. With the defaults it has 1,558,026
    parameters on 32 × 32 × 3 images.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        activation: str = "relu",
        normalization: str = "batch_norm",
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_integer("model.width", width, least=1)
        channels, sides = self.spatial(least=4)
        layers: list[nn.Module] = []
        for index in range(4):
            wide = width * 2**index
            layers.append(hidden(channels, wide, index in (1, 2), len(sides), activation, normalization, dropout))
            channels = wide
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, self.classes)
        self.parametrize(width)

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(2).amax(2)


def hidden(channels: int, width: int, pool: bool, dims: int, name: str, norm: str, dropout: float) -> nn.Sequential:
    """Return one convolutional layer, with max pooling if ``pool``."""
    conv = convolution(channels, width, 3, dims, padding=1)
    pools = [max_pool(2, dims)] if pool else []
    return nn.Sequential(conv, normalization(norm, width, dims), activation(name), *pools, Dropout(dropout))
