"""Granulated rank correlation: along one hyperparameter at a time (Jiang et al. 2020)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked, checked_gap, configurations, differing
from genbench.analysis.statistics import LEVEL

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"
_COLUMNS = ("axis", "measure", "value", "low", "high", "contexts", "constant")


def granulated(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None = None,
) -> "pd.DataFrame":
    """ψ of each measure along each hyperparameter, and their mean Ψ (Jiang et al. 2020, arXiv 1912.02178).

    A context is a value of each other hyperparameter. In a context τ is the mean of sign Δμ · sign Δg over the pairs of
    runs that differ in the hyperparameter, whatever their seeds; ties count 0. ψ is the mean of τ over the contexts
    that have a pair, Ψ the mean of ψ over the hyperparameters. With one run a configuration these are the paper's.

    Pairs that share a configuration depend on each other, those of different hyperparameters too, so that resampling
    the contexts of each hyperparameter by itself calls every fourth Ψ of unrelated numbers different from 0. The
    variance here is that of dyadic data, Σ Σ rₚ r_q over the pairs of configurations p and q that share one, r the
    deviations of their terms (Aronow, Samii & Assenova 2015, Polit. Anal. 23, 564), and the interval Student's with one
    degree less than there are contexts, of Ψ than the fewest. It is conditional on this grid.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; of a run without a value, the pairs are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall.

    Returns:
        a row a hyperparameter and measure, and of Ψ with ``mean`` in place of the hyperparameter: ``axis``,
        ``measure``, ``value`` in [−1, 1], the 95 % interval ``low`` and ``high`` (NaN of one context, and without
        spread), the number of ``contexts``, and of those that are ``constant``: with τ = 0 because all pairs tie in
        the measure or in the gap. A hyperparameter in which no two runs differ alone has no row, and no part in Ψ.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap that is not finite; a direction other than 1
            and −1.
    """
    import pandas as pd

    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = checked_gap(frame, gap)
    configuration = configurations(frame, hyperparameters)
    pairs = [(axis, differing(frame, axis, hyperparameters)) for axis in hyperparameters]
    rows = []
    for name in measures:
        values = signs[name] * frame[name].to_numpy(dtype=float)
        parts = []
        for axis, (_, first, second, _, context) in pairs:
            moved = values[first] - values[second]
            known = ~np.isnan(moved)
            if not known.any():
                continue
            signs_of = np.sign(moved[known]), np.sign(g[first] - g[second])[known]
            ends = configuration[first[known]], configuration[second[known]]
            parts.append(_Axis.of(axis, *signs_of, *ends, context[known]))
        for part in parts:
            rows.append([part.name, name, part.value, *_interval([part]), part.contexts, part.constant])
        if parts:
            counts = sum(part.contexts for part in parts), sum(part.constant for part in parts)
            rows.append([MEAN, name, sum(part.value for part in parts) / len(parts), *_interval(parts), *counts])
    table = pd.DataFrame(rows, columns=_COLUMNS)
    order = {axis: place for place, axis in enumerate([*hyperparameters, MEAN])}
    return table.sort_values("axis", key=lambda axes: axes.map(order), kind="stable", ignore_index=True)


@dataclass(frozen=True)
class _Axis:
    """ψ along one hyperparameter; of each pair of configurations, both ``ends`` [2, P] and the deviation [P]."""

    name: str
    value: float
    contexts: int
    constant: int
    ends: np.ndarray
    terms: np.ndarray

    @classmethod
    def of(
        cls, name: str, sign: np.ndarray, other: np.ndarray, a: np.ndarray, b: np.ndarray, context: np.ndarray
    ) -> "_Axis":
        _, context = np.unique(context, return_inverse=True)
        sizes = np.bincount(context)
        value = float((np.bincount(context, sign * other) / sizes).mean())
        varied = (np.bincount(context, sign != 0) > 0) & (np.bincount(context, other != 0) > 0)
        ends, inverse = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
        terms = np.bincount(inverse.reshape(-1), (sign * other - value) / sizes[context] / len(sizes))
        return cls(name, value, len(sizes), int((~varied).sum()), ends, terms)


def _interval(parts: Sequence[_Axis]) -> tuple[float, float]:
    """The interval of the mean of ψ; a pair of configurations differs in one hyperparameter, so is in one part."""
    from scipy.special import stdtrit

    value = sum(part.value for part in parts) / len(parts)
    sums = np.zeros(1 + max(int(part.ends.max()) for part in parts))
    squares = 0.0
    for part in parts:
        for ends in part.ends:
            sums += np.bincount(ends, part.terms, len(sums))
        squares += float(part.terms @ part.terms)
    variance = (float(sums @ sums) - squares) / len(parts) ** 2
    degrees = min(part.contexts for part in parts) - 1
    if degrees < 1 or variance <= 0:
        return math.nan, math.nan
    half = float(stdtrit(degrees, 0.5 + LEVEL / 2)) * math.sqrt(variance)
    return value - half, value + half
