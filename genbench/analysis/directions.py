"""Whether a measure is to rise or to fall with the gap, where nobody says it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import configurations

if TYPE_CHECKING:
    import pandas as pd

LEARNED = 0
"""In place of a direction that the runs are to tell."""
WORDS = (
    "Directions are learned: a measure is turned where it falls with the gap in each four fifths of the "
    "configurations. One that knows nothing then has a τ shown to be above 0 in 5 % of cases, not 2.5 %."
)
_FOLDS = 5


def learned(
    frame: "pd.DataFrame", *, gap: str, measures: Sequence[str], hyperparameters: Sequence[str], seed: int = 0
) -> dict[str, int]:
    """The direction of each measure, learned on training folds.

    Configurations are dealt into five folds. Each four of them have a direction: the sign of Spearman's ρ over their
    runs. Where all five are −1 the measure falls, where all are 1 it rises, and elsewhere the runs do not tell.

    A measure that knows nothing is so turned to where it is better by chance: τ of learned direction is shown to be
    above 0 at a level of 5 %, in place of 2.5 %.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns of numbers; runs without a value are left out of that measure.
        hyperparameters: columns whose values name a configuration.
        seed: of the folds.

    Returns:
        1, −1, or 0 where the folds do not agree, of each measure.
    """
    configuration = configurations(frame, hyperparameters)
    count = int(configuration.max(initial=-1)) + 1
    fold = np.random.default_rng(seed).permutation(np.arange(count) % _FOLDS)[configuration]
    found = dict.fromkeys(measures, 0)
    for name in measures:
        known = frame[name].notna().to_numpy()
        signs = {_sign(frame[known & (fold != left)], gap, name) for left in range(min(_FOLDS, count))}
        if len(signs) == 1:
            (found[name],) = signs
    return found


def _sign(runs: "pd.DataFrame", gap: str, measure: str) -> int:
    """Of Spearman's ρ; 0 where it is not defined."""
    x, y = (runs[name].rank().to_numpy() for name in (measure, gap))
    return int(np.sign(np.dot(x - x.mean(), y - y.mean()).round(9))) if len(runs) else 0
