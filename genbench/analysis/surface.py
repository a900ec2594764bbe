"""Response surface: ridge regression on products of inputs, tuned by folds of whole groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PENALTIES = 10.0 ** np.arange(-3, 2)  # per example, of columns of variance 1
_INNER = 4
_HIGHEST = 4
_MOST = 200  # columns; with more, the degree is lower
_HALVED = 0.5


@dataclass(frozen=True)
class Terms:
    """Products of inputs, a column each [N, P], with the degree of each product [P]."""

    columns: np.ndarray
    degrees: np.ndarray

    @classmethod
    def intercept(cls, count: int) -> "Terms":
        return cls(np.ones((count, 1)), np.zeros(1, dtype=int))

    def times(self, powers: Sequence[np.ndarray], most: int) -> "Terms":
        """The products of these terms with one input more, up to a degree; ``powers`` [N, Q] are its first, second …"""
        columns, degrees = [], []
        for power, values in enumerate(powers, 1):
            low = self.degrees + power <= most
            columns.append((self.columns[:, low, None] * values[:, None, :]).reshape(len(values), -1))
            degrees.append(np.repeat(self.degrees[low] + power, values.shape[1]))
        return Terms(
            np.concatenate([np.empty((len(self.columns), 0)), *columns], axis=1),
            np.concatenate([np.empty(0, dtype=int), *degrees]),
        )

    def and_times(self, powers: Sequence[np.ndarray], most: int) -> "Terms":
        more = self.times(powers, most)
        return Terms(np.hstack([self.columns, more.columns]), np.concatenate([self.degrees, more.degrees]))

    def scaled(self, train: np.ndarray) -> np.ndarray:
        """Columns of mean 0 and variance ¼^(degree − 1) over the training rows, the intercept as it is; a constant
        column is 0."""
        part = self.columns[train]
        mean, spread = part.mean(0), part.std(0)
        scale = np.divide(_HALVED ** (self.degrees - 1.0), spread, out=np.zeros(len(spread)), where=spread > 1e-9)
        scaled = (self.columns - mean) * scale
        scaled[:, self.degrees == 0] = 1
        return scaled


def powers(values: np.ndarray, train: np.ndarray, most: int) -> list[np.ndarray]:
    """Powers of a number [N, 1], each of mean 0 and variance 1 over the training rows and without what is in lower
    ones; none from where it would be constant."""
    found: list[np.ndarray] = []
    scaled = (values - values[train].mean()) / (values[train].std() or 1.0)
    for power in range(1, most + 1):
        column = scaled**power
        rest = column - column[train].mean()
        for lower in found:
            rest = rest - (rest[train] @ lower[train, 0] / train.sum()) * lower[:, 0]
        spread = rest[train].std()
        if spread <= 1e-6 * np.abs(column[train]).max():
            break
        found.append((rest / spread)[:, None])
    return found


def highest_degree(widths: Sequence[int]) -> int:
    """4, 3 or 2: with few enough products of powers of the inputs, which have so many columns each."""
    for most in range(_HIGHEST, 2, -1):
        terms = Terms.intercept(1)
        for width in widths:
            terms = terms.and_times([np.ones((1, width))] * (most if width == 1 else 1), most)
        if len(terms.degrees) <= _MOST:
            return most
    return 2


class Surface:
    """Least squares of y on columns with a penalty λ Σ w², λ a value of a grid, the intercept free.

    λ has the least squared error over inner folds of the training rows, which hold whole groups. Columns may be added
    for one prediction: what belongs to the others alone is computed once.
    """

    def __init__(
        self, columns: np.ndarray, y: np.ndarray, train: np.ndarray, groups: np.ndarray, random: np.random.Generator
    ) -> None:
        names, own = np.unique(groups[train], return_inverse=True)
        inner = (random.permutation(len(names)) % min(_INNER, len(names)))[own]
        self.rows = np.flatnonzero(train)[np.argsort(inner, kind="stable")]
        ends = np.cumsum(np.bincount(inner))
        self.folds = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.test = np.flatnonzero(~train)
        self.mean, self.low, self.high = y[train].mean(), y[train].min(), y[train].max()
        self.y = y[self.rows, None] - self.mean
        self.columns = columns
        self.part = columns[self.rows]
        self.penalty = (_PENALTIES * len(self.rows))[:, None, None, None]
        free = np.eye(columns.shape[1])
        free[0, 0] = 0  # the intercept
        self.inverse = np.linalg.inv(self._left_out(self.part, self.part) + self.penalty * free)  # [λ, folds + 1, P, P]
        self.moment = self._left_out(self.part, self.y)
        self.weights = self.inverse @ self.moment  # [λ, folds + 1, P, 1]

    def _left_out(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """aᵀb over the training rows less each inner fold, and over all [folds + 1, P, Q]."""
        parts = np.stack([a[fold].T @ b[fold] for fold in self.folds])
        total = parts.sum(0)
        return np.concatenate([total - parts, total[None]])

    def predict(self, added: np.ndarray | None = None) -> np.ndarray:
        """ŷ of the rows that are not in training, within the range of y of those that are."""
        added = np.empty((len(self.columns), 0)) if added is None else added
        part = added[self.rows]
        # block elimination: (A U; Uᵀ S) with A⁻¹ known
        cross = self._left_out(self.part, part)
        solved = self.inverse @ cross
        rest = self._left_out(part, part) - cross.swapaxes(1, 2) @ solved + self.penalty * np.eye(part.shape[1])
        more = np.linalg.solve(rest, self._left_out(part, self.y) - solved.swapaxes(2, 3) @ self.moment)
        weights = self.weights - solved @ more
        errors = np.zeros(len(_PENALTIES))
        for at, fold in enumerate(self.folds):
            found = self.part[fold] @ weights[:, at, :, 0].T + part[fold] @ more[:, at, :, 0].T
            errors += ((self.y[fold] - found) ** 2).sum(0)
        best = int(np.argmin(errors))
        found = self.columns[self.test] @ weights[best, -1, :, 0] + added[self.test] @ more[best, -1, :, 0]
        return np.clip(self.mean + found, self.low, self.high)
