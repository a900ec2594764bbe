"""Sparse parity: the exclusive or of a few among many bits."""

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
        """Bits [n, 1, bits], and 1 where an odd number of the relevant ones is −1, [n]."""
        x = 1 - 2 * (draw.uniform(f"{site}.bits", n, 1, self.bits) < 0.5).float()
        return x, (x[:, 0, : self.relevant] < 0).sum(1) % 2


class SparseParity(StreamData):
    """The (n, k)-sparse parity of Barak et al. 2022 (arXiv 2207.08799): n uniform bits in {−1, 1}, whose product over k
    of them is the label; inputs of shape (1, n), 2 classes.

    The relevant bits are the first: for a fully connected network which ones they are makes no difference; for one that
    looks at neighbours, they are neighbours.

    Args:
        bits: n, at least 1.
        relevant: k, from 1 to n.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "sparse_parity"
    classes = 2

    def __init__(self, *, bits: int = 40, relevant: int = 3, **settings: Any) -> None:
        check_integer("data.bits", bits, least=1)
        check_integer("data.relevant", relevant, least=1, most=bits, note="of data.bits")
        self.source = Parity(bits=bits, relevant=relevant)
        super().__init__(**settings)
