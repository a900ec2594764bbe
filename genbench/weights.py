"""Weights in files: read without trusting them, and brought under a network's own names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import records
from genbench.config import ConfigError


def record_of(folder: Path, name: str) -> dict[str, Any]:
    """The record of a run that left weights; ``name`` is the setting that names the run, for messages.

    Raises:
        ConfigError: a damaged run, or one without weights.
    """
    try:
        record = records.verify(folder)
    except records.RecordError as error:
        raise ConfigError(f"{name}: the run {folder.name} cannot be read: its record {error}") from None
    if "weights.pt" not in record["files"]:
        raise ConfigError(f"{name}: the run {folder.name} ended as {record['status']} and left no weights")
    return record


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, alone or in a checkpoint of Lightning's; no code in it is run.

    Raises:
        ConfigError: there is no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path.name!r}; accepted: a run's folder, or a file of weights")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{path.name!r} holds no weights that can be loaded safely: {records.clean(error)[:200]}"
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise ConfigError(
            f"{path.name!r} holds no state dict; accepted: name -> tensor, or a checkpoint of Lightning's"
        )
    return dict(loaded)


def matched(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state by the network's own names: the prefix that a wrapper has put before all of them is taken off."""
    wanted = network.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in state if key.endswith(first)]
    for prefix in prefixes:
        if all(prefix + key in state for key in wanted):
            return {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
    return dict(state)
