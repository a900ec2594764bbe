"""Runs that a window of a metric selects, and what those it leaves out could do to a ranking."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.checks import check_window, nearest
from genbench.records.settings import show

if TYPE_CHECKING:
    import pandas as pd

Within = Mapping[str, tuple[float, float]]
"""Metrics, and the least and the largest number of each that a run may have."""
_SHOWN = 6
"""Of a hyperparameter with more values only the extreme shares are said."""
COLUMNS = ("hyperparameter", "value", "runs", "left_out", "share")


def inside(frame: "pd.DataFrame", within: Within) -> np.ndarray:
    """Whether each run lies in all windows; one without a number does not.

    Raises:
        ValueError: a column that is not there or holds no numbers, or ends that are none; one line.
    """
    import pandas as pd

    found = np.ones(len(frame), dtype=bool)
    for name, ends in within.items():
        if name not in frame:
            raise ValueError(f"within names {name!r}; {nearest(str(name), [*map(str, frame.columns)])}")
        low, high = check_window(f"within {name}", ends)
        try:
            values = pd.to_numeric(frame[name]).to_numpy(dtype=float)
        except (ValueError, TypeError):
            raise ValueError(f"within names {name!r}, a column of text; accepted: one of numbers") from None
        found &= (values >= low) & (values <= high)
    return found


def left_out(frame: "pd.DataFrame", kept: np.ndarray, hyperparameters: Sequence[str]) -> "pd.DataFrame":
    """How many runs of each value of each hyperparameter are not ``kept``: a row a value, with its ``runs``, those
    ``left_out``, and their ``share``."""
    import pandas as pd

    rows = []
    for name in hyperparameters:
        gone = pd.Series(~kept, index=frame.index).groupby(frame[name], dropna=False)
        for value, count, lost in zip(gone.sum().index, gone.count(), gone.sum(), strict=True):
            rows.append([name, value, int(count), int(lost), float(lost / count)])
    return pd.DataFrame(rows, columns=[*COLUMNS])


def bounds(tau: float, runs: int, lost: int) -> tuple[float, float]:
    """What Kendall's τ of so many runs could be with ``lost`` further ones: each pair with one of them counts −1, or 1.

    >>> bounds(1.0, 3, 1)
    (0.0, 1.0)
    """
    known, every = runs * (runs - 1), (runs + lost) * (runs + lost - 1)
    if math.isnan(tau) or not every:
        return math.nan, math.nan
    return (tau * known - (every - known)) / every, (tau * known + (every - known)) / every


def windows(within: Mapping[str, Sequence[float]]) -> list[str]:
    """The windows, each in words.

    >>> windows({"loss": (0.009, 0.011)})
    ['loss in [0.009, 0.011]']
    """
    return [f"{name} in [{low:g}, {high:g}]" for name, (low, high) in within.items()]


def words(table: "pd.DataFrame", within: Within, kept: np.ndarray) -> list[str]:
    """What a window leaves out, sentences."""
    lost = int((~kept).sum())
    told = " and ".join(windows(within))
    said = (
        [f"{lost} of {len(kept)} runs are left out, as they do not have {told}."]
        if lost
        else [f"All runs have {told}."]
    )
    if lost:
        parts = []
        for name, own in table.groupby("hyperparameter", sort=False):
            shares = [
                f"{100 * share:.0f} % of {show(value)}" for value, share in zip(own["value"], own["share"], strict=True)
            ]
            if len(shares) > _SHOWN:
                ends = 100 * own["share"].min(), 100 * own["share"].max()
                shares = [f"{ends[0]:.0f} to {ends[1]:.0f} % of its {len(shares)} values"]
            parts.append(f"{name} {', '.join(shares)}")
        said.append(f"Left out: {'; '.join(parts)}.")
    return said
