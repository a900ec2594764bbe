"""The small Inception of Zhang et al."""

from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import activation, convolution, max_pool, normalization
from genbench.models.parametrization import Parametrized
from genbench.models.slots import Dropout

# channels of the 1 × 1 and 3 × 3 convolutions of each module; a single number: those of a downsampling convolution
_MODULES = ((32, 32), (32, 48), 80, (112, 48), (96, 64), (80, 80), (48, 96), 96, (176, 160), (176, 160))


class Inception(Parametrized):
    """The small Inception of Zhang et al. 2017 (arXiv 1611.03530, figure 3), in one dimension on sequences and two on
    images.

    The layers are a 3 × 3 convolution of ``width`` channels, three groups of Inception modules (parallel 1 × 1 and
    3 × 3 convolutions) with downsampling between them (parallel 3 × 3 convolution and max pooling, of stride 2), the
    mean over all points, dropout and a linear head. Normalization and activation follow each convolution; channels grow
    with ``width``, 96 in the paper. With the defaults it has the paper's 1,649,402 parameters, without those of the
    normalization.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        activation: str = "relu",
        normalization: str = "batch_norm",
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_integer("model.width", width, least=1)
        channels, sides = self.spatial(least=1)
        slots = (len(sides), activation, normalization)
        layers: list[nn.Module] = [layer(channels, width, 3, 1, *slots)]
        channels = width
        for each in _MODULES:
            if isinstance(each, int):
                wide = scaled(each, width)
                pool = max_pool(3, len(sides), stride=2, padding=1)
                layers.append(Concatenated(layer(channels, wide, 3, 2, *slots), pool))
                channels += wide
            else:
                one, three = (scaled(part, width) for part in each)
                layers.append(Concatenated(layer(channels, one, 1, 1, *slots), layer(channels, three, 3, 1, *slots)))
                channels = one + three
        self.layers = nn.Sequential(*layers)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(channels, self.classes)
        self.parametrize(width)

    def features(self, x: Tensor) -> Tensor:
        return self.dropout(self.layers(x).flatten(2).mean(2))


class Concatenated(nn.ModuleList):
    """Modules with the same input, whose output channels are concatenated."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self], 1)


def layer(channels: int, width: int, kernel: int, stride: int, dims: int, name: str, norm: str) -> nn.Sequential:
    """Return convolution, normalization and activation."""
    conv = convolution(channels, width, kernel, dims, stride=stride, padding=kernel // 2)
    return nn.Sequential(conv, normalization(norm, width, dims), activation(name))


def scaled(channels: int, width: int) -> int:
    """Return channels in proportion to the width, at least one."""
    return max(1, channels * width // 96)
