"""Sign errors: how often a measure ranks two runs against their gap, in each environment (Dziugaite et al. 2020)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.analysis.dyads import Dyads, interval
from genbench.analysis.pairs import MEAN, checked, configurations, differing
from genbench.analysis.statistics import LEVEL, ROUNDING
from genbench.checks import check_integer, check_number

if TYPE_CHECKING:
    import pandas as pd

FEWEST_CONTEXTS = 5
"""Contexts with which an environment is tested; the exact sign test of fewer cannot reject."""
EFFECTIVE_PAIRS = 12.0
"""With fewer an environment says nothing."""
SEEDS = 4
"""Runs of each of two configurations, fewer of which are no environment: 16 pairs."""
PAIR_COLUMNS = ("axis", "measure", "value", "low", "high", "sign_error_90", "above", "environments")
COLUMNS = ("axis", "a", "b", "measure", "value", "low", "high", "p", "pairs", "contexts", "effective_pairs")


def sign_errors(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    test_size: int,
    directions: Mapping[str, int] | None = None,
    effective_pairs: float = EFFECTIVE_PAIRS,
) -> "pd.DataFrame":
    """The sign error of each measure in each environment, Σ w e / Σ w over its pairs of runs, and the mean over
    environments (Dziugaite et al. 2020, arXiv 2010.11924).

    An environment is a hyperparameter with two of its values, a and b. Its pairs are a run with a and one with b whose
    other hyperparameters are equal, their context, whatever their seeds; environments pool contexts. Of a pair,
    e = ½ (1 − sign Δμ · sign Δg): 0 where measure μ and gap g order the two runs the same way, 1 where they do not, ½
    where the measure ties. The weight w = (h² − ½)₊ says how surely the gap tells the two apart,
    h = max(0, 1 − 2 exp(−n Δg² / 2)) the bound of Hoeffding on n test examples, clipped before it is squared, as in
    the authors' code. It vanishes below gaps that differ by 6 points at n = 1,000, by 2 at 10,000.

    Contexts share no run, so that they are the unit: the 95 % interval of an environment is Student's of a ratio of
    sums over contexts, with one degree less than there are contexts of equal weight, (Σ W)² / Σ W². ``p`` is one-sided,
    of an error beyond ½, of five contexts or more. Where all contexts have one error, both are those of the exact sign
    test. The interval of the mean is :func:`genbench.analysis.dyads.interval`'s. All are conditional on this grid.

    Args:
        frame: a row a run.
        gap: the column of the gap of the 0–1 error, in [−1, 1].
        measures: columns; of a run without a value, the pairs are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        test_size: n, the number of test examples of the gap, at least 1.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall.
        effective_pairs: (Σ w)² / Σ w² of the environments that are kept, at least 0.

    Returns:
        a row an environment and measure, in the order of ``hyperparameters`` and of the values: ``axis``, ``a``,
        ``b``, ``measure``, ``value``, ``low``, ``high``, ``p``, and of the pairs in which the measure has values and
        the gap a weight the number of ``pairs``, of their ``contexts``, and of ``effective_pairs``. Then, with ``mean``
        in place of the hyperparameter, a row a measure, in which ``p`` is missing and pairs and contexts are sums.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap beyond [−1, 1] or missing; a direction other
            than 1 and −1.
    """
    import pandas as pd

    check_integer("test_size", test_size, least=1)
    check_number("effective_pairs", effective_pairs, low=0)
    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = _gaps(frame, gap)
    configuration = configurations(frame, hyperparameters)
    values = {name: signs[name] * frame[name].to_numpy(dtype=float) for name in measures}
    rows: list[dict[str, Any]] = []
    means: dict[str, list[Dyads]] = {name: [] for name in measures}
    for axis in hyperparameters:
        levels, first, second, environment, context = differing(frame, axis, hyperparameters)
        difference = g[first] - g[second]
        weight = weights(difference, test_size)
        weighted = np.flatnonzero(weight)
        weighted = weighted[np.argsort(environment[weighted], kind="stable")]
        for inside in np.split(weighted, np.flatnonzero(np.diff(environment[weighted])) + 1):
            if not len(inside):
                continue
            a, b = divmod(int(environment[inside[0]]), len(levels))
            for name in measures:
                moved = values[name][first[inside]] - values[name][second[inside]]
                known = ~np.isnan(moved)
                of = inside[known]
                w, error = weight[of], 0.5 * (1 - np.sign(moved[known]) * np.sign(difference[of]))
                effective = w.sum() ** 2 / (w @ w) if len(of) else 0.0
                if not len(of) or effective < effective_pairs:
                    continue
                own = np.unique(context[of], return_inverse=True)[1]
                value, low, high, p = tested(w, error, own)
                contexts = int(own.max()) + 1
                counts = {"pairs": len(of), "contexts": contexts, "effective_pairs": float(effective)}
                shown = {"value": value, "low": low, "high": high, "p": p}
                rows.append({"axis": axis, "a": levels[a], "b": levels[b], "measure": name, **shown, **counts})
                ends = configuration[first[of]], configuration[second[of]]
                means[name].append(Dyads.of(value, contexts, *ends, w * (error - value) / w.sum()))
    for name, parts in means.items():
        if parts:
            low, high = interval(parts, least=0, most=1)
            own_rows = [row for row in rows if row["measure"] == name]
            counts = {key: sum(row[key] for row in own_rows) for key in ("pairs", "contexts", "effective_pairs")}
            value = sum(part.value for part in parts) / len(parts)
            rows.append({"axis": MEAN, "measure": name, "value": value, "low": low, "high": high, **counts})
    return pd.DataFrame(rows, columns=COLUMNS)


def pair_sign_errors(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    test_size: int,
    directions: Mapping[str, int] | None = None,
    seeds: int = SEEDS,
    effective_pairs: float = EFFECTIVE_PAIRS,
) -> "pd.DataFrame":
    """The sign errors of finer environments than those of :func:`sign_errors`: two configurations that differ in one
    hyperparameter, each with ``seeds`` runs or more, as Dziugaite et al. 2020 have them. Contexts are not pooled, so
    that errors spread more, and no environment is tested by itself.

    Args: as those of :func:`sign_errors`; seeds: at least 1.

    Returns:
        a row a hyperparameter and measure, and with ``mean`` in its place one of all environments: ``axis``,
        ``measure``, the mean ``value`` over environments, each counting the same, with its 95 % interval ``low`` and
        ``high`` (:func:`genbench.analysis.dyads.interval`), their 90th percentile ``sign_error_90``, the share of them
        ``above`` one half, and the number of ``environments``. Without any there is no row.

    Raises:
        ValueError: as :func:`sign_errors`.
    """
    import pandas as pd

    check_integer("test_size", test_size, least=1)
    check_integer("seeds", seeds, least=1)
    check_number("effective_pairs", effective_pairs, low=0)
    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = _gaps(frame, gap)
    configuration = configurations(frame, hyperparameters)
    sizes = np.bincount(configuration)
    found: dict[str, list[tuple[str, np.ndarray, np.ndarray, int]]] = {name: [] for name in measures}
    for axis in hyperparameters:
        _, first, second, _, context = differing(frame, axis, hyperparameters)
        if not len(first):
            continue
        ends = np.stack([configuration[first], configuration[second]])
        difference = g[first] - g[second]
        weight = np.where(sizes[ends].min(0) >= seeds, weights(difference, test_size), 0)
        ends, own = np.unique(ends, axis=1, return_inverse=True)
        own = own.reshape(-1)
        contexts = np.zeros(ends.shape[1], dtype=int)
        contexts[own] = context
        for name in measures:
            moved = signs[name] * (frame[name].to_numpy(dtype=float)[first] - frame[name].to_numpy(dtype=float)[second])
            w = np.where(np.isnan(moved), 0, weight)
            error = 0.5 * (1 - np.sign(np.nan_to_num(moved)) * np.sign(difference))
            total, squares = np.bincount(own, w), np.bincount(own, w * w)
            kept = (total > 0) & (total**2 >= effective_pairs * squares)
            if kept.any():
                values = np.bincount(own, w * error)[kept] / total[kept]
                found[name].append((axis, values, ends[:, kept], len(np.unique(contexts[kept]))))
    rows = []
    for axis in [*hyperparameters, MEAN]:
        for name in measures:
            parts = [part for part in found[name] if axis in (part[0], MEAN)]
            if parts:
                values, ends = np.concatenate([part[1] for part in parts]), np.hstack([part[2] for part in parts])
                value = float(values.mean())
                terms = (values - value) / len(values)
                mean = Dyads.of(value, min(part[3] for part in parts), ends[0], ends[1], terms)
                quantile, above = float(np.quantile(values, 0.9)), float((values > 0.5).mean())
                rows.append([axis, name, value, *interval([mean], least=0, most=1), quantile, above, len(values)])
    return pd.DataFrame(rows, columns=[*PAIR_COLUMNS])


def _gaps(frame: "pd.DataFrame", gap: str) -> np.ndarray:
    """The gaps of the 0–1 error of each run."""
    found = frame[gap].to_numpy(dtype=float)
    if not (np.abs(found) <= 1).all():
        raise ValueError(f"{gap} is {float(found[~(np.abs(found) <= 1)][0])}; accepted: numbers in [-1, 1], no percent")
    return found


def weights(difference: np.ndarray, test_size: int) -> np.ndarray:
    """How surely gaps that differ so much tell two runs apart, between 0 and ½; see :func:`sign_errors`."""
    return np.maximum(np.maximum(0, 1 - 2 * np.exp(-test_size * difference**2 / 2)) ** 2 - 0.5, 0)


def tested(weight: np.ndarray, error: np.ndarray, context: np.ndarray) -> tuple[float, float, float, float]:
    """The sign error of an environment, its interval, and the p of an error beyond one half."""
    value, low, high, p = _interval(weight, error, context)
    return value, low, high, p if int(context.max()) + 1 >= FEWEST_CONTEXTS else math.nan


def _interval(weight: np.ndarray, error: np.ndarray, context: np.ndarray) -> tuple[float, float, float, float]:
    from scipy.special import betaincinv, stdtr, stdtrit

    total = float(weight.sum())
    equal = bool((error == error[0]).all())
    value = float(error[0]) if equal else float(weight @ error) / total  # a rounded mean may differ from that number
    sizes = np.bincount(context, weight)
    contexts, effective = len(sizes), total**2 / float(sizes @ sizes)
    parts = np.bincount(context, weight * (error - value)) / total
    if contexts < 2:
        return value, math.nan, math.nan, math.nan
    alpha = (1 - LEVEL) / 2
    if equal or np.abs(parts).max() <= ROUNDING:
        if value == 0.5:
            return value, math.nan, math.nan, math.nan
        # of the exact sign test: the bound at which as many equal contexts are as likely as alpha
        low = float(betaincinv(effective, 1, alpha)) if value > 0.5 else 0.0
        high = 1.0 if value > 0.5 else 1 - float(betaincinv(effective, 1, alpha))
        return value, low, high, 0.5**effective if value > 0.5 else 1.0
    spread = math.sqrt(contexts / (contexts - 1) * float(parts @ parts))
    degrees = max(effective - 1, 1.0)
    half = float(stdtrit(degrees, 1 - alpha)) * spread
    p = float(stdtr(degrees, (0.5 - value) / spread))
    return value, max(0.0, value - half), min(1.0, value + half), p
