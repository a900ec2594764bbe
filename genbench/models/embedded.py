"""An embedding of tokens for networks that take real inputs."""

from torch import Tensor, nn

from genbench.checks import check_integer


class Embedded(nn.Module):
    """Embeds tokens [B, T] as [B, channels, T] and passes them to a network.

    The learned embedding is initialized from N(0, 1), as torch does. ``head``, ``features`` and ``classes`` are those
    of the network.
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
        """Return the input of the head, [B, F]."""
        return self.network.features(self.embedded(x))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.embedded(x))

    def embedded(self, x: Tensor) -> Tensor:
        """Return the embedding [B, channels, T] of tokens [B, T]."""
        return self.embedding(x).movedim(1, 2)
