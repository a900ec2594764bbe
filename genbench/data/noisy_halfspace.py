"""A half-space seen through noise: the noisy classification task of Pearlmutter & Rosenfeld."""

from dataclasses import dataclass
from math import atan, pi
from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.stream import StreamData
from genbench.rng import StepRandom


@dataclass(frozen=True, kw_only=True)
class Halfspace:
    """Standard normal points, seen with ``noise``; the class is that of the point itself, wrong with probability
    ``flip``."""

    dimension: int
    noise: float
    flip: float

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw noisy points [n, 1, dimension] and classes [n], 1 if the first coordinate was positive."""
        points = draw.normal(f"{site}.points", n, self.dimension)
        right = points[:, 0] > 0
        y = torch.where(draw.uniform(f"{site}.flips", n) < self.flip, ~right, right).long()
        return (points + self.noise * draw.normal(f"{site}.noise", n, self.dimension))[:, None], y

    @property
    def bayes_error(self) -> tuple[float, float]:
        """The smallest error of any classifier, and its standard error 0.

        By symmetry the sign of the first coordinate is the best answer. Noise σ turns it with probability
        arctan(σ)/π, as the correlation of the two coordinates is 1/√(1 + σ²), and a flip p turns the class: the
        error is p + (1 − 2p) · arctan(σ)/π.
        """
        return self.flip + (1 - 2 * self.flip) * atan(self.noise) / pi, 0.0


class NoisyHalfspace(StreamData):
    """Tell whether the first coordinate of a normal point is positive, from the point with noise and classes that are
    wrong with a probability, on the test split too (Pearlmutter & Rosenfeld 1991; Hochreiter & Schmidhuber 1997, Flat
    minima, Neural Comput. 9, 1, whose points are bounded at ±3). Inputs of shape (1, dimension), 2 classes.

    All coordinates but the first say nothing. The error of the best classifier is known exactly (``bayes_error``; in a
    record ``test/performance/bayes_error``): 9.27 % by default.

    Args:
        dimension: of the points, at least 1.
        noise: standard deviation of the noise on each coordinate, at least 0.
        flip: probability of a wrong class, in [0, 0.5].
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "noisy_halfspace"
    classes = 2

    def __init__(self, *, dimension: int = 2, noise: float = 0.15, flip: float = 0.05, **settings: Any) -> None:
        check_integer("data.dimension", dimension, least=1)
        check_number("data.noise", noise, low=0)
        check_number("data.flip", flip, low=0, high=0.5)
        self.source = Halfspace(dimension=dimension, noise=float(noise), flip=float(flip))
        super().__init__(**settings)
