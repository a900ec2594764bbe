"""Numbers by seed; of a run that diverged, the ends between which its number would lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.analysis.statistics import ROUNDING


@dataclass(frozen=True, eq=False, kw_only=True)
class Numbers:
    """One number a seed, all in one order of seeds.

    Args:
        low, high: float64 [seeds], equal where the number is known. Where it is unknown (a run diverged, or its metric
            is null), the ends between which it lies, -inf and inf if nothing bounds it. NaN where a run is missing.
        scale: the largest absolute number that these were computed from, by which rounding is judged.
        missing: the missing runs, each in words.
        unknown: the runs without a number, each in words.
        runs: [seeds], the positions of the runs among the records, -1 where there is none; None if the numbers are
            computed from others.
        named: what each number is of, in words; empty if the numbers are computed from others.
    """

    low: np.ndarray
    high: np.ndarray
    scale: float
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    runs: np.ndarray | None = None
    named: tuple[str, ...] = ()

    def ends(self, worst: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper ends of the numbers of all seeds that have any, or without ``worst`` the known
        numbers, twice."""
        chosen = ~np.isnan(self.low) if worst else self.low == self.high
        return self.low[chosen], self.high[chosen]

    @property
    def rounding(self) -> float:
        """Numbers that are no further apart differ only by rounding."""
        return ROUNDING * self.scale

    def log(self) -> "Numbers":
        """Natural logarithms; the number of a seed is unknown if it is not positive."""
        bad = (self.low == self.high) & (self.low <= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            low = np.where(self.low > 0, np.log(self.low), np.where(np.isnan(self.low), np.nan, -np.inf))
            high = np.where(bad, np.inf, np.where(self.high > 0, np.log(self.high), self.high))
        scale = max(1.0, *np.abs(low[np.isfinite(low)]).tolist(), 0.0)
        names = self.named or [f"number {index}" for index in range(len(bad))]
        lost = tuple(f"{names[i]} is {self.low[i]:.4g}, which has no logarithm" for i in np.flatnonzero(bad))
        return Numbers(low=low, high=high, scale=scale, missing=self.missing, unknown=(*self.unknown, *lost))


def combined(weights: Sequence[float], parts: Sequence[Numbers]) -> Numbers:
    """Return the sum of ``parts``, each multiplied by its weight; a part of weight 0 does not count."""
    pairs = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight]
    low, high = (
        sum((weight * (part.low if (weight > 0) == lower else part.high) for weight, part in pairs), np.float64(0))
        for lower in (True, False)
    )
    zero = np.zeros_like(parts[0].low)
    scale = max((abs(weight) * part.scale for weight, part in pairs), default=0.0)
    return Numbers(low=low + zero, high=high + zero, scale=scale, **gathered(parts))


def difference(left: Numbers, right: Numbers) -> Numbers:
    """Return ``left - right``, seed by seed."""
    return combined([1, -1], [left, right])


def reduced(parts: Sequence[Numbers], low: np.ndarray, high: np.ndarray, *, scale: float = 1.0) -> Numbers:
    """Return the numbers that a rule computed from ``parts``."""
    return Numbers(low=low, high=high, scale=scale, **gathered(parts))


def stacked(parts: Sequence[Numbers]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lower ends of ``parts`` [parts, seeds], the seeds of which all are known, and those of which a run is
    missing."""
    low, high = np.stack([part.low for part in parts]), np.stack([part.high for part in parts])
    return low, (low == high).all(0), np.isnan(low).any(0)


def gathered(parts: Iterable[Any], names: Sequence[str] = ("missing", "unknown")) -> dict[str, Any]:
    """Return the texts that ``parts`` hold under each of the names, each text once."""
    parts = list(parts)
    return {name: tuple(dict.fromkeys(text for part in parts for text in getattr(part, name))) for name in names}
