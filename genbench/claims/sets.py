"""Named sets of runs: settings that an experiment's claims write once and call by a name."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.checks import nearest
from genbench.claims.runs import NamedSet, merged

_SET = "set"
_PLACES = ("of", "than", "to", "over")
"""Where rules take settings."""


def read(block: object) -> dict[str, NamedSet]:
    """Return the sets of the node ``claims.sets``, by their names.

    Each holds settings; with the key ``set``, those of an earlier set, or of several, and what it adds to them.

    Raises:
        ValueError: what is not accepted, in one line.
    """
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise ValueError(f"claims.sets is {block!r}; accepted: a name for each set, and its settings")
    found: dict[str, NamedSet] = {}
    for name, value in block.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or "/" in name:
            raise ValueError(f"claims.sets has the name {name!r}; accepted: text without /, such as MLP 3 x 128")
        path = f"claims.sets.{name}"
        if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{path} is {value!r}; accepted: settings and their values")
        settings = _joined(value, found, path) if _SET in value else value
        found[name] = NamedSet({**settings}, name)
    return found


def resolved(node: Any, sets: Mapping[str, NamedSet], path: str, key: str = "", *, metric: bool) -> Any:
    """Return the node of a rule with settings in place of the names of sets, but for the rules inside it.

    A set stands where the rule takes settings (``of``, ``than``, ``to``, an item of ``over``): its name, or a mapping
    with the key ``set``, a name or a list of names, and the settings that are added to it.

    Args:
        node: the node, or what lies under ``key`` in it.
        sets: see :func:`read`.
        path: of the node, for messages.
        key: under which it lies.
        metric: what stands under ``than`` may be the name of a metric.

    Raises:
        ValueError: no set has such a name.
    """
    if isinstance(node, str):
        return _named(node, sets, path) if key in _PLACES and not (metric and key == "than") else node
    if isinstance(node, Mapping):
        if key in _PLACES and _SET in node:
            return _joined(node, sets, path)
        return {
            name: value if is_rule(value) else resolved(value, sets, f"{path}.{name}", str(name), metric=metric)
            for name, value in node.items()
        }
    if isinstance(node, Sequence):
        return [
            value if is_rule(value) else resolved(value, sets, f"{path}.{index}", key, metric=metric)
            for index, value in enumerate(node)
        ]
    return node


def is_rule(node: object) -> bool:
    """Tell whether a node is one of a rule."""
    return isinstance(node, Mapping) and "_target_" in node


def _joined(node: Mapping[str, Any], sets: Mapping[str, NamedSet], path: str) -> Mapping[str, Any]:
    """Return the settings of a mapping with the key ``set``."""
    names = node[_SET]
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Sequence) or not listed:
        raise ValueError(f"{path}.set is {names!r}; accepted: the name of a set of claims.sets, or a list of names")
    chosen = [_named(name, sets, f"{path}.set") for name in listed]
    try:
        return merged(*chosen, {key: value for key, value in node.items() if key != _SET})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _named(name: object, sets: Mapping[str, NamedSet], path: str) -> NamedSet:
    if not isinstance(name, str) or name not in sets:
        accepted = nearest(str(name), [*sets]) if sets else "accepted: settings and their values"
        raise ValueError(f"{path} is {name!r}, which is no set of claims.sets; {accepted}")
    return sets[name]
