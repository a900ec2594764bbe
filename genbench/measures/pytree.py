"""Flatten and rebuild nested outputs and batches, dataclasses and dict-like classes included."""

from collections import UserDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._pytree import (
    SUPPORTED_NODES,
    register_dataclass,
    register_pytree_node,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)


def open_containers(value: Any) -> None:
    """Register dataclasses and classes derived from dict or UserDict with torch's pytrees.

    Outputs and batches of transformers are such classes; torch takes a class that it does not know for one leaf.
    """
    for leaf in tree_leaves(value):
        kind = type(leaf)
        if kind in SUPPORTED_NODES:
            continue
        if is_dataclass(kind):
            with suppress(ValueError):  # fields that its constructor does not take: it stays a leaf
                register_dataclass(kind)
                open_containers([getattr(leaf, field.name) for field in fields(leaf)])
        elif isinstance(leaf, dict | UserDict):
            register_pytree_node(kind, _entries, partial(_of_entries, kind))
            open_containers(list(leaf.values()))


def _entries(value: Any) -> tuple[list[Any], list[Any]]:
    return list(value.values()), list(value)


def _of_entries(kind: type[Any], values: Iterable[Any], keys: list[Any]) -> Any:
    return kind(zip(keys, values, strict=True))


def flatten(value: Any, whole: Callable[[Any], bool] | None = None) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    """The leaves of lists, tuples, dicts and dataclasses, in order, and a function that rebuilds the structure from
    others. A part for which ``whole`` is true stays one leaf."""
    if isinstance(value, Tensor):
        return [value], lambda leaves: next(iter(leaves))
    kind = type(value)
    if kind in (list, tuple) and all(map(_is_tensor, value)) and not (whole is not None and whole(value)):
        return list(value), kind  # as most batches, in a tenth of the time
    open_containers(value)
    found, spec = tree_flatten(value, is_leaf=whole)
    return found, lambda leaves: tree_unflatten(leaves, spec)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def leaves(value: Any) -> list[Any]:
    """The leaves of lists, tuples, dicts and dataclasses, in order."""
    return flatten(value)[0]


def rebuilt(value: Any, function: Callable[[int, Any], Any]) -> Any:
    """The same structure with ``function(i, leaf)`` in the place of each leaf."""
    found, made = flatten(value)
    return made(function(i, leaf) for i, leaf in enumerate(found))
