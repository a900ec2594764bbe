"""Read, set and restore the state of random generators: the global ones, and those that loaders and modules hold."""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.module_state import restore_fully


@contextmanager
def restoring_random_state(batches: object = None) -> Iterator[None]:
    """Restore Python's, NumPy's and torch's global random state, and that of a loader's own generators."""
    state = random_state()
    try:
        with restoring_generators(generators_of(batches)):
            yield
    finally:
        restore_fully(lambda: set_random_state(state))


@contextmanager
def restoring_generators(generators: Iterable["Generator"]) -> Iterator[None]:
    """Restore the state of generators on leaving the context."""
    before = [(g, g.get_state()) for g in generators]

    def restore() -> None:
        for generator, state in before:
            generator.set_state(state)

    try:
        yield
    finally:
        restore_fully(restore)


def random_state() -> tuple[Any, ...]:
    """The global state of Python's, NumPy's, torch's and CUDA's generators."""
    # a state of the CUDA generators exists once CUDA is in use
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def set_random_state(state: tuple[Any, ...]) -> None:
    """Set what :func:`random_state` returned."""
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def seed_all(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@dataclass(frozen=True)
class Generator:
    """A random generator of torch, NumPy or Python under the interface of torch's."""

    held: Any

    def get_state(self) -> Any:
        if isinstance(self.held, random.Random):
            return self.held.getstate()
        return self.held.bit_generator.state if isinstance(self.held, np.random.Generator) else self.held.get_state()

    def set_state(self, state: Any) -> None:
        if isinstance(self.held, random.Random):
            self.held.setstate(state)
        elif isinstance(self.held, np.random.Generator):
            self.held.bit_generator.state = state
        else:
            self.held.set_state(state)

    def manual_seed(self, seed: int) -> None:
        if isinstance(self.held, torch.Generator):
            self.held.manual_seed(seed)
        elif isinstance(self.held, np.random.Generator):
            self.held.bit_generator.state = type(self.held.bit_generator)(seed).state
        else:
            self.held.seed(seed)


_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# attributes of wrappers with __getattr__ that may hold generators, of the order or of augmentation
_PARTS = ("parts", "dataset", "datasets", "sampler", "batch_sampler", "transform", "target_transform", "transforms")
_NO_OWNERS = (Tensor, np.ndarray, ModuleType, type, str, bytes, int, float, type(None))
_LOOKED_AT = 1000  # objects


def held_by(*owners: object) -> list[Generator]:
    """The generators among the attributes of objects, those of their classes, and what their classes' methods know
    globally."""
    held = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
    for kind in dict.fromkeys(map(type, owners)):
        held += vars(kind).values()
        held += [value for method in vars(kind).values() for value in _known_to(method)]
    return [Generator(value) for value in held if _draws(value)]


def _draws(value: Any) -> bool:
    kind: Any = type(value)
    return _is_drawing(kind)


@lru_cache(maxsize=4096)  # torch's generator takes a microsecond to say that something is no instance of it
def _is_drawing(kind: type) -> bool:
    return issubclass(kind, _KINDS) and not issubclass(kind, random.SystemRandom)  # which has no state


def _known_to(function: Any) -> list[Any]:
    """Objects that a function refers to: in its closure, its defaults, and the generators among its globals."""
    if not isinstance(function, FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    names = [function.__globals__.get(name) for name in function.__code__.co_names]
    drawing = [value for value in names if _draws(value)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *drawing]


def generators_of(batches: object) -> list[Generator]:
    """The generators of loaders, their samplers, data sets, transforms and everything these hold, each once."""
    found: dict[int, Generator] = {}
    owners: deque[Any] = deque([batches])
    seen: dict[int, Any] = {}
    while owners and len(seen) < _LOOKED_AT:
        owner = owners.popleft()
        if id(owner) in seen or isinstance(owner, _NO_OWNERS):
            continue
        seen[id(owner)] = owner
        if _draws(owner):
            found[id(owner)] = Generator(owner)
        elif isinstance(owner, dict | list | tuple):
            owners += list(islice(owner.values() if isinstance(owner, dict) else owner, 100))  # transforms, and no data
        elif isinstance(owner, FunctionType):
            owners += _known_to(owner)
        elif isinstance(owner, MethodType):
            owners += [owner.__self__, owner.__func__]
        elif isinstance(owner, partial):
            owners += [owner.func, owner.args, owner.keywords]
        else:
            found |= {id(generator.held): generator for generator in held_by(owner)}
            for name in _PARTS:
                with suppress(Exception):  # a property may raise anything
                    owners += [part] if (part := getattr(owner, name, None)) is not None else []
            owners += [value for key, value in getattr(owner, "__dict__", {}).items() if key != "_iterator"]
    return list(found.values())
