"""Rank correlations of measures with the gap, whole configurations as the unit."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked, checked_gap, configurations
from genbench.analysis.simultaneous import Score

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("tau", "tau_b", "rho")
_COLUMNS = ("measure", "score", "value", "low", "high", "runs", "configurations")
_AT_ONCE = 2**22
"""Pairs of runs that are compared at a time: bounds the memory."""


def correlations(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None = None,
) -> "pd.DataFrame":
    """Kendall's and Spearman's rank correlations of each measure with the gap.

    ``tau`` is the mean of sign Δμ · sign Δg over all pairs of runs, in which ties count 0 (Jiang et al. 2020),
    ``tau_b`` Kendall's τ-b, which divides by the pairs that do not tie, and ``rho`` Spearman's ρ of mid-ranks.

    Seeds of one configuration are no independent evidence: the standard error of τ and τ-b is the jackknife's that
    leaves out one configuration at a time, of ρ that of its influence function summed over configurations. The 95 %
    interval is Student's, with one degree less than there are configurations, of Fisher's arctanh.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; runs without a value are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        directions: 1 of a measure that is to rise with the gap, the default, −1 of one that is to fall.

    Returns:
        a row a measure and score: ``measure``, ``score``, ``value`` in [−1, 1], ``low`` and ``high``, the number of
        ``runs`` and of their ``configurations``. The value is NaN of fewer than three runs, and where the measure or
        the gap is constant; the interval also of fewer than three configurations, and of a value of 1 or −1.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap that is not finite; a direction other than 1
            and −1.
    """
    import pandas as pd

    rows = []
    for name, score in correlated(frame, gap, measures, hyperparameters, directions).items():
        for kind in SCORES:
            one = score[kind]
            rows.append([name, kind, one.value, *one.correlation_interval(), one.runs, one.configurations])
    return pd.DataFrame(rows, columns=_COLUMNS)


def correlated(
    frame: "pd.DataFrame",
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    directions: Mapping[str, int] | None,
) -> dict[str, dict[str, Score]]:
    """The three correlations of each measure."""
    signs = checked(frame, gap, measures, hyperparameters, directions)
    g = dense_ranks(checked_gap(frame, gap))
    cluster = configurations(frame, hyperparameters)
    x = np.stack([dense_ranks(signs[name] * frame[name].to_numpy(dtype=float)) for name in measures])
    together = _row_sums(x, g)
    mates = _mates(cluster)
    found = {}
    for name, values, sums in zip(measures, x, together, strict=True):
        known = ~np.isnan(values)
        found[name] = _scores(values, np.where(known, g, np.nan), known, sums, cluster, mates)
    return found


def dense_ranks(values: np.ndarray) -> np.ndarray:
    """Dense ranks, as float32 compares fast and holds them exactly; NaN stays NaN."""
    ranks = np.full(len(values), np.nan, dtype=np.float32)
    known = ~np.isnan(values)
    ranks[known] = np.unique(values[known], return_inverse=True)[1]
    return ranks


def _row_sums(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Σ_j sign(x_i − x_j) · sign(g_i − g_j) of each measure and run [M, n]; comparisons with NaN are false, hence 0."""
    count = len(g)
    sums = np.zeros(x.shape, dtype=np.int64)
    step = max(1, _AT_ONCE // max(count, 1))
    for start in range(0, count, step):
        part = slice(start, start + step)
        of_gap = _signs(g[part], g)
        for measure, values in enumerate(x):
            sums[measure, part] = (_signs(values[part], values) * of_gap).sum(1, dtype=np.int32)
    return sums


def _signs(some: np.ndarray, every: np.ndarray) -> np.ndarray:
    return (some[:, None] > every).view(np.int8) - (some[:, None] < every).view(np.int8)


def _mates(cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ordered pairs of different runs of one configuration."""
    import pandas as pd

    table = pd.DataFrame({"row": np.arange(len(cluster)), "cluster": cluster})
    both = table.merge(table, on="cluster")
    both = both[both["row_x"] != both["row_y"]]
    return both["row_x"].to_numpy(), both["row_y"].to_numpy()


def _scores(
    x: np.ndarray,
    g: np.ndarray,
    known: np.ndarray,
    sums: np.ndarray,
    cluster: np.ndarray,
    mates: tuple[np.ndarray, np.ndarray],
) -> dict[str, Score]:
    count = int(known.sum())
    clusters = int(cluster.max(initial=-1)) + 1
    sizes = np.bincount(cluster[known], minlength=clusters)
    used = sizes > 0
    size = int(used.sum())
    a, b = mates
    within = {
        "both": np.sign(x[a] - x[b]) * np.sign(g[a] - g[b]),
        "x": np.abs(np.sign(x[a] - x[b])),
        "g": np.abs(np.sign(g[a] - g[b])),
    }
    rows = {"both": sums, "x": _untied(x), "g": _untied(g)}
    total, left = {}, {}  # sums over ordered pairs of runs: of all, and without each configuration
    for part, own in within.items():
        total[part], without = _left(np.nan_to_num(rows[part]), np.nan_to_num(own), cluster, a, clusters)
        left[part] = without[used]
    varied = count > 2 and total["x"] > 0 and total["g"] > 0
    remaining = (count - sizes)[used]
    found = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for kind, whole, parts in (
            ("tau", total["both"] / max(count * (count - 1), 1), left["both"] / (remaining * (remaining - 1))),
            (
                "tau_b",
                total["both"] / math.sqrt(total["x"] * total["g"]) if varied else math.nan,
                left["both"] / np.sqrt(left["x"] * left["g"]),
            ),
        ):
            influence = np.zeros(clusters)
            if varied and size > 2:
                influence[used] = _jackknife(np.where(np.isfinite(parts), parts, whole))
            found[kind] = Score(whole if varied else math.nan, influence, count, size)
    found["rho"] = _spearman(x, g, known, cluster, clusters, size, varied)
    return found


def _left(
    rows: np.ndarray, mates: np.ndarray, cluster: np.ndarray, a: np.ndarray, clusters: int
) -> tuple[float, np.ndarray]:
    """The sum over ordered pairs of runs, by the sums of each run's pairs and by the pairs of one configuration ``a``,
    and the sums without each configuration."""
    of_cluster, inside = np.bincount(cluster, rows, clusters), np.bincount(cluster[a], mates, clusters)
    total = float(of_cluster.sum())
    return total, total - 2 * of_cluster + inside


def _jackknife(parts: np.ndarray) -> np.ndarray:
    """The influence of each configuration, by the scores without it."""
    return (parts - parts.mean()) * math.sqrt((len(parts) - 1) / len(parts))


def kendall(x: np.ndarray, g: np.ndarray, cluster: np.ndarray, *, unknown: float | None = None) -> Score:
    """τ of a measure with the gap as :func:`correlations` has it, with the pairs of runs that lack one of the two.

    Args:
        x, g: of each run, NaN where it is unknown.
        cluster: the number of each run's configuration.
        unknown: what a pair of such a run counts, from −1 to 1; None: the run is left out.

    Returns:
        the score; its value is NaN of fewer than three runs, and without ``unknown`` where x or g is constant.
    """
    x, g = np.where(np.isnan(g), np.nan, x), np.where(np.isnan(x), np.nan, g)
    known = ~np.isnan(x)
    used = known if unknown is None else np.ones_like(known)
    count, clusters = int(used.sum()), int(cluster.max(initial=-1)) + 1
    x, g, fill = dense_ranks(x), dense_ranks(g), unknown or 0.0
    lost = len(x) - int(known.sum())
    rows = _row_sums(x[None], g)[0] + fill * np.where(known, lost, len(x) - 1)
    a, b = _mates(cluster)
    both = known[a] & known[b]
    mates = np.where(both, np.sign(np.where(both, (x[a] - x[b]) * (g[a] - g[b]), 0.0)), fill)
    total, left = _left(rows, mates, cluster, a, clusters)
    sizes = np.bincount(cluster[used], minlength=clusters)
    there = sizes > 0
    size, influence = int(there.sum()), np.zeros(clusters)
    constant = count < 3 or (unknown is None and not (np.ptp(x[known]) and np.ptp(g[known])))
    if constant:
        return Score(math.nan, influence, count, size)
    value = total / (count * (count - 1))
    remaining = (count - sizes)[there]
    if size > 2:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = left[there] / (remaining * (remaining - 1))
        influence[there] = _jackknife(np.where(np.isfinite(parts), parts, value))
    return Score(value, influence, count, size)


def _untied(values: np.ndarray) -> np.ndarray:
    """The number of runs with another value, of each run; NaN without a value."""
    known = ~np.isnan(values)
    found = np.full(len(values), np.nan)
    codes = values[known].astype(np.int64)
    found[known] = len(codes) - np.bincount(codes)[codes]
    return found


def _spearman(
    x: np.ndarray, g: np.ndarray, known: np.ndarray, cluster: np.ndarray, clusters: int, size: int, varied: bool
) -> Score:
    """Spearman's ρ, and its influence: that of a quotient of moments of mid-ranks, which themselves depend on each
    run's place among the others."""
    count = int(known.sum())
    influence = np.zeros(clusters)
    if not varied:
        return Score(math.nan, influence, count, size)
    codes = [np.unique(values[known], return_inverse=True)[1] for values in (x, g)]
    a, b = (_mid_ranks(of) for of in codes)
    u = float(np.mean(a * b)), float(np.mean(a * a)), float(np.mean(b * b))
    value = u[0] / math.sqrt(u[1] * u[2])
    if size > 2:
        above_a, above_b = (lambda weights, of=of: _above(weights, of) for of in codes)
        both = a * b + above_a(b) + above_b(a) - 3 * u[0]
        own_a, own_b = a * a + 2 * above_a(a) - 3 * u[1], b * b + 2 * above_b(b) - 3 * u[2]
        parts = both / math.sqrt(u[1] * u[2]) - value / 2 * (own_a / u[1] + own_b / u[2])
        influence = np.bincount(cluster[known], parts, clusters) / count * math.sqrt(size / (size - 1))
    return Score(value, influence, count, size)


def _mid_ranks(codes: np.ndarray) -> np.ndarray:
    """Mid-ranks over their number, about their mean ½."""
    sizes = np.bincount(codes)
    return ((np.cumsum(sizes) - sizes / 2)[codes]) / len(codes) - 0.5


def _above(weights: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean over all runs j of weights_j · (1 where j lies above run i, ½ where it ties)."""
    sums = np.bincount(codes, weights)
    return ((sums.sum() - np.cumsum(sums) + sums / 2)[codes]) / len(codes)
