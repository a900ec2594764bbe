"""Restore a network after measuring: tensors, gradients, modes, hooks, attributes and generators."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genbench.measures.random_state import held_by
from genbench.module_state import attributes_of, restore_attributes, restore_fully, same_entries

_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")  # of torch's own
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("hooks", "hooks_with_kwargs", "always_called")))


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Restore a network on leaving the context.

    Restored: parameters and buffers with their values and places, gradients, modes, hooks, plain attributes (tensors,
    lists, dicts and sets with their content), and the modules' random generators. Hooks on the parameters' gradients
    are off within the context: they change gradients for the optimizer.
    """
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
            if not same_entries(current, entries):
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


def _copy(tensor: Tensor, value: Tensor) -> None:
    if tensor.is_sparse or not torch.equal(tensor, value):  # copying would count as a change of the tensor
        tensor.copy_(value)


def _contents(modules: list[nn.Module]) -> list[Any]:
    """Functions that restore the content of each attribute that a forward pass may change in place."""
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
    """Turn off autocast, torch's inference shortcuts and the cache of ``parametrize.cached``.

    Without gradients they keep weights, or compute another function.
    """
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
    """Functions that restore the state of each generator among the modules' attributes."""
    return [partial(g.set_state, g.get_state()) for g in held_by(*modules)]
