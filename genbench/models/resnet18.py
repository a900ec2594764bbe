"""ResNet-18 with pre-activation."""

from typing import Any

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import convolution
from genbench.models.parametrization import Parametrized
from genbench.models.residual import stages


class ResNet18(Parametrized):
    """Pre-activation ResNet-18 with stages of k, 2k, 4k and 8k channels, k = ``width`` (Nakkiran et al. 2020, arXiv
    1912.02292), in one dimension on sequences and two on images.

    The layers are a convolution, four stages of two blocks (:class:`genbench.models.residual.Block`), the mean over all
    points and a linear head. As in the authors' code (preetum/deep-bootstrap-code), no normalization follows the last
    block. With the defaults it has 11,171,146 parameters on images of three channels.
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
        channels, sides = self.spatial(least=1)
        self.stem = convolution(channels, width, 3, len(sides), padding=1, bias=False)
        widths = [width * 2**stage for stage in range(4)]
        self.layers = stages(width, widths, 2, len(sides), activation, normalization, dropout)
        self.head = nn.Linear(widths[-1], self.classes)
        self.parametrize(width)

    def features(self, x: Tensor) -> Tensor:
        return self.layers(self.stem(x)).flatten(2).mean(2)
