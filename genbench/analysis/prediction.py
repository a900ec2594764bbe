"""Out of sample: does a measure help to predict the gap of configurations that were not seen?"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.pairs import checked, checked_gap, configurations
from genbench.analysis.shared_seeds import SeedEffects, seed_codes
from genbench.analysis.statistics import LEVEL
from genbench.analysis.surface import Surface, Terms, highest_degree, powers
from genbench.checks import check_integer

if TYPE_CHECKING:
    import pandas as pd

FOLDS = "folds"
_COLUMNS = (
    *("split", "measure", "hyperparameters", "alone", "both", "increment", "low", "high", "p"),
    *("runs", "configurations", "note"),
)
_SPAN = 5.0
"""Positive values that span this factor are taken as logarithms."""
_WITH_MEASURE = 2
"""The highest degree of products with a measure: they are computed for each, those without once."""


def out_of_sample(
    frame: "pd.DataFrame",
    *,
    gap: str,
    measures: Sequence[str],
    hyperparameters: Sequence[str],
    seeds: str | None = None,
    folds: int = 10,
    seed: int = 0,
) -> "pd.DataFrame":
    """R² of the gap of unseen configurations, predicted from the hyperparameters, from a measure, and from both.

    R² = 1 − Σ (g − ĝ)² / Σ (g − ḡ)², ḡ the mean gap of the runs that were trained on: 0 of no knowledge, less of
    wrong. ``increment`` is that of both less that of the hyperparameters alone.

    There are two kinds of splits. In ``folds``, whole configurations are drawn into ``folds`` parts and each is
    predicted from the others. In the split that has the name of a hyperparameter, the runs with each of its values are
    predicted from those with other values, which extrapolates.

    One learner serves all three: ridge regression on polynomials of the inputs, each further degree at half the scale.
    Those of hyperparameters have the highest degree of 4, 3 and 2 that makes at most 200 columns, those with the
    measure degree 2. The penalty is tuned by inner folds of whole configurations of the training runs, and a
    prediction stays within their gaps. A hyperparameter of numbers enters as its logarithm if all values are positive
    and the largest is 5 times the smallest, else as it is, an ordered category by its place, text by one-hot columns.
    Measures, often heavy-tailed, enter as the normal quantile of their rank among the training runs. Nothing is fitted
    or scaled before the split.

    The 95 % interval of the increment, and ``p``, two-sided, are Student's, of the paired differences of squared
    errors summed by configuration, with one degree less than there are. Folds share the runs that they train on, for
    which the variance is 1 + K / (K − 1) times that of the differences (Nadeau & Bengio 2003, Mach. Learn. 52, 239).
    Both are about prediction by this learner on this grid: a measure that depends on the hyperparameters alone, but is
    a better summary of them than the learner finds, does predict better, and one of noise worse.
    ``partial_association`` tells what is beyond hyperparameters. Where a value is left out there is neither: all its
    runs share the errors of one extrapolation.

    Args:
        frame: a row a run.
        gap: column, finite numbers.
        measures: columns; runs without a value are left out of that measure, of its hyperparameters' R² too.
        hyperparameters: columns, of numbers or text, whose values name a configuration.
        seeds: the column of the seed, if one seed means the same data or weights in several configurations. All R² are
            then beyond it: gaps and measures are taken less what their seed does to them, the same in every
            configuration, as the training runs tell it by those configurations that have several seeds. Else a measure
            that tells seeds apart would predict what unseen configurations share with seen ones. A seed that no such
            configuration has keeps its part, and so does what a seed does in some configurations more than in others.
        folds: at least 2; a fold each if there are fewer configurations.
        seed: of the folds.

    Returns:
        a row a split and measure: ``split``, ``measure``, R² of ``hyperparameters``, measure ``alone`` and ``both``,
        ``increment``, ``low``, ``high``, ``p``, the number of ``runs`` and ``configurations``, ``note``. Numbers that
        are not defined are NaN, and the note says why: text has no place for a value that was never seen, and of two
        values the one that is left cannot tell how the other differs; either would hand its part to any measure.

    Raises:
        ValueError: no hyperparameter; a column that is not there; a gap that is not finite; fewer than two folds; with
            ``seeds``, two runs of one configuration and seed.
    """
    import pandas as pd

    check_integer("folds", folds, least=2)
    check_integer("seed", seed, least=0)
    checked(frame, gap, measures, hyperparameters, None)
    gaps, configuration = checked_gap(frame, gap), configurations(frame, hyperparameters)
    shared = None if seeds is None else seed_codes(frame, seeds, hyperparameters)
    inputs = {name: _coded(frame[name]) for name in hyperparameters}
    values = {name: frame[name].to_numpy(dtype=float) for name in measures}
    rows = []
    for known in {of.tobytes(): of for of in (~np.isnan(each) for each in values.values())}.values():
        own = {name: of[known] for name, of in values.items() if (np.isnan(of) != known).all()}
        coded = {name: of[known] for name, of in inputs.items()}
        runs = _Runs(gaps[known], configuration[known], coded, None if shared is None else shared[known])
        for split, parts, note in runs.splits(folds, np.random.default_rng(seed)):
            rows += [[split, *row] for row in runs.rows(own, parts, split == FOLDS, note, seed)]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    places = {name: place for place, name in enumerate([FOLDS, *hyperparameters, *measures])}
    return table.sort_values(["split", "measure"], key=lambda of: of.map(places), kind="stable", ignore_index=True)


def predicted(
    frame: "pd.DataFrame", *, gap: str, hyperparameters: Sequence[str], folds: int = 10, seed: int = 0
) -> np.ndarray:
    """The gap of each run as its hyperparameters predict it, learned in ``folds`` without its configuration; arguments
    and learner are those of :func:`out_of_sample`.

    Where that is no better than the mean gap of the runs that were learned from, or runs against the gap, and of fewer
    than three configurations, all runs have that of all, one number: left-out predictions of what cannot be predicted
    run against the truth, as the mean of the others is low where the gap is high.
    """
    inputs = {name: _coded(frame[name]) for name in hyperparameters}
    runs = _Runs(checked_gap(frame, gap), configurations(frame, hyperparameters), inputs, None)
    _, parts, _ = next(runs.splits(folds, np.random.default_rng(seed)))
    found, mean = np.full((2, len(frame)), runs.gaps.mean())
    for test in parts:
        found[test] = runs.surface(runs.terms(~test), runs.gaps, ~test, seed).predict()
        mean[test] = runs.gaps[~test].mean()
    better = ((runs.gaps - found) ** 2).sum() < ((runs.gaps - mean) ** 2).sum()
    if not better or (found - found.mean()) @ (runs.gaps - runs.gaps.mean()) <= 0:
        return np.full(len(frame), runs.gaps.mean())
    _, first, own = np.unique(runs.configuration, return_index=True, return_inverse=True)
    return found[first][own]  # seeds of a configuration may differ by rounding, which would order them


def _coded(column: "pd.Series") -> np.ndarray:
    """Numbers [N], or one-hot columns [N, L] of text and of numbers of which some are missing."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered and column.notna().all():
        return column.cat.codes.to_numpy(dtype=float)
    if pd.api.types.is_numeric_dtype(column) and np.isfinite(column.to_numpy(dtype=float)).all():
        numbers = column.to_numpy(dtype=float)
        if len(numbers) and numbers.min() > 0 and numbers.max() >= _SPAN * numbers.min():
            return np.log(numbers)
        return numbers
    return pd.get_dummies(column.astype(str)).to_numpy(dtype=float)


