"""Base class of recurrent networks."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from genbench.checks import check_flag, check_integer
from genbench.models.base import Classifier, normalization
from genbench.models.slots import Dropout


class Recurrent(Classifier):
    """``depth`` recurrent layers, ``width`` units in each direction, and a linear head on all their outputs.

    Time runs along a sequence, or down the rows of an image. Normalization and dropout follow each layer. A subclass
    sets ``unit``, a recurrent module of torch, and may pass it options.
    """

    unit: Callable[..., nn.RNNBase]

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
        **options: Any,
    ) -> None:
        super().__init__(input_shape=input_shape, classes=classes)
        check_integer("model.width", width, least=1)
        check_integer("model.depth", depth, least=1)
        options["bidirectional"] = check_flag("model.bidirectional", bidirectional)
        if len(self.input_shape) not in (2, 3):
            raise ValueError(
                f"{type(self).__name__} does not fit an input of shape {self.input_shape}; "
                "accepted: (channels, length) or (channels, height, width)"
            )
        channels, steps, *columns = self.input_shape
        size, outputs = channels * (columns or [1])[0], width * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            Layer(self.unit(inputs, width, batch_first=True, **options), normalization, dropout)
            for inputs in [size] + [outputs] * (depth - 1)
        )
        self.head = nn.Linear(outputs * steps, classes)

    def features(self, x: Tensor) -> Tensor:
        x = x.movedim(2, 1).flatten(2)  # [B, C, T] or [B, C, T, W] -> [B, T, C·W]
        for layer in self.layers:
            x = layer(x)
        return x.flatten(1)


class Layer(nn.Module):
    """One recurrent layer, [B, T, inputs] -> [B, T, outputs]."""

    def __init__(self, rnn: nn.RNNBase, norm: str, dropout: float) -> None:
        super().__init__()
        self.rnn = rnn
        self.normalization = normalization(norm, rnn.hidden_size * (2 if rnn.bidirectional else 1), 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.rnn(x)
        return self.dropout(self.normalization(outputs.movedim(1, 2)).movedim(1, 2))
