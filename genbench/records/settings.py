"""Settings of recorded runs: how they are written, and in which of them runs differ."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any

from genbench.privacy import clean

ABSENT = "–"


def show(value: Any) -> str:
    """Return a setting as tables and claims show it.

    >>> show(0.0), show(["l2", "sam"]), show([]), show(None), show(1e-4)
    ('0', 'l2+sam', 'none', 'none', '0.0001')
    """
    if isinstance(value, list | tuple):
        return "+".join(show(item) for item in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value)


def shown(value: Any, names: Mapping[str, str]) -> str:
    """Return a setting as :func:`show` does, or the name that ``names`` has for it, as for a digest of weights."""
    text = show(value)
    return names.get(text, text)


def differing(configs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the settings in which runs differ, except for the seed, with the values as shown.

    Args:
        configs: the settings of each run, by dotted key (:func:`genbench.records.flatten`).
        seeds: the seed of each run.
    """
    if len(configs) < 2:
        return {}
    first = configs[0]
    names, usual = list(first), list(first.values())
    varied: set[str] = set()
    for config in configs:  # in C, as a table compares a million settings
        if list(config) == names:
            values: Iterable[Any] = config.values()
        else:
            varied |= config.keys() ^ first.keys()
            values = map(config.get, names)
        varied.update(compress(names, map(ne, usual, values)))
    found = {}
    for key in sorted(varied):
        every = [config.get(key, ABSENT) for config in configs]
        if any(value != every[0] for value in every) and every != list(seeds):
            found[key] = list(dict.fromkeys(map(show, every)))
    return found


def described(differences: Mapping[str, Sequence[str]]) -> str:
    """Return the settings in which runs differ, in one line.

    >>> described({"optimizer.lr": ["0.1", "0.01"]})
    'optimizer.lr is 0.1 and 0.01'
    """
    shown = [f"{key} is {' and '.join(values)}" for key, values in list(differences.items())[:3]]
    more = f" (and {len(differences) - 3} keys more)" if len(differences) > 3 else ""
    return "; ".join(shown) + more
