"""Everything that a Python object holds, however deep: in lists, objects, closures, generators and modules."""

import hashlib
import sys
import types
import weakref
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

OF_MODULES = frozenset(vars(nn.Module()))  # attributes that torch keeps in every module
_PLAIN = (bool, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, types.CodeType)
_DATA = (int, *_PLAIN, list, tuple, dict, set, frozenset, Tensor, np.ndarray)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def is_foreign(module: nn.Module) -> bool:
    """Whether a module's class is neither genbench's nor torch's, so that nothing is known of what it does."""
    return _is_foreign(type(module))


class Opaque:
    """An object that Python cannot look into. It equals itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value  # kept, so that no other object gets its id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __str__(self) -> str:
        return f"another {type(self.value).__name__}"


class Contents(NamedTuple):
    """What an object holds at one time.

    Attributes:
        leaves: where -> what; equal as long as nothing changes.
        own: where a tensor or module of the lane is referred to -> its name.
    """

    leaves: dict[str, Hashable]
    own: dict[str, str]


class Reader:
    """Reads what objects hold. Tensors and modules of ``owner`` are read as their names, other tensors by their
    values, and functions by their code, closures, defaults and the global data that they name."""

    def __init__(self, owner: nn.Module) -> None:
        self._modules = {id(module): name or "lane" for name, module in owner.named_modules()}
        tensors = dict([*owner.named_parameters(), *owner.named_buffers()])
        self._tensors = {id(t): name for name, t in tensors.items()}
        spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes, name) for name, t in tensors.items() if _address(t))
        self._starts, self._spans = [start for start, *_ in spans], spans

    def read(self, value: Any) -> Contents:
        """What a value holds."""
        return self._reading(lambda reading: reading.visit("", value))

    def read_class(self, kind: type) -> Contents:
        """The data of a class and its bases and what their methods refer to, as far as they are the user's own."""

        def visit(reading: "_Reading") -> None:
            for base in kind.__mro__:
                if _is_of_user(base):
                    for name, value in vars(base).items():
                        value = getattr(value, "__func__", getattr(value, "fget", value))
                        if isinstance(value, (types.FunctionType, *_DATA)) and not name.startswith("__"):
                            reading.visit(f".{name}", value)
                        elif isinstance(value, types.FunctionType):
                            reading.visit_names(f".{name}", value)

        return self._reading(visit)

    def read_hooks(self, module: nn.Module) -> Contents:
        """The hooks of a module, and of its parameters."""

        def visit(reading: "_Reading") -> None:
            for kind in _HOOKS:
                reading.visit_all(f": {kind.strip('_')}", vars(module).get(kind, {}).values())
            for name, p in module._parameters.items():
                if p is not None:
                    for kind in _WEIGHT_HOOKS:
                        reading.visit_all(f": {kind.strip('_')} of {name}", (getattr(p, kind, None) or {}).values())

        return self._reading(visit)

    def _reading(self, visit: Any) -> Contents:
        reading = _Reading(self)
        visit(reading)
        return Contents(reading.leaves, reading.own)

    def name_of(self, value: Any) -> str | None:
        """The name of a module or tensor of the owner, of a view of one, or of the number that is its id."""
        if isinstance(value, nn.Module):
            return self._modules.get(id(value))
        if isinstance(value, int):
            return self._tensors.get(value, self._modules.get(value))
        if (name := self._tensors.get(id(value))) is not None or not (address := _address(value)):
            return name
        place = bisect_right(self._starts, address) - 1
        return self._spans[place][2] if place >= 0 and address < self._spans[place][1] else None


