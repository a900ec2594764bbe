"""The runs of a grid, and how measures rank them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from genbench.analysis.correlations import kendall
from genbench.analysis.dyads import Dyads
from genbench.analysis.pairs import differing
from genbench.analysis.sign_errors import EFFECTIVE_PAIRS, tested, weights
from genbench.checks import check_number
from genbench.claims.numbers import Numbers
from genbench.claims.rules.base import check_apart
from genbench.claims.rules.grid import Grid, settings_of
from genbench.claims.runs import ClaimRuns, named
from genbench.records.settings import show

if TYPE_CHECKING:
    from genbench.analysis.simultaneous import Score

Pairs = tuple[list[Any], np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Environment:
    """A measure in an environment: its mean sign error, and the p that it is above and below one half.

    ``doubtful`` is the part of the weight that unknown runs have.
    """

    axis: str
    levels: tuple[Any, Any]
    dyads: Dyads
    p: float
    below: float
    doubtful: float

    @property
    def value(self) -> float:
        return self.dyads.value

    def __str__(self) -> str:
        return f"{self.axis} = {show(self.levels[0])} and {show(self.levels[1])}"


class GridRuns:
    """The runs of a grid that completed or diverged, a row a run."""

    def __init__(self, runs: ClaimRuns, of: Mapping[str, Any], over: Grid) -> None:
        self.runs, self.settings = runs, settings_of(of, over)
        placed = [runs.placed(where) for where in self.settings]
        self.positions = np.stack([positions for positions, _ in placed])  # [settings, seeds]
        self.missing = tuple(text for _, texts in placed for text in texts)
        self.planned = runs.keys(self.settings)
        there = self.positions >= 0
        if len(np.unique(self.positions[there])) < int(there.sum()):
            empty = np.zeros(len(runs.seeds))
            samples = [Numbers(low=empty, high=empty, scale=0, runs=column) for column in self.positions]
            check_apart(runs, samples, self.settings)
        self.configuration, self.seed = np.nonzero(there)
        self.rows, self.configurations = self.positions[there], len(self.settings)
        self.keys = keys_of(over)
        self._kept: dict[Any, Any] = {}

    @classmethod
    def of(cls, runs: ClaimRuns, of: Mapping[str, Any], over: Grid) -> "GridRuns":
        """The runs of a grid, which rules of the same one share."""
        if (key := ("grid", repr(of), repr(over))) not in runs.kept:
            runs.kept[key] = cls(runs, of, over)
        found: GridRuns = runs.kept[key]
        return found

    def column(self, name: str) -> np.ndarray:
        """A metric, or a setting of the grid, of each row; NaN where it is unknown."""
        if name in self.keys:
            levels = [
                check_number(f"gap {name}", where.get(name), note="a setting that is a number")
                for where in self.settings
            ]
            return np.array(levels)[self.configuration]
        self.runs.check_metric(name, self.planned)
        return self.runs.column(name)[self.rows]

    def name(self, row: int) -> str:
        return f"seed {self.runs.seeds[self.seed[row]]} of {named(self.settings[self.configuration[row]])}"

    def pairs(self, axis: str) -> Pairs:
        """What :func:`genbench.analysis.pairs.differing` returns of the rows, in the order of the environments."""

        def make() -> Pairs:
            import pandas as pd

            codes, levels = {}, {}
            for key in self.keys:
                texts = [repr(where.get(key)) for where in self.settings]
                order = {text: place for place, text in enumerate(dict.fromkeys(texts))}
                codes[key] = np.array([order[text] for text in texts])[self.configuration]
                levels[key] = list({repr(where.get(key)): where.get(key) for where in self.settings}.values())
            _, first, second, environment, context = differing(pd.DataFrame(codes), axis, self.keys)
            place = np.argsort(environment, kind="stable")
            return levels[axis], first[place], second[place], environment[place], context[place]

        return self._once(("pairs", axis), make)

    def tau(self, x: np.ndarray, g: np.ndarray, fill: float | None) -> "Score":
        return self._once(
            ("tau", x.tobytes(), g.tobytes(), fill), lambda: kendall(x, g, self.configuration, unknown=fill)
        )

    def psi(self, x: np.ndarray, g: np.ndarray, fill: float | None, axes: Sequence[str] | None) -> list[Dyads]:
        """ψ along each axis in which two runs differ alone."""
        return self._once(
            ("psi", x.tobytes(), g.tobytes(), fill, tuple(axes or ())), lambda: self._psi(x, g, fill, axes or self.keys)
        )

    def _psi(self, x: np.ndarray, g: np.ndarray, fill: float | None, axes: Sequence[str]) -> list[Dyads]:
        found = []
        for axis in axes:
            _, first, second, _, context = self.pairs(axis)
            numbers = _signs(x, first, second) * _signs(g, first, second)
            numbers, used = _filled(numbers, fill)
            if used.any():
                a, b = self.configuration[first[used]], self.configuration[second[used]]
                found.append(Dyads.over_contexts(numbers[used], a, b, context[used]))
        return found

    def environments(
        self, x: np.ndarray, g: np.ndarray, fill: float | None, axes: Sequence[str] | None, test_size: int
    ) -> list[Environment]:
        """The sign errors of the environments with 12 effective pairs."""
        if (beyond := np.abs(g) > 1).any():
            raise ValueError(f"the gap is {g[beyond][0]:g} in a run; accepted: numbers in [-1, 1], no percent")
        return self._once(
            ("environments", x.tobytes(), g.tobytes(), fill, tuple(axes or ()), test_size),
            lambda: [each for axis in axes or self.keys for each in self._environments(x, g, fill, axis, test_size)],
        )

    def _environments(
        self, x: np.ndarray, g: np.ndarray, fill: float | None, axis: str, test_size: int
    ) -> Iterator[Environment]:
        levels, first, second, environment, context = self.pairs(axis)
        apart = g[first] - g[second]
        errors, used = _filled(0.5 * (1 - _signs(x, first, second) * np.sign(apart)), fill)
        lost = np.isnan(x[first] - x[second]) | np.isnan(apart)
        weight = weights(np.where(np.isnan(apart), np.inf, apart), test_size)
        used &= weight > 0
        for inside in np.split(np.arange(len(first)), np.flatnonzero(np.diff(environment)) + 1):
            of = inside[used[inside]]
            w, e = weight[of], errors[of]
            if not len(of) or w.sum() ** 2 / (w @ w) < EFFECTIVE_PAIRS:
                continue
            own = np.unique(context[of], return_inverse=True)[1]
            value, _, _, p = tested(w, e, own)
            below = tested(w, 1 - e, own)[3]
            ends = self.configuration[first[of]], self.configuration[second[of]]
            dyads = Dyads.of(value, int(own.max()) + 1, *ends, w * (e - value) / w.sum())
            a, b = divmod(int(environment[inside[0]]), len(levels))
            p, below = (1.0 if math.isnan(each) else each for each in (p, below))
            yield Environment(axis, (levels[a], levels[b]), dyads, p, below, float(w[lost[of]].sum() / w.sum()))

    def _once(self, key: Any, make: Callable[[], Found]) -> Found:
        if key not in self._kept:
            self._kept[key] = make()
        found: Found = self._kept[key]
        return found


class Sample:
    """Measures and a gap of the runs of a grid: ``x`` [measures][runs] turned so that they are to rise, and ``g``, NaN
    of runs without a number and of those that lie outside ``within``."""

    def __init__(
        self, grid: GridRuns, metrics: Mapping[str, int], gap: str, within: Mapping[str, Sequence[float]]
    ) -> None:
        self.grid = grid
        self.g = grid.column(gap)
        self.x = [sign * grid.column(name) for name, sign in metrics.items()]
        reasons: dict[int, str] = {}
        for name, (low, high) in within.items():
            values = grid.column(name)
            for row in np.flatnonzero((values < low) | (values > high)).tolist():
                reasons.setdefault(row, f"{name} is {values[row]:.4g}, outside [{low:g}, {high:g}]")
        self.outside = frozenset(reasons)
        for name in within:
            for row in np.flatnonzero(np.isnan(grid.column(name))).tolist():
                reasons.setdefault(row, grid.runs.reason(name, grid.rows[row]))
        lost = np.isin(np.arange(len(self.g)), [*reasons])
        self.g = np.where(lost, np.nan, self.g)
        self.x = [np.where(lost, np.nan, values) for values in self.x]
        for name, values in ((gap, self.g), *zip(metrics, self.x, strict=True)):
            for row in np.flatnonzero(np.isnan(values)).tolist():
                reasons.setdefault(row, grid.runs.reason(name, grid.rows[row]))
        self.unknown = reasons
        if len(self.x) > 1:  # measures are compared over the same runs
            gone = np.isnan(self.x).any(0)
            self.x = [np.where(gone, np.nan, values) for values in self.x]

    def values(self, among: Sequence["Sample"] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first measure and the gap, where all samples ``among`` which it is know theirs."""
        gone = np.isin(np.arange(len(self.g)), [row for sample in among or () for row in sample.unknown])
        return np.where(gone, np.nan, self.x[0]), np.where(gone, np.nan, self.g)


def _signs(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Signs of differences, NaN where one is unknown; two infinite values tie."""
    a, b = values[first], values[second]
    return np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b).astype(float) - (a < b))


def _filled(numbers: np.ndarray, fill: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of pairs with ``fill`` in place of NaN, and which of them count."""
    unknown = np.isnan(numbers)
    return np.where(unknown, 0.0 if fill is None else fill, numbers), ~unknown | (fill is not None)


def keys_of(over: Grid) -> list[str]:
    """The settings that a grid varies."""
    return list(over) if isinstance(over, Mapping) else list(dict.fromkeys(key for point in over for key in point))
