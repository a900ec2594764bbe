"""Nothing is changed by measuring: a network and the random state, put back as they were."""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench.module_state import attributes_of, restore_attributes, restore_fully

_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")  # of torch's own
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("hooks", "hooks_with_kwargs", "always_called")))


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restores parameters and buffers with their values and places, gradients, modes, hooks, plain attributes (tensors,
    lists, dicts and sets with what is in them), and generators of random numbers that modules have. Hooks on the
    parameters' own gradients do not act meanwhile: what they make of a gradient is for the optimizer."""
    modules = list(model.modules())
    python = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    modes = [(m, m.training) for m in modules]
    sparse = [(m, m.sparse) for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    hooks = [(getattr(m, name), getattr(m, name).copy()) for m in python for name in _HOOKS]
    places = [(held, dict(held)) for m in python for held in (m._parameters, m._buffers)]
    attributes, generators = attributes_of(python), [*_own_generators(python), *_contents(python)]
    live = [*model.parameters(), *model.buffers()]
    saved = [
        (t, t.data, t.detach().clone(), t.requires_grad, t.grad, None if t.grad is None else t.grad.clone())
        for t in live
    ]
    watched = [(t, t._backward_hooks) for t in live if t._backward_hooks]

    def restore() -> None:
        for module, training in modes:
            module.training = training
        for embedding, was in sparse:
            embedding.sparse = was
        for current, entries in [*hooks, *places]:
            if not _same_entries(current, entries):
                current.clear()
                current.update(entries)
        restore_attributes(attributes)
        with torch.no_grad():
            for tensor, data, value, requires_grad, grad, grad_value in saved:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data
                _copy(tensor, value)
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if grad is not None and grad_value is not None:
                    _copy(grad, grad_value)
                if tensor.grad is not grad:
                    tensor.grad = grad
        for tensor, entries in watched:
            tensor._backward_hooks = entries
        for put_back in generators:
            put_back()

    try:
        for tensor, _ in watched:
            tensor._backward_hooks = None
        yield
    finally:
        restore_fully(restore)


def _same_entries(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    return list(a) == list(b) and all(a[key] is b[key] for key in a)


def _copy(tensor: Tensor, value: Tensor) -> None:
    if not torch.equal(tensor, value):  # copying would count as a change of the tensor
        tensor.copy_(value)


def _contents(modules: list[nn.Module]) -> list[Any]:
    """What puts back the content of each attribute that a forward pass may change in place."""
    found: list[Any] = []
    for module in modules:
        for key, value in vars(module).items():
            if key in _TABLES:
                continue
            if isinstance(value, Tensor) and value.is_leaf:
                found.append(partial(_copy_back, value, value.detach().clone()))
            elif type(value) in (list, dict, set, deque):
                found.append(partial(_refill, value, value.copy()))
    return found


def _copy_back(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape == value.shape and not tensor.is_sparse:
        with torch.no_grad():
            _copy(tensor, value)


def _refill(held: Any, before: Any) -> None:
    pairs = (
        zip(held.items(), before.items(), strict=False) if isinstance(held, dict) else zip(held, before, strict=False)
    )
    if len(held) == len(before) and all(_is(a, b) for a, b in pairs):
        return
    held.clear()
    held.extend(before) if isinstance(held, list | deque) else held.update(before)


def _is(a: Any, b: Any) -> bool:
    return all(map(_is, a, b)) if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 2 else a is b


@contextmanager
def plain_kernels(device: torch.device) -> Iterator[None]:
    """No autocast and none of torch's shortcuts of inference: both keep weights, or compute another function, where
    gradients are not wanted. What ``parametrize.cached`` has kept is not used either."""
    parametrize: Any = torch.nn.utils.parametrize
    fast, cached = torch.backends.mha.get_fastpath_enabled(), parametrize._cache_enabled

    def restore() -> None:
        torch.backends.mha.set_fastpath_enabled(fast)
        parametrize._cache_enabled = cached

    try:
        torch.backends.mha.set_fastpath_enabled(False)
        parametrize._cache_enabled = 0
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        restore_fully(restore)


def _own_generators(modules: list[nn.Module]) -> list[Any]:
    """What puts back the state of each generator that a module has as an attribute."""
    return [partial(g.set_state, g.get_state()) for module in modules for g in _held_by(module)]


@contextmanager
def preserved_random_state(batches: object = None) -> Iterator[None]:
    """Restores Python's, NumPy's and torch's global random state, and that of a loader's own generators."""
    state = random_state()
    try:
        with preserved_generators(generators_of(batches)):
            yield
    finally:
        restore_fully(lambda: set_random_state(state))


@contextmanager
def preserved_generators(generators: Iterable["Generator"]) -> Iterator[None]:
    """Restores the state of generators."""
    before = [(g, g.get_state()) for g in generators]

    def restore() -> None:
        for generator, state in before:
            generator.set_state(state)

    try:
        yield
    finally:
        restore_fully(restore)


def random_state() -> tuple[Any, ...]:
    # a state of the CUDA generators exists once CUDA is in use
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def seed_all(seed: int) -> None:
    """Seeds every global generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@dataclass(frozen=True)
class Generator:
    """A random generator of torch, NumPy or Python that somebody holds, under torch's names."""

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
# where wrappers that look up their attributes keep what draws: order and augmentation
_PARTS = ("parts", "dataset", "datasets", "sampler", "batch_sampler", "transform", "target_transform", "transforms")
_NO_OWNERS = (Tensor, np.ndarray, ModuleType, type, str, bytes, int, float, type(None))
_LOOKED_AT = 1000  # objects


def _held_by(owner: object) -> list[Generator]:
    """The generators among an object's attributes, its class's, and what its class's methods know globally."""
    own = getattr(owner, "__dict__", {})
    held = [*own.values(), *vars(type(owner)).values()]
    held += [value for method in vars(type(owner)).values() for value in _known_to(method)]
    return [Generator(value) for value in held if _draws(value)]


def _draws(value: Any) -> bool:
    return isinstance(value, _KINDS) and not isinstance(value, random.SystemRandom)  # which has no state


def _known_to(function: Any) -> list[Any]:
    """What a function refers to: in its closure, its defaults, and among the globals of its module."""
    if not isinstance(function, FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    names = [function.__globals__.get(name) for name in function.__code__.co_names]
    drawing = [value for value in names if _draws(value)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *drawing]


def generators_of(batches: object) -> list[Generator]:
    """The generators of loaders, their samplers, data sets, transforms and whatever these hold, each once."""
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
            found |= {id(generator.held): generator for generator in _held_by(owner)}
            for name in _PARTS:
                with suppress(Exception):  # a property of somebody's that asks for more
                    owners += [part] if (part := getattr(owner, name, None)) is not None else []
            owners += [value for key, value in getattr(owner, "__dict__", {}).items() if key != "_iterator"]
    return list(found.values())
