"""Weights in files or on the hub: found, read without trusting them, and brought under a network's own names."""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import records
from genbench.config import ConfigError

_SAVED = ("model.safetensors", "pytorch_model.bin")  # a model's weights on the hub, the better first
_HUB = re.compile(r"hf://(?P<model>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
_ACCEPTED = "a run's folder, a file of weights, a folder with model.safetensors, hf://owner/name"


def file_of(source: str, name: str) -> Path:
    """The file of weights that ``source`` names; ``name`` is the setting, for messages.

    A source is the folder of a run or that of an experiment of one run, a file, a folder of a model as it lies on the
    Hugging Face hub (``model.safetensors``, or where there is none ``pytorch_model.bin``), or a model that is there:
    ``hf://owner/name``, ``hf://owner/name@revision``, ``hf://owner/name/file``. Of those the library
    ``huggingface_hub`` keeps a copy in its cache, which serves without a network too.

    Raises:
        ConfigError: there is none, or it cannot be fetched.
    """
    if source.startswith("hf://"):
        return _of_hub(source, name)
    path = Path(source)
    runs = [found.parent for found in path.glob(f"*/{records.RECORD}")]
    if len(runs) > 1:
        raise ConfigError(f"{name}={path.name!r} has {len(runs)} runs; accepted: one, or a folder of one")
    path = runs[0] if runs else path
    if (path / records.RECORD).is_file():
        record_of(path, name)
        return path / "weights.pt"
    path = next((path / saved for saved in _SAVED if (path / saved).is_file()), path)
    if not path.is_file():
        missing = "has no weights" if path.is_dir() else "is not there"
        raise ConfigError(f"{name}={path.name!r} {missing}; accepted: {_ACCEPTED}")
    return path


def _of_hub(source: str, name: str) -> Path:
    if (parts := _HUB.fullmatch(source)) is None:
        raise ConfigError(f"{name}={source!r} names no model; accepted: hf://owner/name, hf://owner/name/file")
    try:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise ConfigError(
            f"{name}={source!r} needs the library huggingface_hub: pip install 'genbench[hub]'; accepted also: "
            "a folder or a file of it that was downloaded"
        ) from None
    files = (parts["file"],) if parts["file"] else _SAVED
    reason, offline = f"it has no {' and no '.join(files)}", False
    for file in files:
        try:
            return _fetched(parts["model"], parts["revision"], file, offline)
        except LocalEntryNotFoundError:
            reason, offline = "it is not in the cache of the hub's library, and to fetch it a network is needed", True
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the network, the hub and the library: dozens
            reason = records.clean(f"{type(error).__name__}: {error}")[:200]
            break
    raise ConfigError(
        f"{name}={source!r} cannot be had: {reason}; accepted also: a folder or a file of it that was downloaded"
    )


@functools.cache  # so that a process identifies a run by the weights that it then starts from
def _fetched(model: str, revision: str | None, file: str, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, file, revision=revision, local_files_only=offline))


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
    """The state dict in a file, alone, in a checkpoint of Lightning's or as safetensors; no code in it is run.

    Raises:
        ConfigError: there is no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path.name!r}; accepted: a run's folder, or a file of weights")
    load = _loader(path)
    try:
        loaded = load(path)
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


def _loader(path: Path) -> Callable[[Path], Any]:
    if path.suffix != ".safetensors":
        return functools.partial(torch.load, map_location="cpu", weights_only=True)
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ConfigError(f"{path.name!r} needs the library safetensors: pip install 'genbench[hub]'") from None
    return load_file


def matched(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state by the network's own names: the prefix that a wrapper has put before them, that under which most of
    them are found, is taken off, and what is not under it left out."""
    wanted = network.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in state if key.endswith(first)]
    prefix = max(prefixes, key=lambda prefix: sum(prefix + key in state for key in wanted), default="")
    return {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
