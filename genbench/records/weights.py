"""Weights in files or on the hub: find them, read them safely, and match their names to a network."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import hub
from genbench.checks import ConfigError, require
from genbench.privacy import clean
from genbench.records.record import RECORD, RecordError, verify

_SAVED = ("model.safetensors", "pytorch_model.bin")  # a model's weights on the hub, the better first
_HUB = re.compile(r"hf://(?P<model>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
_ACCEPTED = "a run's folder, a file of weights, a folder with model.safetensors, hf://owner/name"


def file_of(source: str, name: str) -> Path:
    """Return the file of weights that ``source`` names; ``name`` is the setting, for messages.

    A source is the folder of a run, or of an experiment with one run; a file; the folder of a downloaded model of the
    Hugging Face hub (``model.safetensors``, or without one ``pytorch_model.bin``); or a model on the hub:
    ``hf://owner/name``, ``hf://owner/name@revision``, ``hf://owner/name/file``. The library ``huggingface_hub`` caches
    models of the hub, so that the cached copy works without a network.

    Raises:
        ConfigError: no such file, or it cannot be fetched.
    """
    if source.startswith("hf://"):
        return _of_hub(source, name)
    path = Path(source)
    runs = [found.parent for found in path.glob(f"*/{RECORD}")]
    if len(runs) > 1:
        raise ConfigError(f"{name}={path.name!r} has {len(runs)} runs; accepted: one, or a folder of one")
    path = runs[0] if runs else path
    if (path / RECORD).is_file():
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
    downloaded = "a folder or a file of it that was downloaded"
    errors = require("huggingface_hub.errors", extra="hub", needed_by=f"{name}={source!r}", otherwise=downloaded)
    files = (parts["file"],) if parts["file"] else _SAVED
    reason, offline = f"it has no {' and no '.join(files)}", not hub.reachable()
    for file in files:
        try:
            return _fetched(parts["model"], parts["revision"], file, offline)
        except errors.LocalEntryNotFoundError:
            reason, offline = "it is not in the cache of the hub's library, and to fetch it a network is needed", True
        except errors.EntryNotFoundError:
            continue
        except Exception as error:  # dozens of kinds: of the network, the hub and the library
            reason = clean(f"{type(error).__name__}: {error}")[:200]
            break
    raise ConfigError(f"{name}={source!r} cannot be had: {reason}; accepted also: {downloaded}")


@functools.cache  # a process identifies a run by the very weights that it then starts from
def _fetched(model: str, revision: str | None, file: str, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, file, revision=revision, local_files_only=offline))


def record_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of a run's folder that holds weights; ``name`` is the setting, for messages.

    Raises:
        ConfigError: the run is damaged or has no weights.
    """
    try:
        record = verify(folder)
    except RecordError as error:
        raise ConfigError(f"{name}: the run {folder.name} cannot be read: its record {error}") from None
    if "weights.pt" not in record["files"]:
        raise ConfigError(f"{name}: the run {folder.name} ended as {record['status']} and left no weights")
    return record


States = Mapping[str, Mapping[str, Tensor]]


