"""MNIST-1D with two classes: even and odd digits."""

from dataclasses import dataclass

from torch import Tensor

from genbench.data.mnist1d_stream import DriftingSignals, MNIST1DStream, Signals
from genbench.data.stream import Source
from genbench.rng import StepRandom


@dataclass(frozen=True)
class Parity:
    """Signals whose class is 0 for even digits and 1 for odd ones."""

    signals: Signals

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw signals [n, 1, 40] and classes [n]."""
        x, digits = self.signals.sample(n, draw, site)
        return x, digits % 2


class MNIST1DParity(MNIST1DStream):
    """Tell even from odd digits of MNIST-1D: new examples in every batch, or a frozen set of any size. Inputs of shape
    (1, 40), 2 classes; settings are those of :class:`genbench.data.MNIST1DStream`."""

    name = "mnist1d_parity"
    classes = 2

    def _labelled(self, signals: Signals | DriftingSignals) -> Source:
        if isinstance(signals, DriftingSignals):
            raise ValueError("data.signals drift; accepted: signals that stay, as parities are of one distribution")
        return Parity(signals)
