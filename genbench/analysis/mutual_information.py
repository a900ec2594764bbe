"""Conditional mutual information: what a measure tells of the gap given a few hyperparameters (Jiang et al. 2020)."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench.analysis.pairs import checked, checked_gap
from genbench.checks import check_integer

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("measure", "value", "stderr", "given", "bias", "bias_stderr", "corrected", "p", "pairs", "ties", "missing")
_CELLS = 300  # of a set of hyperparameters: each pair of cells has a table for every measure and permutation
_CHUNK = 2**18  # signs at a time: more leave the cache
_TABLES = 2**25  # numbers of the tables at a time
Array = np.ndarray
Set = tuple[int, ...]


def conditional_mutual_information(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    given: int = 2,
    contest: bool = False,
    permutations: int = 99,
    pairs: int = 2_500_000,
    seed: int = 0,
) -> "pd.DataFrame":
    """K of each measure: what it tells of the gap given the few hyperparameters that leave it least to tell (Jiang et
    al. 2020, arXiv 1912.02178).

    Of an ordered pair of runs V_μ = sign Δμ and V_g = sign Δg; a pair that ties in one is left out. U_S is the values
    of the hyperparameters in S of both runs. By counting pairs, K = min over S of I(V_μ; V_g | U_S) / H(V_g | U_S), S
    of at most ``given`` hyperparameters: 1 where the measure tells the order of the gaps, 0 where it tells nothing. An
    S that settles their order, H = 0, has no part. Only the order of a measure's values counts, not its direction;
    infinite ones are the largest or the smallest.

    The null: given some S of ``given`` hyperparameters, the gaps could belong to any runs with the same values of S, a
    cell. For each such S the gaps are permuted within the cells, and the minimum over the subsets of S is taken again.
    Configurations trade places as a whole, with others of as many runs, and the runs of a configuration with each
    other. ``p`` is the largest over S of (1 + the permutations whose minimum reaches that of the data) / (1 +
    ``permutations``). If it is small, no ``given`` hyperparameters explain what the measure tells; more of them
    together still may. ``bias`` is the largest mean of the permuted minimum.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; a run without a value is left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        given: at least 0.
        contest: the rule of the contest on predicting generalization (PGDL 2020): S of exactly ``given``
            hyperparameters, self-pairs are pairs, a tie counts as "not larger", and the values of U_S weigh equally,
            Σ I / Σ H. Its script prints 100 times the mean over tables.
        permutations: at least 0; without, there is no bias and no p.
        pairs: how many pairs of runs are counted, at least 1: of more than these, a random sample.
        seed: of permutations and sample, at least 0.

    Returns:
        a row a measure: ``measure``; ``value``, K; its ``stderr`` from the sample of pairs, not of runs: 0 without
        one, NaN in a contest; ``given``, the S of the minimum; ``bias`` and, from the permutations, ``bias_stderr``;
        ``corrected``, value − bias; ``p``; ``pairs`` that have part; ``ties``, the share left out; runs ``missing``.
        NaN are the value if all pairs tie, and p if an S leaves nothing to tell, as with one run a cell.

    Raises:
        ValueError: no hyperparameter, in a contest fewer than ``given``; a column that is not there; a gap that is not
            finite; more than 300 cells of an S, unless each has one run.
    """
    import pandas as pd

    for name, value in {"given": given, "permutations": permutations, "seed": seed}.items():
        check_integer(name, value, least=0)
    check_integer("pairs", pairs, least=1)
    checked(frame, gap, measures, hyperparameters, None)
    if contest and len(hyperparameters) < given:
        raise ValueError(f"hyperparameters is {[*hyperparameters]}; accepted: at least {given} in a contest")
    g = checked_gap(frame, gap)
    codes = np.stack([pd.factorize(frame[name], use_na_sentinel=False)[0] for name in hyperparameters], axis=1)
    alike: dict[bytes, list[str]] = {}  # measures of the same runs share their permutations
    for name in measures:
        alike.setdefault(frame[name].notna().to_numpy().tobytes(), []).append(name)
    rows = {}
    for there, names in alike.items():
        own = np.flatnonzero(np.frombuffer(there, dtype=bool))
        own = own[np.argsort(_cells(codes[own]), kind="stable")]  # the runs of a configuration in a row
        sets, testable = _sets(codes[own], min(given, len(hyperparameters)), hyperparameters, contest)
        found = _scores(g[own], frame[names].to_numpy(float)[own], codes[own], sets, contest, permutations, pairs, seed)
        for name, row in zip(names, found, strict=True):
            chosen = tuple(hyperparameters[place] for place in row["given"])
            p = row["p"] if testable else math.nan
            rows[name] = row | {"measure": name, "given": chosen, "p": p, "missing": len(frame) - len(own)}
    return pd.DataFrame([rows[name] for name in measures], columns=_COLUMNS)


def _cells(codes: Array) -> Array:
    """A number, from 0, for the values of each run [n, d]."""
    cell = np.zeros(len(codes), dtype=int)
    for column in codes.T:
        cell = np.unique(cell * (1 + codes.max(initial=0)) + column, return_inverse=True)[1]
    return cell


def _sets(codes: Array, size: int, names: Sequence[str], contest: bool) -> tuple[list[Set], bool]:
    """The sets of ``size`` hyperparameters, for one with one run a cell its subsets; and whether there was none."""
    queue, found = [*combinations(range(codes.shape[1]), size)], []
    for chosen in queue:
        cells = len(np.unique(_cells(codes[:, chosen])))
        if cells < len(codes) and cells > _CELLS:
            several = " and ".join(names[place] for place in chosen)
            raise ValueError(f"{several} have {cells} cells; accepted: at most {_CELLS}, or one run in each")
        if cells < len(codes):
            found.append(chosen)
        elif chosen and not contest:
            queue += [part for part in combinations(chosen, len(chosen) - 1) if part not in queue]
    return found, len(found) == len(queue)


def _scores(
    gap: Array, measures: Array, codes: Array, sets: list[Set], contest: bool, permutations: int, pairs: int, seed: int
) -> list[dict[str, Any]]:
    """The columns of each of the measures [n, M]."""
    (n, count), random = measures.shape, np.random.default_rng(seed)
    ranks = [np.unique(column, return_inverse=True)[1] for column in (gap, *measures.T)]
    g, *others = (rank.astype(np.int16 if n < 2**15 else np.int32) for rank in ranks)
    x = np.stack(others, axis=1)
    first, second, left_out = _pairs(n, pairs, contest, random)
    found: dict[Set, Array] = {}  # S -> I / H, its variance from the sample, how many pairs have part: [3, M]
    least = np.full((len(sets), count, 1 + permutations), np.inf)  # over the subsets, of the data, then permuted
    for place, chosen in enumerate(sets):
        cell = _cells(codes[:, chosen])
        leader = np.unique(cell, return_index=True)[1]  # a run of each cell
        parts = [chosen] if contest else [part for k in range(len(chosen) + 1) for part in combinations(chosen, k)]
        gaps = np.ascontiguousarray(g[_permuted(cell, _cells(codes), permutations, random)].T)
        step = max(1, _TABLES // (8 * (cell.max() + 1) ** 2 * gaps.shape[1]))
        for some in (slice(start, start + step) for start in range(0, count, step)):
            tables, a, b = _tables(x[:, some], gaps, first, second, cell, contest)
            for part in parts:
                coarse = _cells(codes[leader][:, part])
                key = coarse[a] * n + coarse[b]
                order = np.argsort(key, kind="stable")
                whole = np.add.reduceat(tables[order], np.unique(key[order], return_index=True)[1], axis=0)
                score = _normalized(whole, contest)
                least[place, some] = np.fmin(least[place, some], score)
                variance = left_out * _variance(whole[..., 0]) * (math.nan if contest and left_out else 1)
                used = whole[..., 0].sum(axis=(0, 1, 2)) / (1 if contest else 2)
                found.setdefault(part, np.full((3, count), np.nan))[:, some] = score[:, 0], variance, used
    rows = []
    for m in range(count):
        row: dict[str, Any] = dict.fromkeys(_COLUMNS, math.nan) | {"given": (), "pairs": 0}
        for entry in found.values():
            row |= {"pairs": int(entry[2, m]), "ties": 1 - entry[2, m] / len(first)}
        if defined := {part: entry[:, m] for part, entry in found.items() if not math.isnan(entry[0, m])}:
            row["given"] = min(defined, key=lambda part: (round(defined[part][0], 12), len(part)))
            row["value"], row["stderr"] = defined[row["given"]][0], math.sqrt(defined[row["given"]][1])
            row |= _null(least[:, m])
            row["corrected"] = row["value"] - row["bias"]
            row["p"] = row["p"] if all(chosen in defined for chosen in sets) else math.nan
        rows.append(row)
    return rows


def _null(least: Array) -> dict[str, float]:
    """Bias and p by the minimum [sets, 1 + permutations], first of the data."""
    permuted = np.where(np.isfinite(least[:, 1:]), least[:, 1:], np.nan)
    if (count := permuted.shape[1]) == 0:
        return {"bias": math.nan, "p": math.nan}
    hardest = permuted[permuted.mean(axis=1).argmax()]
    reached = int((least[:, 1:] >= least[:, :1] - 1e-12).sum(axis=1).max())  # rounding is no difference
    error = float(hardest.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return {"bias": float(hardest.mean()), "bias_stderr": error, "p": (1 + reached) / (1 + count)}


def _pairs(n: int, most: int, contest: bool, random: np.random.Generator) -> tuple[Array, Array, float]:
    """Pairs of runs, in a contest ordered ones and with self-pairs; and the share of all that the sample left out."""
    total, most = (n * n, 2 * most + n) if contest else (n * (n - 1) // 2, most)
    index = np.arange(total) if total <= most else random.choice(total, most, replace=False, shuffle=False)
    first = index // n if contest else ((1 + np.sqrt(1 + 8 * index)) / 2).astype(int)  # else below the diagonal
    second = index - (first * n if contest else first * (first - 1) // 2)
    return first, second, 1 - len(index) / max(1, total)


def _permuted(cell: Array, configuration: Array, count: int, random: np.random.Generator) -> Array:
    """The run whose gap each run has [1 + count, n], first its own; runs are in the order of ``configuration``."""
    sizes = np.bincount(configuration)
    starts = np.cumsum(sizes) - sizes
    stratum = cell[starts] * (1 + sizes.max()) + sizes  # configurations that trade places
    to = np.empty((count, len(sizes)), dtype=int)
    to[:, np.argsort(stratum, kind="stable")] = np.argsort(stratum + random.random(to.shape), axis=1)
    shuffled = np.argsort(configuration + random.random((count, len(cell))), axis=1)
    within = np.arange(len(cell)) - starts[configuration]
    moved = np.take_along_axis(shuffled, starts[to[:, configuration]] + within, axis=1)
    return np.concatenate([np.arange(len(cell))[None], moved])


def _tables(x: Array, g: Array, first: Array, second: Array, cell: Array, contest: bool) -> tuple[Array, Array, Array]:
    """How many ordered pairs have V_g and V_μ 1 or −1, to which a contest adds ties: [pairs of cells, 2, 2, M, P] of
    ranks x [n, M] and g [n, P]; and both cells."""
    swap = (cell[first] > cell[second]) & (not contest)
    i, j = np.where(swap, second, first), np.where(swap, first, second)
    key = cell[i] * (cell.max() + 1) + cell[j]
    order = np.argsort(key.astype(np.min_scalar_type(key.max())), kind="stable")  # quick for short integers
    i, j, counts = i[order], j[order], np.bincount(key)
    blocks = np.flatnonzero(counts)
    tables = np.empty((len(blocks), 2, 2, x.shape[1], g.shape[1]))
    step = max(1, _CHUNK // (x.shape[1] + g.shape[1]))
    for table, (low, high) in zip(tables, pairwise([0, *np.cumsum(counts[blocks]).tolist()]), strict=True):
        both = by_gap = by_measure = product = np.zeros((1, 1))
        for start in range(low, high, step):
            one, other = (each[start : min(start + step, high)] for each in (i, j))
            u, v = (np.sign(each[one] - each[other] - (0.5 if contest else 0)).astype(np.float32) for each in (x, g))
            untied_u, untied_v = (each[:, :1] if each.all() else each for each in (np.abs(u), np.abs(v)))
            both, by_gap = both + untied_u.T @ untied_v, by_gap + untied_u.T @ v
            by_measure, product = by_measure + u.T @ untied_v, product + u.T @ v
        for s, t in ((0, 0), (0, 1), (1, 0), (1, 1)):
            table[s, t] = (both + (1 - 2 * s) * by_gap + (1 - 2 * t) * by_measure + (1 - 2 * (s ^ t)) * product) / 4
    a, b = np.divmod(blocks, cell.max() + 1)
    if contest:
        return tables, a, b
    return np.concatenate([tables, tables[:, ::-1, ::-1]]), np.append(a, b), np.append(b, a)  # and the other order


def _normalized(tables: Array, contest: bool) -> Array:
    """I / H of tables [values of U_S, 2, 2, ...], NaN where H = 0."""
    from scipy.special import xlogy

    every, by_gap, by_measure = tables.sum(axis=(1, 2)), tables.sum(axis=2), tables.sum(axis=1)
    entropy = xlogy(every, every) - xlogy(by_gap, by_gap).sum(axis=1)  # times the pairs
    rest = xlogy(by_measure, by_measure).sum(axis=1) - xlogy(tables, tables).sum(axis=(1, 2))
    weight = 1 / every if contest else 1.0
    total = (weight * entropy).sum(axis=0)
    return np.divide((weight * (entropy - rest)).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0)


def _variance(tables: Array) -> Array:
    """The variance of I / H [M] of tables [values of U_S, 2, 2, M], if pairs, each in both orders, are independent."""
    every = tables.sum(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.log(every / tables.sum(axis=2, keepdims=True))
        told = surprise + np.log(tables / tables.sum(axis=1, keepdims=True))
        total, entropy = (np.nansum(tables * each, axis=(0, 1, 2)) for each in (told, surprise))
        return 2 * np.nansum(tables * (told - total / entropy * surprise) ** 2, axis=(0, 1, 2)) / entropy**2
