"""Sign errors: how often a measure ranks two runs against their gap, in each environment (Dziugaite et al. 2020)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked, differing
from genbench.checks import check_integer, check_number

if TYPE_CHECKING:
    import pandas as pd


def sign_errors(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    test_size: int,
    directions: Mapping[str, int] | None = None,
    effective_pairs: float = 12.0,
) -> "pd.DataFrame":
    """The sign error of each measure in each environment, Σ w e / Σ w over its pairs of runs (Dziugaite et al. 2020,
    arXiv 2010.11924).

    An environment is a hyperparameter with two of its values, a and b. Its pairs are a run with a and one with b whose
    other hyperparameters are equal, their context, whatever their seeds; environments pool contexts. Of a pair,
    e = ½ (1 − sign Δμ · sign Δg): 0 where measure μ and gap g order the two runs the same way, 1 where they do not, ½
    where the measure ties. The weight w = (h² − ½)₊ says how surely the gap tells the two apart,
    h = max(0, 1 − 2 exp(−n Δg² / 2)) the bound of Hoeffding on n test examples, clipped before it is squared, as in
    the authors' code. It vanishes below gaps that differ by 6 points at n = 1,000, by 2 at 10,000.

    Args:
        frame: a row a run.
        gap: the column of the gap of the 0–1 error, in [−1, 1].
        measures: columns; of a run without a value, the pairs are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        test_size: n, the number of test examples of the gap, at least 1.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall.
        effective_pairs: (Σ w)² / Σ w² of the environments that are kept, at least 0.

    Returns:
        a row an environment, in the order of ``hyperparameters`` and of the values: ``axis``, ``a``, ``b``, the number
        of ``pairs`` and of ``contexts`` that have some, ``effective_pairs``, and a column a measure, NaN where no pair
        with a weight has a value.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap beyond [−1, 1] or missing; a direction other
            than 1 and −1.
    """
    import pandas as pd

    check_integer("test_size", test_size, least=1)
    check_number("effective_pairs", effective_pairs, low=0)
    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = frame[gap].to_numpy(dtype=float)
    if not (np.abs(g) <= 1).all():
        raise ValueError(f"{gap} is {g[~(np.abs(g) <= 1)][0]!r}; accepted: numbers in [-1, 1]")
    found = []
    for axis in hyperparameters:
        levels, first, second, environment, context = differing(frame, axis, hyperparameters)
        difference = g[first] - g[second]
        weight = np.maximum(np.maximum(0, 1 - 2 * np.exp(-test_size * difference**2 / 2)) ** 2 - 0.5, 0)
        count = len(levels) ** 2
        total, squares = (np.bincount(environment, weight**power, count) for power in (1, 2))
        effective = np.divide(total**2, squares, out=np.zeros(count), where=squares > 0)
        seen = np.unique(np.stack([environment, context]), axis=1)[0]
        columns: dict[str, np.ndarray] = {
            "pairs": np.bincount(environment, minlength=count),
            "contexts": np.bincount(seen, minlength=count),
            "effective_pairs": effective,
        }
        for name in measures:
            values = signs[name] * frame[name].to_numpy(dtype=float)
            moved = values[first] - values[second]
            there = ~np.isnan(moved)
            error = 0.5 * (1 - np.sign(moved[there]) * np.sign(difference[there]))
            own = np.bincount(environment[there], weight[there], count)
            wrong = np.bincount(environment[there], weight[there] * error, count)
            columns[name] = np.divide(wrong, own, out=np.full(count, math.nan), where=own > 0)
        a, b = np.divmod(np.arange(count), len(levels))
        kept = (columns["pairs"] > 0) & (effective >= effective_pairs)
        table = pd.DataFrame({"axis": axis, "a": levels[a], "b": levels[b], **columns})
        found.append(table[kept])
    return pd.concat(found, ignore_index=True)
