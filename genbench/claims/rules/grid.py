"""The settings over which a rule goes within a seed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.claims.rules.base import LISTED, check_where, levels_words
from genbench.claims.runs import Where, merged, named

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
"""Settings and their values, of which every combination counts; or a list of settings."""


def check_grid(name: str, value: object, *, least: int) -> Any:
    """``value`` as a grid of at least ``least`` settings, in plain dicts and lists."""
    accepted = f"settings and lists of their values, or a list of settings, at least {least} in all"
    if isinstance(value, Mapping):
        grid: Any = check_where(name, value)
        fine = all(isinstance(levels, list) and levels for levels in grid.values())
    else:
        fine = isinstance(value, Sequence) and not isinstance(value, str)
        grid = [check_where(name, where) for where in value] if isinstance(value, Sequence) and fine else []
    points = math.prod(map(len, grid.values())) if isinstance(grid, dict) and fine else len(grid) or 1
    if not fine or points < least:
        raise ValueError(f"{name} is {value!r}; accepted: {accepted}")
    return grid


def settings_of(of: Where, over: Grid) -> list[Where]:
    """Return the settings of every point of a grid.

    >>> settings_of({"model": "mlp"}, {"lr": [0.1, 0.2]})
    [{'model': 'mlp', 'lr': 0.1}, {'model': 'mlp', 'lr': 0.2}]
    >>> settings_of({"model": "mlp"}, [])
    [{'model': 'mlp'}]
    """
    if isinstance(over, Mapping):
        points: list[Where] = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    else:
        points = list(over) or [{}]
    return [merged(of, point) for point in points]


def grid_words(over: Grid) -> str:
    """Return a grid in words: the levels of its settings, or the settings that it lists; of many their number.

    >>> grid_words({"data.x": [1, 2], "model": ["mlp", "cnn"]})
    'data.x = 1, 2 and model = mlp, cnn'
    >>> grid_words([{"data.x": 1}, {"model": "cnn", "data.x": 2}])
    '2 settings (data.x=1; model=cnn, data.x=2)'
    """
    if isinstance(over, Mapping):
        return " and ".join(levels_words(key, levels) for key, levels in over.items())
    told = f" ({'; '.join(map(named, over))})" if len(over) <= LISTED else ""
    return f"{len(over)} settings{told}"
