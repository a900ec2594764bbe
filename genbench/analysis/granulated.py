"""Granulated rank correlation: along one hyperparameter at a time (Jiang et al. 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.dyads import Dyads, influence, interval
from genbench.analysis.pairs import MEAN, checked, checked_gap, configurations, differing
from genbench.analysis.simultaneous import Score

if TYPE_CHECKING:
    import pandas as pd

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
    interval here is that of :func:`genbench.analysis.dyads.interval`, conditional on this grid.

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
    table, _ = along(frame, gap, measures, hyperparameters, directions)
    return table


def along(
    frame: "pd.DataFrame",
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None,
) -> tuple["pd.DataFrame", dict[str, Score]]:
    """What :func:`granulated` returns, and Ψ of each measure as a score. The score's variance counts each pair of
    configurations for both of its ends, and so is never too small."""
    import pandas as pd

    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = checked_gap(frame, gap)
    configuration = configurations(frame, hyperparameters)
    pairs = [(axis, differing(frame, axis, hyperparameters)) for axis in hyperparameters]
    rows, scores = [], {}
    for name in measures:
        values = signs[name] * frame[name].to_numpy(dtype=float)
        parts = []
        for axis, (_, first, second, _, context) in pairs:
            moved = values[first] - values[second]
            known = ~np.isnan(moved)
            if not known.any():
                continue
            signs_of = np.sign(moved[known]), np.sign(g[first] - g[second])[known]
            both = configuration[first[known]], configuration[second[known]]
            parts.append(_Axis.of(axis, *signs_of, *both, context[known]))
        means = [part.mean for part in parts]
        for part in parts:
            ends = interval([part.mean], least=-1, most=1)
            rows.append([part.name, name, part.mean.value, *ends, part.mean.contexts, part.constant])
        if parts:
            value = sum(mean.value for mean in means) / len(means)
            counts = sum(mean.contexts for mean in means), sum(part.constant for part in parts)
            rows.append([MEAN, name, value, *interval(means, least=-1, most=1), *counts])
            known, parts_of = ~np.isnan(values), influence(means, int(configuration.max()) + 1)
            scores[name] = Score(value, parts_of, int(known.sum()), len(np.unique(configuration[known])))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    order = {axis: place for place, axis in enumerate([*hyperparameters, MEAN])}
    return table.sort_values("axis", key=lambda axes: axes.map(order), kind="stable", ignore_index=True), scores


@dataclass(frozen=True)
class _Axis:
    """ψ along one hyperparameter, and the number of contexts in which nothing but ties is compared."""

    name: str
    mean: Dyads
    constant: int

    @classmethod
    def of(
        cls, name: str, sign: np.ndarray, other: np.ndarray, a: np.ndarray, b: np.ndarray, context: np.ndarray
    ) -> "_Axis":
        _, context = np.unique(context, return_inverse=True)
        varied = (np.bincount(context, sign != 0) > 0) & (np.bincount(context, other != 0) > 0)
        return cls(name, Dyads.over_contexts(sign * other, a, b, context), int((~varied).sum()))
