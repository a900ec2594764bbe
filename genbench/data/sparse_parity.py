"""Sparse parity: the exclusive or of a few of many bits."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genbench.checks import check_integer
from genbench.data.stream import StreamData
from genbench.rng import StepRandom


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Uniform bits in {−1, 1} and the parity of the first ``relevant`` of them."""

    bits: int
    relevant: int

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw bits [n, 1, bits] and labels [n], 1 if an odd number of the relevant bits is −1."""
        x = 1 - 2 * (draw.uniform(f"{site}.bits", n, 1, self.bits) < 0.5).float()
        return x, (x[:, 0, : self.relevant] < 0).sum(1) % 2


class SparseParity(StreamData):
    """The (n, k)-sparse parity of n uniform bits in {−1, 1}: the label is the product of k of them (Barak et al. 2022,
    arXiv 2207.08799). Inputs of shape (1, n), 2 classes.

    The relevant bits are the first ones: neighbours for a convolutional network, and any bits for a fully connected
    one.

    Args:
        bits: number n of bits, at least 1.
        relevant: number k of relevant bits, from 1 to n.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "sparse_parity"
    classes = 2

    def __init__(self, *, bits: int = 40, relevant: int = 3, **settings: Any) -> None:
        check_integer("data.bits", bits, least=1)
        check_integer("data.relevant", relevant, least=1, most=bits, note="of data.bits")
        self.source = Parity(bits=bits, relevant=relevant)
        super().__init__(**settings)