class _Reading:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: dict[int, str] = {}
        self._kept: list[Any] = []  # no other object gets the id of one that was seen
        self.leaves: dict[str, Hashable] = {}
        self.own: dict[str, str] = {}

    def visit(self, path: str, value: Any) -> None:
        if isinstance(value, int | nn.Module | Tensor) and (name := self._reader.name_of(value)) is not None:
            self.own[path], self.leaves[path] = name, ("of the lane", name)
        elif isinstance(value, (int, *_PLAIN)):
            self.leaves[path] = type(value).__name__, value if value == value else str(value)
        elif (first := self._seen.get(id(value))) is not None:
            self.leaves[path] = "the same as", first
        else:
            self._seen[id(value)] = path
            self._kept.append(value)
            try:
                self._visit(path, value)
            except Exception:  # of many kinds: what cannot be copied cannot be read
                self.leaves[path] = Opaque(value)

    def visit_all(self, path: str, values: Iterable[Any]) -> None:
        for index, value in enumerate(values):
            self.visit(f"{path}[{index}]", value)

    def visit_names(self, path: str, function: types.FunctionType) -> None:
        """What a function refers to: its closure, defaults, attributes, and global data of its module."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self.visit(f"{path}.{name}", value)
        self.visit_all(f"{path} default", function.__defaults__ or ())
        self.visit(f"{path} default", function.__kwdefaults__)
        self.visit(f"{path} attributes", vars(function))
        if _is_of_user(function):
            for name in sorted(_names(function.__code__)):
                if isinstance(value := function.__globals__.get(name), _DATA) and not name.startswith("__"):
                    self.visit(f"{path}.{name}", value)

    def _visit(self, path: str, value: Any) -> None:
        if isinstance(value, Tensor):
            self.leaves[path] = _of_tensor(value)
        elif isinstance(value, torch.Generator):
            self.leaves[path] = _of_tensor(value.get_state())
        elif isinstance(value, nn.Module):
            self.visit(path, {k: v for k, v in vars(value).items() if k not in _HOOKS})
        elif isinstance(value, Mapping) and type(value).__name__ in ("dict", "OrderedDict", "defaultdict", "Counter"):
            self.leaves[path] = type(value).__name__, len(value)
            for index, (key, inner) in enumerate(value.items()):
                if not isinstance(key, str):
                    self.visit(f"{path} key {index}", key)
                self.visit(f"{path}[{key!r}]" if isinstance(key, str) else f"{path}[{index}]", inner)
        elif isinstance(value, list | tuple):
            self.leaves[path] = type(value).__name__, len(value)
            self.visit_all(path, value)
        elif isinstance(value, set | frozenset):
            self.leaves[path] = type(value).__name__, len(value)
            self.visit_all(path, sorted(value, key=repr))
        elif isinstance(value, types.FunctionType):
            self.leaves[path] = "function", value.__code__
            self.visit_names(path, value)
        elif isinstance(value, types.MethodType):
            self.visit(f"{path}.__self__", value.__self__)
            self.visit(f"{path}.__func__", value.__func__)
        elif isinstance(value, types.GeneratorType):
            self.leaves[path] = "generator", value.gi_code, value.gi_frame and value.gi_frame.f_lasti
            self.visit(path, dict(value.gi_frame.f_locals) if value.gi_frame else None)
        elif isinstance(value, type | types.ModuleType):
            self.leaves[path] = getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)
        elif isinstance(value, weakref.ReferenceType) or _package(type(value)) in ("pytorch_lightning", "lightning"):
            self.leaves[path] = Opaque(value)
        else:
            self._visit_parts(path, value)

    def _visit_parts(self, path: str, value: Any) -> None:
        """What pickle would write of an object."""
        self.leaves[path] = type(value).__module__, type(value).__qualname__
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self.leaves[f"{path} name"] = getattr(value, "__module__", None), reduced
            return
        function, args, state, items, pairs = (*reduced, None, None, None)[:5]
        self.visit(f"{path} made by", function)
        self.visit(f"{path} from", args)
        self.visit(f"{path}.", state)
        self.visit_all(path, items or ())
        self.visit(path + " items", dict(pairs) if pairs else None)


def _of_tensor(tensor: Tensor) -> Hashable:
    """Type, shape and a digest of the values."""
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, hashlib.blake2b(plain.data).digest()


def _address(tensor: Tensor) -> int:
    """Where the values of a tensor lie; 0 if it has none, or they are nowhere, as those of a traced tensor."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def _names(code: types.CodeType) -> set[str]:
    """The names that a function and the functions within it read, global ones among them."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*inner)


def _package(kind: Any) -> str:
    return str(getattr(kind, "__module__", None) or "").partition(".")[0]


def _is_foreign(kind: Any) -> bool:
    package = _package(kind)
    return package not in ("genbench", "torch", "numpy") and package not in sys.stdlib_module_names


def _is_of_user(kind: Any) -> bool:
    """Whether a foreign class or function is of no installed package, whose caches are no state of a training."""
    file = getattr(sys.modules.get(getattr(kind, "__module__", None) or ""), "__file__", None) or ""
    return _is_foreign(kind) and "site-packages" not in file
