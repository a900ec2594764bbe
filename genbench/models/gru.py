"""Recurrent network."""

from collections.abc import Sequence

from torch import Tensor, nn

from genbench.checks import check_flag, check_integer
from genbench.models.base import Classifier, normalization
from genbench.models.slots import Dropout


class GRU(Classifier):
    """``depth`` layers of gated recurrent units, ``width`` in each direction, and a linear head on all their outputs.

    Time runs along a sequence, or down the rows of an image. Each layer is followed by normalization and dropout. With
    the defaults this is MNIST-1D's reference (greydanus/mnist1d, ``notebooks/models.py``, GRUBase), 5,134 parameters.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        width: int = 6,
        depth: int = 1,
        bidirectional: bool = True,
        normalization: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        check_integer("model.depth", depth, least=1)
        check_flag("model.bidirectional", bidirectional)
        if len(self.input_shape) not in (2, 3):
            raise ValueError(
                f"GRU does not fit an input of shape {self.input_shape}; "
                "accepted: (channels, length) or (channels, height, width)"
            )
        channels, steps, *columns = self.input_shape
        size, outputs = channels * (columns or [1])[0], width * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            Recurrent(inputs, width, bidirectional, normalization, dropout)
            for inputs in [size] + [outputs] * (depth - 1)
        )
        self.head = nn.Linear(outputs * steps, classes)

    def features(self, x: Tensor) -> Tensor:
        x = x.movedim(2, 1).flatten(2)  # [B, C, T] or [B, C, T, W] -> [B, T, C·W]
        for layer in self.layers:
            x = layer(x)
        return x.flatten(1)


class Recurrent(nn.Module):
    """One recurrent layer, [B, T, inputs] -> [B, T, outputs]."""

    def __init__(self, inputs: int, width: int, bidirectional: bool, norm: str, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, width, batch_first=True, bidirectional=bidirectional)
        self.normalization = normalization(norm, width * (2 if bidirectional else 1), 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.gru(x)
        return self.dropout(self.normalization(outputs.movedim(1, 2)).movedim(1, 2))
