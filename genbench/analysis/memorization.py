"""Memorization and influence of single examples, over runs that each left some train examples out."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from genbench.checks import check_number

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Differences:
    """Differences of two probabilities, one an example or a pair; NaN where no run was trained on it, or every one.

    Attributes:
        value: P(right | trained on it) − P(right | left out), in [−1, 1].
        low: lower end of its interval, by Newcombe's hybrid of the scores of two binomials (Newcombe 1998, Stat. Med.
            17, 873, method 10).
        high: upper end.
    """

    value: Array
    low: Array
    high: Array


def memorization(right: Any, trained_on: Any, *, level: float = 0.95) -> Differences:
    """The memorization of each train example: how much more often it is answered right where it was trained on (Feldman
    & Zhang 2020, arXiv 2008.03703).

    Args:
        right: whether a run answers a train example right, [runs, N]; of :func:`genbench.runs.predictions.predictions`
            with ``split="train"``, ``right``.
        trained_on: whether it was trained on it, [runs, N].
        level: of the interval of each example, in (0, 1). It is of that example alone: of many, some are missed.

    Returns:
        Arrays [N].

    Raises:
        ValueError: arrays that do not fit together or have other values than true and false.

    >>> found = memorization([[1, 1], [1, 1], [0, 1], [0, 1]], [[1, 1], [1, 0], [0, 1], [0, 0]])
    >>> found.value.tolist()
    [1.0, 0.0]
    """
    answers, seen = _booleans("right", right), _booleans("trained_on", trained_on)
    if answers.shape != seen.shape:
        raise ValueError(f"right has shape {answers.shape} and trained_on {seen.shape}; accepted: equal ones")
    inside, outside = (answers & seen).sum(0), (answers & ~seen).sum(0)
    return _differences(inside, seen.sum(0), outside, (~seen).sum(0), level)


def influence(right: Any, trained_on: Any, *, level: float = 0.95) -> Differences:
    """The influence of each train example on each test example: how much more often the test example is answered right
    where the train example was trained on (Feldman & Zhang 2020, arXiv 2008.03703).

    Of many pairs the largest estimate is too large, whatever its interval: see :func:`genbench.measures.influence`.

    Args:
        right: whether a run answers a test example right, [runs, T].
        trained_on: whether it was trained on a train example, [runs, N].
        level: of the interval of each pair, in (0, 1).

    Returns:
        Arrays [T, N].

    Raises:
        ValueError: arrays that do not fit together or have other values than true and false.
    """
    answers, seen = _booleans("right", right), _booleans("trained_on", trained_on)
    if len(answers) != len(seen):
        raise ValueError(f"right is of {len(answers)} runs and trained_on of {len(seen)}; accepted: as many")
    inside, outside = (answers.T.astype(np.float64) @ each for each in (seen, ~seen))
    return _differences(inside, seen.sum(0), outside, (~seen).sum(0), level)


def _booleans(name: str, values: Any) -> Array:
    found = np.asarray(values)
    if found.ndim != 2 or not np.isin(found, (0, 1)).all():
        raise ValueError(f"{name} has shape {found.shape}; accepted: true or false for each run and example")
    return found.astype(bool)


def _differences(x: Array, n: Array, y: Array, m: Array, level: float) -> Differences:
    """x of n less y of m."""
    check_number("level", level, low=0, high=1, open_low=True, open_high=True)
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = x / n, y / m
        (p_low, p_high), (q_low, q_high) = _score(p, n, z), _score(q, m, z)
    low, high = np.hypot(p - p_low, q_high - q), np.hypot(p_high - p, q - q_low)
    return Differences(p - q, p - q - low, p - q + high)


def _score(p: Array, n: Array, z: float) -> tuple[Array, Array]:
    """Wilson's score interval of a share p of n."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half