def read_state(path: Path) -> States:
    """Read every mapping of names to tensors in a file, at any depth, by its place there: ``""`` for the file itself,
    ``"state_dict"``, ``"ema.model"``. No code in the file is run.

    Raises:
        ConfigError: no such file, no such mapping in it, or content that cannot be loaded safely.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path.name!r}; accepted: a run's folder, or a file of weights")
    load = _loader(path)
    try:
        loaded = load(path)
    except Exception as error:
        raise ConfigError(f"{path.name!r} holds no weights that can be loaded safely: {_reason(error)}") from None
    found: dict[str, dict[str, Tensor]] = {}
    seen: set[int] = set()  # the same mapping at several places counts once
    left: list[tuple[str, Any]] = [("", loaded)]
    while left:
        place, node = left.pop()
        if id(node) in seen or not isinstance(node, Mapping | list | tuple):
            continue
        seen.add(id(node))
        items = {str(key): item for key, item in (node.items() if isinstance(node, Mapping) else enumerate(node))}
        if tensors := {key: item for key, item in items.items() if isinstance(item, Tensor)}:
            found[place] = tensors
        left += [(_joined(place, key), item) for key, item in reversed(items.items())]
    if not found:
        raise ConfigError(f"{path.name!r} holds no state dict; accepted: name -> tensor, alone or within a checkpoint")
    return found


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _loader(path: Path) -> Callable[[Path], Any]:
    if path.suffix != ".safetensors":
        return _load
    load: Callable[[Path], Any] = require("safetensors.torch", extra="hub", needed_by=repr(path.name)).load_file
    return load


def _load(path: Path) -> Any:
    import numpy as np

    # NumPy scalars, such as an accuracy beside the weights; under their names before and since NumPy 2
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    allowed += [type(np.dtype(code)) for code in "?bBhHiIlLqQefdg"]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if refused := re.search(r"GLOBAL (\S+)", text):
        return (
            f"it holds {refused[1]}, which is no tensor; accepted: a state dict alone; of a file that you trust, "
            "torch.save(torch.load(FILE, weights_only=False)[KEY], NEW) makes one"
        )
    return clean(f"{type(error).__name__}: {text.rpartition('WeightsUnpickler error:')[2]}")[:200]


def matched(states: States, network: nn.Module, name: str, *, key: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file under the network's own names.

    Strips the wrapper prefix, or the place in the file, that matches most keys in name and shape, and drops the other
    keys. Ignores what ``torch.compile`` and ``DataParallel`` add to names (``_orig_mod.``, ``module.``). The file may
    store a tied tensor under one of its names. Batch counts (``num_batches_tracked``), which older files lack, are the
    network's.

    Args:
        states: see :func:`read_state`.
        network: its names are used.
        name: the setting, for messages.
        key: the prefix to strip, without its last dot; ``.`` for none; None: the one that fits best.

    Raises:
        ConfigError: several prefixes fit equally well, with different tensors, or no key starts with ``key``.
    """
    tensors = {_joined(place, own): (t, place) for place, found in states.items() for own, t in found.items()}
    wanted = network.state_dict(keep_vars=True)
    ours, theirs = ({_unwrapped(full): full for full in names} for names in (wanted, tensors))
    if len(ours) < len(wanted) or len(theirs) < len(tensors):  # a name of their own
        ours, theirs = ({full: full for full in names} for names in (wanted, tensors))
    fits: dict[str, tuple[set[str], set[str]]] = {}  # for each prefix, the names that match, in shape too
    for full in theirs:
        parts = full.split(".")
        for own in (".".join(parts[i:]) for i in range(len(parts))):
            if own in ours:
                there, right = fits.setdefault(full.removesuffix(own), (set(), set()))
                there.add(own)
                if tensors[theirs[full]][0].shape == wanted[ours[own]].shape:
                    right.add(own)
    if key is not None:
        start = "" if key == "." else f"{_unwrapped(key)}."
        if start not in fits:
            raise ConfigError(f"{name} has nothing that fits at key={key}; accepted: {_listed(fits)}")
        fits = {start: fits[start]}
    if not fits:
        return {own: t for found in states.values() for own, t in found.items()}

    def rank(start: str) -> tuple[int, int]:
        return len(fits[start][1]), len(fits[start][0])

    best = max(fits, key=rank)

    def same(start: str) -> bool:
        return all(torch.equal(*(tensors[theirs[each + own]][0] for each in (start, best))) for own in fits[best][1])

    others = [start for start in fits if start != best and fits[start] == fits[best] and not same(start)]
    if others and 2 * len(fits[best][1]) > len(ours):
        raise ConfigError(f"{name} has several states that fit equally well; accepted: {_listed([best, *others])}")
    within = {tensors[theirs[best + own]][1] for own in fits[best][0]}  # the mappings that hold them
    chosen = {
        full.removeprefix(best): tensors[real][0]
        for full, real in theirs.items()
        if full.startswith(best) and tensors[real][1] in within
    }
    state = {ours.get(own, own): t for own, t in chosen.items()}
    first: dict[int, str] = {}
    for own in (own for own in state if own in wanted):
        other = first.setdefault(id(wanted[own]), own)
        if other != own and not torch.equal(state[own], state[other]):
            raise ConfigError(f"{name}: {other!r} and {own!r} differ, but are one tensor here: is it another model's?")
    return state | _not_stored(state, network)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def _listed(starts: Iterable[str]) -> str:
    return ", ".join(f"key={start.removesuffix('.') or '.'}" for start in starts)


def _not_stored(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a file may lack: further names of a tensor that it holds, and batch counts."""
    wanted = network.state_dict(keep_vars=True)
    stored = {id(wanted[own]): t for own, t in state.items() if own in wanted}
    found = {own: stored.get(id(t)) for own, t in wanted.items() if own not in state}
    counts = {own: wanted[own] for own in found if own.endswith("num_batches_tracked")}
    return counts | {own: t for own, t in found.items() if t is not None}
