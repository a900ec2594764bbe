"""Pairs of runs that differ in one hyperparameter alone, of a table with a row a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.checks import nearest

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"
"""In place of a hyperparameter in the row of a mean over all of them."""


def checked(
    frame: "pd.DataFrame",
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None,
) -> dict[str, int]:
    """The direction of each measure: 1 if it is to rise with the gap, as by default, −1 if it is to fall.

    Raises:
        ValueError: no hyperparameter, a column that is not there, or another direction or one of no measure.
    """
    if not hyperparameters:
        raise ValueError("hyperparameters is []; accepted: columns, at least one")
    for name in (gap, *measures, *hyperparameters):
        if name not in frame:
            raise ValueError(f"column is {name!r}; {nearest(str(name), [*map(str, frame.columns)])}")
    for name in directions or ():
        if name not in measures:
            raise ValueError(f"a direction names {name!r}, no measure; {nearest(str(name), [*map(str, measures)])}")
    signs = {**dict.fromkeys(measures, 1), **(directions or {})}
    for name, sign in signs.items():
        if sign not in (1, -1):
            raise ValueError(f"direction of {name} is {sign!r}; accepted: 1, -1")
    return signs


def checked_gap(frame: "pd.DataFrame", gap: str) -> np.ndarray:
    """The gap of each run, finite numbers."""
    values = frame[gap].to_numpy(dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"{gap} is {float(values[~np.isfinite(values)][0])}; accepted: finite numbers")
    return values


def configurations(frame: "pd.DataFrame", hyperparameters: Sequence[str]) -> np.ndarray:
    """A number for the hyperparameters of each run."""
    return frame.groupby([*hyperparameters], sort=False, dropna=False).ngroup().to_numpy()


def differing(
    frame: "pd.DataFrame", axis: str, hyperparameters: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The levels of a hyperparameter, and of every pair of runs that differ in it alone and the first of which has the
    lower level: the rows of both, a number of the levels' pair, and a number of the context."""
    import pandas as pd

    codes, levels = pd.factorize(frame[axis], sort=True, use_na_sentinel=False)
    others = [name for name in hyperparameters if name != axis]
    context = configurations(frame, others) if others else np.zeros_like(codes)
    table = pd.DataFrame({"row": np.arange(len(frame)), "context": context, "level": codes})
    both = table.merge(table, on="context", suffixes=("_a", "_b"))
    both = both[both["level_a"] < both["level_b"]]
    environment = both["level_a"].to_numpy() * len(levels) + both["level_b"].to_numpy()
    return (
        np.asarray(levels),
        both["row_a"].to_numpy(),
        both["row_b"].to_numpy(),
        environment,
        both["context"].to_numpy(),
    )
