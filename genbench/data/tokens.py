"""Data sets of tokens."""

from typing import Any

from genbench.checks import check_integer
from genbench.data.base import TensorData


class TokenData(TensorData):
    """Sequences of tokens, int64 [n, T], each a number below ``vocabulary``.

    A network whose constructor takes ``input_shape`` is built for a learned embedding of the tokens, [B, channels, T],
    and wrapped in it (:class:`genbench.models.embedded.Embedded`); other networks get the tokens themselves.

    Args:
        channels: width of the embedding, at least 1.
        settings: those of :class:`genbench.data.TensorData`.
    """

    vocabulary: int

    def __init__(self, *, channels: int = 32, **settings: Any) -> None:
        self.channels = check_integer("data.channels", channels, least=1)
        super().__init__(**settings)
