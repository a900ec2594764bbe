"""Wide residual network."""

from collections.abc import Sequence

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.base import Classifier, convolution
from genbench.models.residual import activated, stages


class WideResNet(Classifier):
    """WRN-d-k (Zagoruyko & Komodakis 2016, arXiv 1605.07146), d = ``depth`` and k = ``width``, in one dimension on
    sequences and two on images.

    The layers are a convolution of 16 channels, three stages of (d − 4)/6 blocks
    (:class:`genbench.models.residual.Block`) of 16k, 32k and 64k, normalization, activation, the mean over all points
    and a linear head. Initial weights are those of torch's layers, not the paper's normal distribution. WRN-16-4 has
    2,748,890 parameters on images of three channels, WRN-28-10 has 36,479,194.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        depth: int = 16,
        width: int = 4,
        activation: str = "relu",
        normalization: str = "batch_norm",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        if check_integer("model.depth", depth, least=10) % 6 != 4:
            raise ValueError(f"model.depth is {depth}; accepted: 10, 16, 22, 28, … (4 + 6 times the blocks of a stage)")
        channels, sides = self.spatial(least=1)
        self.stem = convolution(channels, 16, 3, len(sides), padding=1, bias=False)
        widths = [16 * width * 2**stage for stage in range(3)]
        self.layers = stages(16, widths, (depth - 4) // 6, len(sides), activation, normalization, dropout)
        self.last = activated(widths[-1], len(sides), activation, normalization)
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.layers(self.stem(x))).flatten(2).mean(2)
