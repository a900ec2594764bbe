"""A mixture of Gaussians with a known Bayes error."""

from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.data.stream import StreamData
from genbench.rng import StepRandom


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Uniform classes N(μ_k, I) in ``dimension`` dimensions, with all means ``separation`` apart."""

    classes: int
    dimension: int
    separation: float

    @cached_property
    def means(self) -> Tensor:
        """Means [classes, dimension]: corners of a simplex around 0, randomly oriented, the same for every seed."""
        from scipy.linalg import helmert

        simplex = torch.from_numpy(helmert(self.classes).T / sqrt(2))  # [classes, classes − 1], its edges of length 1
        turn, _ = torch.linalg.qr(StepRandom(0, 0).normal("mixture", self.dimension, self.classes - 1).double())
        return self.separation * simplex @ turn.T

    def sample(self, n: int, draw: StepRandom, site: str = "stream") -> tuple[Tensor, Tensor]:
        """Draw points [n, 1, dimension] and their classes [n]."""
        y = (draw.uniform(f"{site}.classes", n) * self.classes).long()
        x = self.means.to(draw.device, torch.float32)[y] + draw.normal(f"{site}.noise", n, self.dimension)
        return x[:, None], y

    @property
    def bayes_error(self) -> tuple[float, float]:
        """The smallest error of any classifier, and its standard error 0.

        For K means at distance Δ it is 1 − ∫ φ(z) Φ(z + Δ/√2)^(K−1) dz, since the nearest mean is right if one of K
        independent scores is the largest; for K = 2 it is Φ(−Δ/2).
        """
        from scipy.integrate import quad
        from scipy.stats import norm

        def missed(z: float) -> float:  # 1 − Φ^(K−1), accurate where it is small
            return float(-norm.pdf(z) * np.expm1((self.classes - 1) * norm.logcdf(z + self.separation / sqrt(2))))

        value, _ = quad(missed, -inf, inf, epsabs=0, epsrel=1e-9, limit=200)
        return float(value), 0.0


class GaussianMixture(StreamData):
    """Gaussian classes of unit variance with equidistant means: inputs of shape (1, dimension).

    The nearest mean is the best classifier, and its error is known exactly (``bayes_error``; in a record
    ``test/performance/bayes_error``).

    Args:
        components: number K of Gaussians, each a class, at least 2.
        dimension: dimension of the inputs, at least K − 1.
        separation: distance Δ of the means in standard deviations, at least 0.
        settings: those of :class:`genbench.data.stream.StreamData`.
    """

    name = "gaussian_mixture"

    def __init__(self, *, components: int = 10, dimension: int = 40, separation: float = 4.0, **settings: Any) -> None:
        self.classes = check_integer("data.components", components, least=2)
        note = f"{components} means at the same distance"
        check_integer("data.dimension", dimension, least=components - 1, note=note)
        check_number("data.separation", separation, low=0)
        self.source = Mixture(classes=components, dimension=dimension, separation=float(separation))
        super().__init__(**settings)
