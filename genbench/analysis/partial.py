"""Partial association: what a measure says about the gap beyond the hyperparameters, from runs that share them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked, checked_gap, configurations
from genbench.analysis.shared_seeds import seed_codes
from genbench.analysis.statistics import LEVEL, ROUNDING
from genbench.checks import check_integer

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("measure", "value", "low", "high", "p", "configurations", "pairs", "ties", "residual", "note")
_AT_ONCE = 2**22
"""Signs of permuted pairs that are held at a time: bounds the memory."""


def partial_association(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    seeds: str | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> "pd.DataFrame":
    """Kendall's τ between a measure and the gap over pairs of runs of the same configuration.

    ``value`` is the mean of sign Δμ · sign Δg over the pairs that differ in their seed alone, of all configurations
    together; ties count 0. No dependence of either on the hyperparameters, with whatever interactions, can move it.
    ``p``, two-sided, is of the null that within a configuration μ and g are independent: the gaps of each
    configuration are permuted among its runs, in all orders if there are at most ``permutations``, else in that many
    drawn ones, and p is then (1 + those that reach ``value``) / (1 + ``permutations``). It needs no more than two runs
    a configuration, where a permutation is a flip of the sign. The 95 % interval is of arctanh τ by the jackknife,
    Student's with one degree less than there are configurations, and conditional on this grid.

    That takes the runs of different configurations for independent. They are not where a seed means the same in all
    of them (initial weights, split, wrong labels) and that moves both μ and g: one lucky split is then counted as
    often as there are configurations. With ``seeds``, the gaps of a seed are permuted as a whole and the jackknife
    leaves out one seed at a time. That holds, but three seeds have 6 orders, and no p below 1/6; it is exact where no
    run is missing.

    ``residual`` describes, and tests nothing: the correlation of the ranks of μ and g less the main effects of the
    hyperparameters on them. It needs no replicates, but what interactions of hyperparameters do to both is in it.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; runs without a value are left out of that measure.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        seeds: the column of the seed, if the same seed in two configurations has something in common.
        permutations: the most orders, at least 1.
        seed: of the drawn orders.

    Returns:
        a row a measure: ``measure``, ``value`` in [−1, 1], ``low``, ``high``, ``p``, the number of ``configurations``
        with two runs or more, of ``pairs``, and of ``ties`` among them in μ or g, ``residual``, ``note``. Numbers are
        NaN that are not defined, and the note says why.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap that is not finite; with ``seeds``, two runs of
            one configuration and seed.
    """
    import pandas as pd

    check_integer("permutations", permutations, least=1)
    check_integer("seed", seed, least=0)
    checked(frame, gap, measures, hyperparameters, None)
    gaps, configuration = checked_gap(frame, gap), configurations(frame, hyperparameters)
    named = None if seeds is None else seed_codes(frame, seeds, hyperparameters)
    values = {name: frame[name].to_numpy(dtype=float) for name in measures}
    rows: dict[str, list[object]] = {}
    for known in {of.tobytes(): of for of in (~np.isnan(each) for each in values.values())}.values():
        own = {name: of[known] for name, of in values.items() if (np.isnan(of) != known).all()}
        of_runs = gaps[known], np.stack([*own.values()])
        replicates = _Replicates.of(*of_runs, configuration[known], None if named is None else named[known])
        found = replicates.association(permutations, np.random.default_rng(seed))
        residuals = _residuals(frame[[*hyperparameters]][known], *of_runs)
        for name, row, residual in zip(own, found, residuals, strict=True):
            rows[name] = [name, *row[:-1], residual, row[-1]]
    return pd.DataFrame([rows[name] for name in measures], columns=_COLUMNS)


@dataclass(frozen=True)
class _Replicates:
    """Runs of the configurations that have two or more, in cells: those of a configuration follow each other.

    With seeds, each configuration has a cell for each seed, and the gap is NaN where there is no run.
    """

    gaps: np.ndarray  # [cells]
    signs: np.ndarray  # of each measure, [pairs, K]
    first: np.ndarray  # cells of the pairs
    second: np.ndarray
    starts: np.ndarray  # first cell of each configuration
    sizes: np.ndarray
    together: bool  # a seed's cells are permuted together

    @classmethod
    def of(
        cls, gaps: np.ndarray, values: np.ndarray, configuration: np.ndarray, seeds: np.ndarray | None
    ) -> "_Replicates":
        _, configuration, counts = np.unique(configuration, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(counts[configuration] > 1)
        _, configuration = np.unique(configuration[kept], return_inverse=True)
        cells = np.empty(len(kept), dtype=int)
        if seeds is None:
            cells[np.argsort(configuration, kind="stable")] = np.arange(len(kept))
            sizes = np.bincount(configuration)
        else:
            names, codes = np.unique(seeds[kept], return_inverse=True)
            cells[:] = configuration * len(names) + codes
            sizes = np.full(configuration.max(initial=-1) + 1, len(names))
        starts = np.cumsum(sizes) - sizes
        runs = np.bincount(configuration)
        ordered, at = np.sort(cells), np.cumsum(runs) - runs  # runs of a configuration follow each other
        every = [np.empty((2, 0), dtype=int)]
        for number in np.unique(runs):
            ends = np.stack(np.triu_indices(number, 1))
            every.append(ordered[at[runs == number][:, None] + ends[:, None]].reshape(2, -1))
        first, second = np.concatenate(every, axis=1)
        g = np.full(sizes.sum(), np.nan, dtype=np.float32)
        g[cells] = np.unique(gaps[kept], return_inverse=True)[1]
        filled = np.full((len(values), len(g)), np.nan)
        filled[:, cells] = values[:, kept]
        signs = _sign(filled[:, first], filled[:, second]).T
        return cls(g, signs, first, second, starts, sizes, seeds is not None)

    def association(self, permutations: int, random: np.random.Generator) -> list[list[object]]:
        """Of each measure: value, low, high, p, configurations, pairs, ties, note."""
        count, pairs = len(self.starts), len(self.first)
        if not pairs:
            nothing = [*[math.nan] * 4, 0, 0, 0, "no configuration has two runs with a value"]
            return [nothing] * self.signs.shape[1]
        terms = self.signs * _sign(self.gaps[self.first], self.gaps[self.second])[:, None].astype(float)
        values = terms.sum(0) / pairs
        number = math.factorial(self.sizes[0]) if self.together else math.prod(map(math.factorial, self.sizes.tolist()))
        every = number <= permutations
        reached, extreme, highest = np.zeros(len(values)), np.zeros(len(values)), np.zeros(len(values))
        for order in self._orders(permutations, every, random):
            g = self.gaps[order]
            a, b = g[:, self.first], g[:, self.second]
            there = np.full(len(g), pairs) if not self.together else (~np.isnan(a + b)).sum(1)
            size = np.abs(_sign(a, b) @ self.signs).astype(float)
            # without a pair that is known an order counts against the measure
            size = np.divide(size, there[:, None], out=np.ones(size.shape), where=there[:, None] > 0)
            reached += (size >= np.abs(values) - ROUNDING).sum(0)
            top = np.maximum(highest, size.max(0))
            extreme = np.where(top > highest, 0, extreme) + (size >= top - ROUNDING).sum(0)
            highest = top
        p = reached / number if every else (1 + reached) / (1 + permutations)
        rows: list[list[object]] = []
        for at, value in enumerate(values.tolist()):
            ties = int((terms[:, at] == 0).sum())
            note = "all pairs tie" if ties == pairs else ""
            if every and not note and extreme[at] / number > 1 - LEVEL:
                note = f"{number} orders of the runs: no p below {extreme[at] / number:.2g}"
            rows.append([value, *self._interval(terms[:, at]), float(p[at]), count, pairs, ties, note])
        return rows

    def _orders(self, permutations: int, every: bool, random: np.random.Generator) -> Iterator[np.ndarray]:
        """Cells in permuted orders, [some, cells] at a time."""
        cells = len(self.gaps)
        step = max(1, _AT_ONCE // max(cells, len(self.first)))
        if every:
            sizes = self.sizes[:1] if self.together else self.sizes
            of_each = (itertools.permutations(range(at, at + n)) for at, n in zip(self.starts, sizes, strict=False))
            product = itertools.product(*of_each)
            while part := [*itertools.islice(product, step)]:
                orders = np.array([[*itertools.chain(*each)] for each in part], dtype=int)
                yield self._whole(orders) if self.together else orders
            return
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        for start in range(0, permutations, step):
            some = min(step, permutations - start)
            if self.together:
                yield self._whole(np.argsort(random.random((some, self.sizes[0])), axis=1))
            else:  # sorting by configuration, then at random
                yield np.argsort(random.random((some, cells)) + owner, axis=1)

    def _whole(self, orders: np.ndarray) -> np.ndarray:
        return (orders[:, None, :] + self.starts[:, None]).reshape(len(orders), -1)

    def _interval(self, terms: np.ndarray) -> tuple[float, float]:
        """Leaves out one configuration at a time, or one seed."""
        from scipy.special import stdtrit

        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        ends = [self.first % self.sizes[0], self.second % self.sizes[0]] if self.together else [owner[self.first]]
        clusters = int(self.sizes[0]) if self.together else len(self.sizes)
        left = np.array([[np.bincount(end, part, clusters) for end in ends] for part in (terms, np.ones(len(terms)))])
        agreed, pairs = left.sum(1)
        value, rest = terms.mean(), len(terms) - pairs
        if clusters < 3 or (rest <= 0).any() or abs(value) >= 1:
            return math.nan, math.nan
        parts = (terms.sum() - agreed) / rest
        error = math.sqrt((clusters - 1) / clusters * float(np.sum((parts - parts.mean()) ** 2)))
        if error <= ROUNDING:
            return math.nan, math.nan
        middle, half = math.atanh(value), float(stdtrit(clusters - 1, 0.5 + LEVEL / 2)) * error / (1 - value**2)
        return math.tanh(middle - half), math.tanh(middle + half)


def _sign(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sign(a − b), of infinite numbers too; 0 of NaN. Products of float32 are fast, and exact for whole numbers."""
    return (a > b).astype(np.float32) - (a < b)


def _residuals(hyperparameters: "pd.DataFrame", gaps: np.ndarray, values: np.ndarray) -> list[float]:
    import pandas as pd
    from scipy.stats import rankdata

    effects = [pd.get_dummies(hyperparameters[name].astype(str), dtype=float) for name in hyperparameters]
    levels = 1 + sum(of.shape[1] - 1 for of in effects)
    if len(gaps) <= levels:
        return [math.nan] * len(values)
    ranks = rankdata(np.vstack([gaps, values]), axis=1).T
    ranks -= ranks.mean(0)
    design = np.column_stack([np.ones(len(gaps)), *effects])
    rest = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    scale = np.sqrt((rest**2).sum(0))
    scale[scale <= 1e-9 * np.sqrt((ranks**2).sum(0))] = math.nan  # nothing but rounding is left
    return (rest[:, 0] @ rest[:, 1:] / scale[0] / scale[1:]).tolist()
