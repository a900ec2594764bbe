"""Power laws: how fast an error falls with the size of a network or of its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.analysis.statistics import LEVEL, Mean, mean_interval


@dataclass(frozen=True)
class PowerLaw:
    """y = factor · x^exponent of several seeds.

    Attributes:
        exponent: mean over seeds with its Student-t interval.
        factor: y at x = 1 by the mean logarithm.
        bend: mean over seeds of c in log y = a + b·log x + c·(log x)², with its interval; above 0 the fall slows down.
            None for fewer than three values of x.
    """

    exponent: Mean
    factor: float
    bend: Mean | None

    @property
    def bends(self) -> bool:
        """Whether the interval of the bend is beyond 0: then no single power law describes the values."""
        return (
            self.bend is not None and self.bend.half_width is not None and abs(self.bend.value) > self.bend.half_width
        )


def power_law(seeds: Sequence[Mapping[float, float]], *, level: float = LEVEL) -> PowerLaw:
    """Fit log y = log factor + exponent · log x by least squares within each seed.

    Seeds are independent, the values of one seed are not, as they may share examples: so the intervals are over the
    exponents of the seeds. An error that approaches a floor c, as y = c + a·x^b does, shows as a bend above 0, and its
    exponent depends on the range of x.

    Args:
        seeds: for each seed y by x, both positive, of the same x.
        level: of the intervals.

    Raises:
        ValueError: no seeds, fewer than two values of x, other x in other seeds, or numbers that are not positive.

    Source: Hestness et al. 2017 (arXiv 1712.00409), power laws of the error in the number of examples.
    """
    if not seeds or any(set(each) != set(seeds[0]) for each in seeds):
        raise ValueError(f"seeds: {len(seeds)} with other x; accepted: at least one, each with the same x")
    xs = sorted(seeds[0])
    ys = np.array([[each[x] for x in xs] for each in seeds], dtype=float)
    if len(xs) < 2 or not (min(xs) > 0 and np.isfinite(ys).all() and (ys > 0).all()):
        raise ValueError(f"x is {xs}; accepted: at least two positive numbers, and positive numbers at them")
    logs, heights = np.log(xs), np.log(ys)
    slopes = np.polyfit(logs, heights.T, 1)
    bend = None
    if len(xs) > 2:
        bend = mean_interval(np.polyfit(logs, heights.T, 2)[0].tolist(), level=level)
    return PowerLaw(mean_interval(slopes[0].tolist(), level=level), float(np.exp(slopes[1].mean())), bend)
