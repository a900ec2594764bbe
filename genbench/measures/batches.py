"""The batches that a snapshot is measured on, the same at every pass over them."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from genbench.measures.examples import copied, mapped, tensors_of
from genbench.measures.pytree import leaves
from genbench.measures.random_state import (
    generators_of,
    random_state,
    restoring_generators,
    restoring_random_state,
    set_random_state,
)
from genbench.process.memory import room

_SHARE = 1 / 8  # of the free memory, for kept batches
_END = object()
_PLAIN = (Tensor, np.ndarray, str, bytes, int, float, type(None))  # leaves that a fingerprint compares
_SAMPLE = 64  # entries of a tensor in its fingerprint


class Batches:
    """The batches of a list or a loader, the same at every pass.

    An iterator is read at once. All passes over a loader start from the same random state: Python's, NumPy's, torch's
    and that of the generators found in the loader. An augmentation with a fresh generator, or a worker that lives on,
    may draw other numbers all the same. The batches of the first complete pass are therefore kept, within an eighth of
    the free memory; beyond it, every pass is compared with the first.

    Attributes:
        kept: the batches once they are kept, else None.

    Raises:
        ValueError: no batches, or a pass that differs from the first.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._source = batches
        self.kept: Sequence[Any] | None = batches if isinstance(batches, list | tuple) else None
        if isinstance(batches, Iterator):
            with restoring_random_state():
                self.kept = [copied(batch) for batch in batches]  # one buffer may serve all of them
        self._first: list[Any] | None = None  # fingerprints of the first complete pass
        self._generators = [] if self.kept is not None else generators_of(batches)
        self._start = None if self.kept is not None else self._state()

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for batch in self.kept if self.kept is not None else self._read():
            empty = False
            yield batch
        if empty:
            raise ValueError("batches is empty; accepted: at least one batch")

    def _read(self) -> Iterator[Any]:
        source, state = None, self._start
        found: list[Any] = []  # fingerprints of this pass
        batches: list[Any] | None = []
        left = 0
        while True:
            # the loader must draw the same numbers whatever others draw
            with restoring_random_state(), restoring_generators(self._generators):
                self._set(state)
                if source is None:
                    source = iter(fresh_workers(self._source))
                batch = next(source, _END)
                state = self._state()
            if batch is _END:
                break
            index = len(found)
            found.append(_digest(batch))
            if self._first is not None and found[index:] != self._first[index : index + 1]:
                raise _differing(index)
            if index == 0:
                left = _budget(batch)
            left -= _bytes(batch)
            if left < 0:
                batches = None
            elif batches is not None:
                batches.append(mapped(_private, batch))
            yield batch
        if self._first is not None and len(found) != len(self._first):
            raise _differing(len(found))
        self._first = found
        if (
            batches is not None and [_digest(batch) for batch in batches] == found
        ):  # else the loader has written all of them into one buffer
            self.kept = batches

    def _state(self) -> tuple[Any, list[Any]]:
        return random_state(), [generator.get_state() for generator in self._generators]

    def _set(self, state: Any) -> None:
        everybody, own = state
        set_random_state(everybody)
        for generator, each in zip(self._generators, own, strict=True):
            generator.set_state(each)


class BatchesWithTargets(Batches):
    """Pairs of each batch of other :class:`Batches` and a new target for it."""

    def __init__(self, batches: Batches, targets: Sequence[Any]) -> None:
        super().__init__([])
        self.kept, self._batches, self._targets = None, batches, targets

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return zip(self._batches, self._targets, strict=True)


def fresh_workers(loader: Any) -> Any:
    """Copy a loader with persistent workers, whose only iterator training may be using; return others as they are.

    The copy starts its workers anew at each pass, so that they repeat their random numbers.
    """
    if not isinstance(loader, DataLoader) or not loader.persistent_workers:
        return loader
    own = copy.copy(loader)
    vars(own).update(_iterator=None, persistent_workers=False)
    return own


def _private(tensor: Tensor) -> Tensor:
    """Copy a worker's tensor out of shared memory, which is scarce."""
    return tensor.clone() if tensor.device.type == "cpu" and tensor.is_shared() else tensor


def _budget(batch: Any) -> int:
    tensors = tensors_of(batch)
    return int(_SHARE * room(tensors[0].device if tensors else torch.device("cpu")))


def _differing(index: int) -> ValueError:
    return ValueError(
        f"batches differ from pass to pass (batch {index}): the loader draws random numbers that no seed repeats, and "
        "is too large to be kept; accepted: augmentation with torch's or NumPy's global generator, or a list of batches"
    )


def _known(batch: Any, depth: int = 3) -> list[Any]:
    """The plain values, arrays and tensors of a batch, also those that other objects hold, ``depth`` levels down."""
    found: list[Any] = []
    for leaf in leaves(batch):
        if isinstance(leaf, _PLAIN):
            found.append(leaf)
        elif depth:
            found += _known(list(getattr(leaf, "__dict__", {}).values()), depth - 1)
    return found


def _bytes(batch: Any) -> int:
    return sum(leaf.nbytes for leaf in _known(batch) if isinstance(leaf, Tensor | np.ndarray))


def _digest(batch: Any) -> list[Any]:
    """A fingerprint of a batch: plain values, each array's bytes, and each tensor's shape, sum and some entries."""
    return [_of(leaf) if isinstance(leaf, Tensor) else _of_plain(leaf) for leaf in _known(batch)]


def _of_plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return repr(value)
    return value.shape, repr(value.tolist()) if value.dtype.hasobject else hash(value.tobytes())


def _of(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        return (tensor.layout,)
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, len(flat) // _SAMPLE)].clone().view(torch.uint8)
    narrow = flat.dtype.is_floating_point and flat.dtype.itemsize == 1  # which torch does not add up
    return tuple(tensor.shape), repr((flat.float() if narrow else flat).sum().item()), sample.cpu().numpy().tobytes()
