"""Blocks of residual networks."""

from collections.abc import Sequence

from torch import Tensor, nn

from genbench.models.base import activation, convolution, normalization
from genbench.models.slots import Dropout, StochasticDepth


class Block(nn.Module):
    """A residual block with pre-activation (He et al. 2016, arXiv 1603.05027): x + conv(φ(norm(conv(φ(norm(x)))))).

    Convolutions have three points a side and no bias; dropout precedes the second. A block that changes the number of
    channels or the sides adds a 1 × 1 convolution of φ(norm(x)) instead of x.
    """

    def __init__(self, channels: int, width: int, stride: int, dims: int, name: str, norm: str, dropout: float) -> None:
        super().__init__()
        self.before = activated(channels, dims, name, norm)
        self.branch = nn.Sequential(
            convolution(channels, width, 3, dims, stride=stride, padding=1, bias=False),
            normalization(norm, width, dims),
            activation(name),
            Dropout(dropout),
            convolution(width, width, 3, dims, padding=1, bias=False),
            StochasticDepth(),
        )
        self.shortcut = None
        if stride > 1 or channels != width:
            self.shortcut = convolution(channels, width, 1, dims, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.before(x)
        kept = x if self.shortcut is None else self.shortcut(activated)
        return kept + self.branch(activated)


def stages(
    channels: int, widths: Sequence[int], blocks: int, dims: int, name: str, norm: str, dropout: float
) -> nn.Sequential:
    """Return a stage of ``blocks`` blocks for each width; all but the first halve the sides."""
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        for index in range(blocks):
            stride = 2 if stage and not index else 1
            layers.append(Block(channels, width, stride, dims, name, norm, dropout))
            channels = width
    return nn.Sequential(*layers)


def activated(channels: int, dims: int, name: str, norm: str) -> nn.Sequential:
    """Return normalization and activation."""
    return nn.Sequential(normalization(norm, channels, dims), activation(name))
