"""Tokens for a network of numbers."""

from torch import Tensor, nn

from genbench.checks import check_integer


class Embedded(nn.Module):
    """A network behind a learned embedding: tokens [B, T] become [B, channels, T], its input.

    The embedding starts as torch's own does, from N(0, 1). ``head``, ``features`` and ``classes`` are the network's.
    """

    def __init__(self, network: nn.Module, *, vocabulary: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(
            check_integer("data.vocabulary", vocabulary, least=1), check_integer("data.channels", channels, least=1)
        )
        self.network = network

    @property
    def head(self) -> nn.Module:
        """The network's head."""
        return self.network.head  # type: ignore[return-value]

    @property
    def classes(self) -> int:
        """The network's number of classes."""
        return self.network.classes  # type: ignore[return-value]

    def features(self, x: Tensor) -> Tensor:
        """What the head is given, [B, F]."""
        return self.network.features(self.embedded(x))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.embedded(x))

    def embedded(self, x: Tensor) -> Tensor:
        """Tokens [B, T] as [B, channels, T]."""
        return self.embedding(x).movedim(1, 2)
