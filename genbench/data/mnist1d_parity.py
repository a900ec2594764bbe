"""MNIST-1D with two classes: even and odd digits."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genbench.data.mnist1d_stream import Signals
from genbench.data.stream import StreamData
from genbench.rng import StepRandom


@dataclass(frozen=True)
class Parity:
    """Signals whose class is 0 for even digits and 1 for odd ones."""

    signals: Signals

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw signals [n, 1, 40] and classes [n]."""
        x, digits = self.signals.sample(n, draw, site)
        return x, digits % 2


class MNIST1DParity(StreamData):
    """Tell even from odd digits of MNIST-1D, the signals of :class:`genbench.data.MNIST1DStream`: new examples in every
    batch, or a frozen set of any size. Inputs of shape (1, 40), 2 classes.

    Args:
        signals: distribution of training and validation; ``None``: that of the authors.
        test_signals: distribution of the test split, to study a shift; ``None``: that of training.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "mnist1d_parity"
    classes = 2

    def __init__(self, *, signals: Signals | None = None, test_signals: Signals | None = None, **settings: Any) -> None:
        self.source = Parity(signals or Signals())
        self.test_source = None if test_signals is None else Parity(test_signals)
        super().__init__(**settings)
