"""How much of what treatments do depends on where they are applied."""

from dataclasses import dataclass

import numpy as np

FEWEST = 3  # seeds


@dataclass(frozen=True)
class Interaction:
    """The variance between treatments, in two parts, without that of the noise.

    With treatment a in condition c a number is m_c + t_a + i_ac, with means of t over treatments and of i over
    treatments and over conditions of 0. ``main`` is the mean of t_a² over treatments, ``interaction`` that of i_ac²
    over treatments and conditions. m_c counts in neither, nor does it matter whether a baseline is subtracted. Squares
    of a seed hold its noise, products of two seeds do not: both are the mean of the products of all pairs of seeds,
    which has the right expectation whatever the noise, if it is independent between seeds.

    Attributes:
        main, interaction: the two variances; by chance they can be below 0.
        main_values, interaction_values: [seeds], the jackknife's pseudo-values of both, whose means they are.

    Source: Efron & Stein 1981, The jackknife estimate of variance.
    """

    main_values: np.ndarray
    interaction_values: np.ndarray

    @property
    def main(self) -> float:
        """The variance of the means of treatments."""
        return float(self.main_values.mean())

    @property
    def interaction(self) -> float:
        """The variance of what is left between treatments."""
        return float(self.interaction_values.mean())

    @property
    def share(self) -> float:
        """interaction / (main + interaction)."""
        return self.interaction / (self.main + self.interaction)

    def beyond(self, share: float) -> np.ndarray:
        """Return [seeds], the pseudo-values of (1 − share) · interaction − share · main, above 0 if and only if the
        share of the interaction is above ``share``."""
        return (1 - share) * self.interaction_values - share * self.main_values

    @property
    def share_values(self) -> np.ndarray:
        """[seeds], the pseudo-values of the share, to first order."""
        return self.share + self.beyond(self.share) / (self.main + self.interaction)


def interaction(values: np.ndarray) -> Interaction:
    """Return the two parts of the variance between treatments of numbers [seeds, treatments, conditions].

    Raises:
        ValueError: fewer than three seeds, or than two treatments or conditions.
    """
    seeds, treatments, conditions = values.shape
    if seeds < FEWEST or treatments < 2 or conditions < 2:
        raise ValueError(
            f"values has {seeds} seeds, {treatments} treatments and {conditions} conditions; accepted: at least "
            f"{FEWEST}, 2 and 2"
        )
    own = values - values.mean(1, keepdims=True)
    main = own.mean(2)
    left = own - main[:, :, None]
    return Interaction(_pseudo_values(main), _pseudo_values(left.reshape(seeds, -1)))


def _pseudo_values(x: np.ndarray) -> np.ndarray:
    """Return the jackknife's pseudo-values of the mean of x_s · x_t / n over pairs of seeds s ≠ t; x is [seeds, n]."""
    seeds, n = x.shape
    products = x @ x.T / n
    np.fill_diagonal(products, 0)
    rows = products.sum(1)
    every = rows.sum() / (seeds * (seeds - 1))
    without = (rows.sum() - 2 * rows) / ((seeds - 1) * (seeds - 2))
    values: np.ndarray = seeds * every - (seeds - 1) * without
    return values
