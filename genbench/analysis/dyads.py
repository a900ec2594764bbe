"""Means over pairs of configurations. Pairs that share a configuration depend on each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.analysis.statistics import LEVEL


@dataclass(frozen=True)
class Dyads:
    """A mean over pairs of configurations: both ``ends`` of each pair [2, P], and its ``terms`` [P], the deviation that
    the pair adds to the mean. ``contexts`` are its independent parts."""

    value: float
    contexts: int
    ends: np.ndarray
    terms: np.ndarray

    @classmethod
    def of(cls, value: float, contexts: int, a: np.ndarray, b: np.ndarray, terms: np.ndarray) -> "Dyads":
        """The mean whose pairs of runs are of the configurations ``a`` and ``b``."""
        ends, inverse = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
        return cls(value, contexts, ends, np.bincount(inverse.reshape(-1), terms))

    @classmethod
    def over_contexts(cls, numbers: np.ndarray, a: np.ndarray, b: np.ndarray, context: np.ndarray) -> "Dyads":
        """The mean over contexts of the mean of the numbers of their pairs."""
        _, context = np.unique(context, return_inverse=True)
        sizes = np.bincount(context)
        value = float((np.bincount(context, numbers) / sizes).mean())
        return cls.of(value, len(sizes), a, b, (numbers - value) / sizes[context] / len(sizes))


def influence(parts: Sequence[Dyads], configurations: int) -> np.ndarray:
    """The deviation that each configuration adds to the mean of the parts [C], by all of its pairs."""
    sums = np.zeros(configurations)
    for part in parts:
        for ends in part.ends:
            sums += np.bincount(ends, part.terms, configurations)
    return sums / max(len(parts), 1)


def variance(parts: Sequence[Dyads]) -> float:
    """Σ Σ rₚ r_q over the pairs of configurations p and q that share one, r the deviations of their terms (Aronow,
    Samii & Assenova 2015, Polit. Anal. 23, 564), each pair being in one part alone; it may be negative."""
    sums = influence(parts, 1 + max(int(part.ends.max()) for part in parts))
    return float(sums @ sums) - sum(float(part.terms @ part.terms) for part in parts) / len(parts) ** 2


def interval(parts: Sequence[Dyads], *, least: float, most: float) -> tuple[float, float]:
    """The 95 % interval of the mean of the parts, within ``least`` and ``most``; NaN of one context, and without
    spread.

    The interval is Student's, of :func:`variance`, with one degree less than there are contexts, in the part that has
    the fewest.
    """
    from scipy.special import stdtrit

    value = sum(part.value for part in parts) / len(parts)
    degrees, squares = min(part.contexts for part in parts) - 1, variance(parts)
    if degrees < 1 or squares <= 0:
        return math.nan, math.nan
    half = float(stdtrit(degrees, 0.5 + LEVEL / 2)) * math.sqrt(squares)
    return max(least, value - half), min(most, value + half)
