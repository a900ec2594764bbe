"""The early layer whose features a measure takes: by default what the second layer is given."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from genbench.checks import nearest
from genbench.measures.effective_weights import layers
from genbench.measures.frozen_network import FrozenNetwork
from genbench.measures.representation import hidden
from genbench.measures.snapshot import Snapshot


def check_layer(layer: object) -> None:
    """Refuse what is no name of a layer."""
    if layer is not None and not isinstance(layer, str):
        raise ValueError(f"layer is {layer!r}; accepted: the name of a layer, or null")


def check_layer_of(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuse the name of a layer that the network has not, before it is trained."""
    if settings["layer"] is not None:
        _known(settings["layer"], [*layers(FrozenNetwork(model))])


def early_layer(snapshot: Snapshot, layer: str | None) -> str | None:
    """The name of the layer whose input is taken; None of a network without hidden layers.

    Raises:
        ValueError: a layer that is not there, or that is given no hidden features.
    """
    known = [name for name in hidden(snapshot) if name != "output"]
    return next(iter(known), None) if layer is None else _known(layer, known)


def _known(layer: str, known: list[str]) -> str:
    if layer not in known:
        raise ValueError(f"layer is {layer!r}; {nearest(layer, known)}")
    return layer