@dataclass(frozen=True)
class _Runs:
    gaps: np.ndarray
    configuration: np.ndarray
    inputs: dict[str, np.ndarray]
    seeds: np.ndarray | None

    def splits(self, folds: int, random: np.random.Generator) -> Iterator[tuple[str, list[np.ndarray], str]]:
        """Name, the runs that each part predicts, and why there are none."""
        names, own = np.unique(self.configuration, return_inverse=True)
        count = len(names)
        part = (random.permutation(count) % max(1, min(folds, count)))[own]
        few = f"{count} configurations: 3 are needed" if count < 3 else ""
        yield FOLDS, [] if few else [part == each for each in np.unique(part)], few
        for name, values in self.inputs.items():
            levels = np.unique(values, axis=0)
            if len(levels) < 2:
                continue  # it never varies
            if values.ndim > 1:
                note = "text: the place of an unseen value is unknown"
            elif len(levels) < 3:
                note = "two values: one does not tell how the other differs"
            else:
                note = few
            yield name, [] if note else [values == level for level in levels], note

    def terms(self, train: np.ndarray) -> Terms:
        """The products of the hyperparameters."""
        most = highest_degree([1 if of.ndim == 1 else of.shape[1] for of in self.inputs.values()])
        inputs = [powers(of, train, most) if of.ndim == 1 else [of] for of in self.inputs.values()]
        terms = Terms.intercept(len(self.gaps))
        for of in inputs:
            terms = terms.and_times(of, most)
        return terms

    def less_seeds(self, train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Takes from values what their seeds do to them, as the training runs tell it."""
        if self.seeds is None:
            return lambda values: values
        return SeedEffects(self.seeds, self.configuration, train).less

    def surface(self, terms: Terms, gaps: np.ndarray, train: np.ndarray, seed: int) -> Surface:
        """The learner of the gap, from the training runs."""
        return Surface(terms.scaled(train), gaps, train, self.configuration, np.random.default_rng(seed))

    def rows(
        self, measures: dict[str, np.ndarray], parts: list[np.ndarray], tested: bool, note: str, seed: int
    ) -> list[list[object]]:
        """Of each measure: its name, the three R², increment, low, high, p, runs, configurations, note."""
        counts = len(self.gaps), len(np.unique(self.configuration))
        if not note and np.ptp(self.less_seeds(np.ones(len(self.gaps), dtype=bool))(self.gaps)) == 0:
            note = "the gap is constant" if np.ptp(self.gaps) == 0 else "the gap is that of the seed alone"
        if note:
            return [[name, *[math.nan] * 7, *counts, note] for name in measures]
        total, base = np.empty(len(self.gaps)), np.empty(len(self.gaps))
        alone, both = ({name: np.empty(len(self.gaps)) for name in measures} for _ in range(2))
        for test in parts:
            train, less_seeds = ~test, self.less_seeds(~test)
            g = less_seeds(self.gaps)
            total[test] = (g[test] - g[train].mean()) ** 2
            nothing, terms = Terms.intercept(len(g)), self.terms(train)
            surfaces = [self.surface(of, g, train, seed) for of in (nothing, terms)]
            base[test] = (g[test] - surfaces[1].predict()) ** 2
            for name, values in measures.items():
                z = powers(less_seeds(_normal(values, train)), train, _WITH_MEASURE)
                for without, surface, errors in zip((nothing, terms), surfaces, (alone, both), strict=True):
                    added = without.times(z, _WITH_MEASURE).scaled(train)
                    errors[name][test] = (g[test] - surface.predict(added)) ** 2
        rows: list[list[object]] = []
        for name in measures:
            r2 = [1 - errors.sum() / total.sum() for errors in (base, alone[name], both[name])]
            test_of = self._increment(base - both[name], total, len(parts)) if tested else (math.nan,) * 3
            rows.append([name, *r2, r2[2] - r2[0], *test_of, *counts, ""])
        return rows

    def _increment(self, gains: np.ndarray, total: np.ndarray, folds: int) -> tuple[float, float, float]:
        """The interval of Σ gains / Σ total, and p."""
        from scipy.special import stdtr, stdtrit

        _, own = np.unique(self.configuration, return_inverse=True)
        value = gains.sum() / total.sum()
        rest = np.bincount(own, gains - value * total)
        count = len(rest)
        shared = 1 + folds / (folds - 1)  # 1/K + n_test/n_train in place of 1/K
        error = math.sqrt(float(rest @ rest) * count / (count - 1) * shared) / total.sum()
        if not error > 0:
            return math.nan, math.nan, 1.0
        half = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * error
        return value - half, value + half, 2 * float(stdtr(count - 1, -abs(value) / error))


def _normal(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Φ⁻¹ of the mid-rank among the training runs, infinite values included; beyond theirs, that of the last."""
    from scipy.special import ndtri

    ordered = np.sort(values[train])
    place = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))
    return ndtri(np.clip(place, place[train].min(), place[train].max()))
