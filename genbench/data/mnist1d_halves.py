"""MNIST-1D with two classes: digits below five and the others."""

from dataclasses import dataclass

from torch import Tensor

from genbench.data.mnist1d_stream import DriftingSignals, MNIST1DStream, Signals
from genbench.data.stream import Source
from genbench.rng import StepRandom


@dataclass(frozen=True)
class Halves:
    """Signals whose class is 0 for the digits 0 to 4 and 1 for 5 to 9."""

    signals: Signals

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw signals [n, 1, 40] and classes [n]."""
        x, digits = self.signals.sample(n, draw, site)
        return x, digits // 5


class MNIST1DHalves(MNIST1DStream):
    """Tell the first five digits of MNIST-1D from the other five: new examples in every batch, or a frozen set of any
    size. Inputs of shape (1, 40), 2 classes; settings are those of :class:`genbench.data.MNIST1DStream`."""

    name = "mnist1d_halves"
    classes = 2

    def _labelled(self, signals: Signals | DriftingSignals) -> Source:
        if isinstance(signals, DriftingSignals):
            raise ValueError("data.signals drift; accepted: signals that stay, as halves are of one distribution")
        return Halves(signals)
