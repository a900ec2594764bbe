"""Whether a ranking of measures holds in each part of the runs: one data set, one optimizer, one train size."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.analysis.correlations import correlated
from genbench.analysis.pairs import checked, checked_gap
from genbench.analysis.statistics import LEVEL, holm
from genbench.records.settings import show

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("axis", "level", "measure", "value", "low", "high", "p", "rank", "runs", "configurations")
_FEWEST = 10
"""Configurations of a part: the intervals of fewer are not simulated."""


def stability(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None = None,
) -> "pd.DataFrame":
    """Kendall's τ of each measure with the gap among the runs that have one value of one hyperparameter.

    A part is such a value: of the data set, the optimizer or the train size, say, while all other hyperparameters vary
    as before. For another gap, as under a shift, call it again with that column.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; runs without a value are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall.

    Returns:
        a row a part and measure, in the order of ``hyperparameters`` and of the values: ``axis``, ``level``,
        ``measure``, ``value`` in [−1, 1] and the 95 % interval ``low`` and ``high``, as of
        :func:`genbench.analysis.correlations`, ``p``, one-sided, of a τ below 0, the ``rank`` among the measures of
        the part (1 has the largest τ, ties the mean of their places), the ``runs`` and their ``configurations``. Parts
        of fewer than ten configurations, or of one gap, and hyperparameters of one value are left out.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap that is not finite; a direction other than 1
            and −1.
    """
    import pandas as pd

    checked(frame, gap, measures, hyperparameters, directions)
    checked_gap(frame, gap)
    rows = []
    for axis in hyperparameters:
        levels = sorted(frame[axis].unique(), key=lambda level: (isinstance(level, str), level))
        for level in levels if len(levels) > 1 else ():
            part = frame[frame[axis] == level]
            if len(part[[*hyperparameters]].drop_duplicates()) < _FEWEST or not np.ptp(part[gap]):
                continue
            found = correlated(part, gap, measures, hyperparameters, directions)
            values = pd.Series([found[name]["tau"].value for name in measures])
            for name, place in zip(measures, values.rank(ascending=False), strict=True):
                one = found[name]["tau"]
                ends = one.correlation_interval()
                counts = one.runs, one.configurations
                rows.append([axis, level, name, one.value, *ends, one.below_zero(), place, *counts])
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(own: "pd.DataFrame") -> dict[str, Any]:
    """What the parts of a measure come to: the lowest τ, ``lowest`` with ``…_low`` and ``…_high``, and ``lowest_in``,
    its part in words; the number of ``parts`` and of those ``turned``, in which τ is shown to be below 0 (Holm)."""
    known = own[own["value"].notna()].sort_values("value", kind="stable")
    if not len(known):
        return {"lowest": None, "lowest_low": None, "lowest_high": None, "lowest_in": "", "parts": 0, "turned": 0}
    least = known.iloc[0]
    adjusted = holm([None if np.isnan(p) else float(p) for p in known["p"]])
    return {
        "lowest": float(least["value"]),
        "lowest_low": float(least["low"]),
        "lowest_high": float(least["high"]),
        "lowest_in": f"{least['axis']} = {show(least['level'])}",
        "parts": len(known),
        "turned": sum(p is not None and p <= 1 - LEVEL for p in adjusted),
    }
