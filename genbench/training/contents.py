"""Everything that a Python object holds, however deep: in lists, objects, closures, generators and modules."""

import hashlib
import sys
import types
import weakref
from bisect import bisect_right
from collections.abc import Hashable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# attributes that torch keeps in every module, and those of recurrent layers that follow the weights
OF_MODULES = frozenset({*vars(nn.Module()), "_flat_weights", "_flat_weight_refs"}) - {"training"}
_NUMBERS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, types.CodeType)
_NOT_IN_TRAINING = ("__init__", "__new__", "__init_subclass__", "extra_repr", "__repr__")  # functions of a class
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
# objects of these packages are not looked into: machinery whose state is not that of a training
_MACHINERY = ("pytorch_lightning", "lightning", "logging", "threading", "concurrent", "multiprocessing")


def is_foreign(module: nn.Module) -> bool:
    """Whether a module's class is neither genbench's nor torch's, so that nothing is known of what it does."""
    return _is_foreign(type(module))


def is_genbench(module: nn.Module) -> bool:
    """Whether a module's class is genbench's."""
    return _package(type(module)) == "genbench"


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object that are in its ``__dict__`` or in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ()) if _is_of_user(kind) else ()
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                found[name] = getattr(value, name)
    return found


def weight_hooks(p: Tensor | None) -> dict[str, list[Any]]:
    """The hooks of a weight, by their kind."""
    found = {kind: getattr(p, kind, None) for kind in _WEIGHT_HOOKS}
    return {kind: list(hooks.values()) for kind, hooks in found.items() if hooks}


class Opaque:
    """An object that Python cannot look into. It equals itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value  # kept, so that no other object gets its id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Whole:
    """All that a global object holds, as one leaf."""

    def __init__(self, leaves: dict[str, Hashable]) -> None:
        self.leaves = leaves

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whole) and self.leaves == other.leaves

    def __hash__(self) -> int:
        return len(self.leaves)


def alike(ours: Hashable, theirs: Hashable) -> bool:
    """Whether two leaves are equal, where objects that Python cannot look into are of one class."""
    if isinstance(ours, Opaque) and isinstance(theirs, Opaque):
        return type(ours.value) is type(theirs.value)
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        return all(map(alike, ours, theirs))
    return ours == theirs


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
        self._classes: dict[type, dict[str, Contents]] = {}
        self._globals: dict[int, tuple[Any, Whole]] = {}

    def read(self, value: Any) -> Contents:
        """What a value holds."""
        return self._reading(lambda reading: reading.visit("", value))

    def read_values(self, buffer: Tensor | None) -> Contents:
        """The values of a buffer of the owner."""
        return Contents({"": None if buffer is None else _of_tensor(buffer)}, {})

    def read_class(self, kind: type) -> dict[str, Contents]:
        """The data of a class and its bases and what each of their functions refers to, by name, as far as they are
        the user's own."""
        if kind not in self._classes:
            found: dict[str, Contents] = {}
            self._classes[kind] = found  # of a class whose functions name it: what is read of it by then
            for base in reversed(kind.__mro__):
                for name, value in vars(base).items() if _is_of_user(base) else ():
                    if name in _NOT_IN_TRAINING:
                        continue
                    found |= {name: self._reading(partial(_Reading.visit_member, path=name, value=value))}
        return self._classes[kind]

    def read_global(self, value: Any) -> "Whole":
        """What a global object holds, read once: many functions name it."""
        if id(value) not in self._globals:
            self._globals[id(value)] = value, Whole({})  # for what it holds that names it in turn
            self._globals[id(value)] = value, Whole(self.read(value).leaves)
        return self._globals[id(value)][1]

    def read_hooks(self, module: nn.Module) -> Contents:
        """The hooks of a module, and of its parameters."""

        def visit(reading: "_Reading") -> None:
            for kind in _HOOKS:
                reading.visit_all(f": {kind.strip('_')}", vars(module).get(kind, {}).values())
            for name, p in module._parameters.items():
                for kind, hooks in weight_hooks(p).items():
                    reading.visit_all(f": {kind.strip('_')} of {name}", hooks)

        return self._reading(visit)

    def read_parameters(self, module: nn.Module) -> Contents:
        """Which parameters of its own a module has, which are trained, and their Python attributes."""

        def visit(reading: "_Reading") -> None:
            for name, p in module._parameters.items():
                reading.leaves[f" {name}"] = Opaque(p), p is not None and p.requires_grad
                if p is not None:
                    reading.visit_attributes(f" {name}", p)

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
        elif type(value) in _NUMBERS:
            self.leaves[path] = type(value).__name__, repr(value) if isinstance(value, float | complex) else value
        elif (first := self._seen.get(id(value))) is not None:
            self.leaves[path] = "the same as", first
        else:
            self._seen[id(value)] = path
            self._kept.append(value)
            try:
                self._visit(path, value)
            except Exception:  # of many kinds: what cannot be copied cannot be read
                self.leaves.setdefault(path, Opaque(value))

    def visit_all(self, path: str, values: Iterable[Any]) -> None:
        for index, value in enumerate(values):
            self.visit(f"{path}[{index}]", value)

    def visit_member(self, *, path: str, value: Any) -> None:
        """A member of a class: data, or what a function refers to."""
        for function in (value.fget, value.fset) if isinstance(value, property) else (value,):
            function = getattr(function, "__func__", getattr(function, "__wrapped__", function))
            if isinstance(function, types.FunctionType):
                self.visit_names("", function)
            elif not path.startswith("__") and not path.startswith("_abc_") and _is_data(function):
                self.visit("", function)

    def visit_names(self, path: str, function: types.FunctionType) -> None:
        """What a function refers to: its closure, defaults, attributes, and global data of the user's own."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self.visit(f"{path}.{name}", value)
        self.visit_all(f"{path} default", function.__defaults__ or ())
        for name, value in (function.__kwdefaults__ or {}).items():
            self.visit(f"{path}.{name}", value)
        self.visit_attributes(path, function)
        if _is_of_user(function):
            for name in sorted(_names(function.__code__)):
                value = function.__globals__.get(name)
                if value is not None and not name.startswith("__") and (_is_data(value) or _is_of_user(value)):
                    self.leaves[f"{path}.{name}"] = self._reader.read_global(value)

    def visit_attributes(self, path: str, value: Any) -> None:
        """What :func:`attributes_of` an object are."""
        for name, inner in attributes_of(value).items():
            self.visit(f"{path}.{name}", inner)

    def _visit(self, path: str, value: Any) -> None:
        kind = type(value)
        self.leaves[path] = kind.__module__, kind.__qualname__
        if isinstance(value, Tensor):
            self.leaves[path] = _of_tensor(value)
            self.visit_attributes(path, value)
            if value.is_leaf and value.grad is not None:
                self.visit(f"{path}.grad", value.grad)
        elif isinstance(value, torch.Generator):
            self.leaves[path] = _of_tensor(value.get_state())
        elif isinstance(value, nn.Module):
            self.visit(path, {k: v for k, v in vars(value).items() if k not in _HOOKS})
        elif isinstance(value, type):
            self.leaves[path] = "class", Opaque(value)
            for name, contents in self._reader.read_class(value).items() if _is_of_user(value) else ():
                self.leaves |= {f"{path}.{name}{place}": leaf for place, leaf in contents.leaves.items()}
        elif isinstance(value, types.FunctionType):
            self.leaves[path] = "function", value.__code__
            self.visit_names(path, value)
        elif isinstance(value, types.MethodType):
            self.visit(f"{path}.__self__", value.__self__)
            self.visit(f"{path}.__func__", value.__func__)
        elif isinstance(value, types.GeneratorType):
            self.leaves[path] = "generator", value.gi_code, value.gi_frame and value.gi_frame.f_lasti
            self.visit(path + " locals", dict(value.gi_frame.f_locals) if value.gi_frame else None)
        elif isinstance(value, types.ModuleType):
            self.leaves[path] = "module", value.__name__
        elif isinstance(value, weakref.ReferenceType):
            self.visit(f"{path}()", value())
        elif isinstance(value, memoryview):
            self.leaves[path] = value.tobytes()
        elif hasattr(value, "cache_info") and hasattr(value, "__wrapped__"):  # functools.lru_cache
            self.visit(path + ".__wrapped__", value.__wrapped__)
        elif _package(kind) in _MACHINERY or isinstance(value, torch.utils.hooks.RemovableHandle):
            self.leaves[path] = Opaque(value)
        else:
            self._visit_object(path, value)

    def _visit_object(self, path: str, value: Any) -> None:
        """The attributes of an object, and what containers and pickle hold of it."""
        if type(value).__module__ != "builtins":
            self.visit_attributes(path, value)
        if isinstance(value, Mapping | types.MappingProxyType):
            self.leaves[f"{path} keys"] = tuple(key if isinstance(key, str) else "" for key in value)
            for index, (key, inner) in enumerate(value.items()):
                if not isinstance(key, str):
                    self.visit(f"{path} key {index}", key)
                self.visit(f"{path}[{key!r}]" if isinstance(key, str) else f"{path}[{index}]", inner)
            if hasattr(value, "default_factory"):
                self.visit(f"{path}.default_factory", value.default_factory)
        elif isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
            self.leaves[f"{path} length"] = len(value)
            self.visit_all(path, value)
        elif isinstance(value, set | frozenset):
            self.leaves[f"{path} length"] = len(value)
            self.visit_all(path, sorted(value, key=repr))
        else:
            reduced = value.__reduce_ex__(4)
            if isinstance(reduced, str):
                self.leaves[f"{path} name"] = getattr(value, "__module__", None), reduced
                return
            _, args, state, items, pairs = (*reduced, None, None, None)[:5]
            self.visit_all(f"{path} from", args)
            if not isinstance(state, dict) or state.keys() != getattr(value, "__dict__", {}).keys():
                self.visit(f"{path}.", state)
            self.visit_all(path, items or ())
            self.visit(path + " items", dict(pairs) if pairs else None)


def _of_tensor(tensor: Tensor) -> Hashable:
    """Type, shape and a digest of the values."""
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
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


def _is_data(value: Any) -> bool:
    """Whether an object may hold the state of a training, which functions, classes and modules of others do not."""
    return not isinstance(value, type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType | classmethod)


def _package(kind: Any) -> str:
    return str(getattr(kind, "__module__", None) or "").partition(".")[0]


def _is_foreign(kind: Any) -> bool:
    package = _package(kind)
    return package not in ("genbench", "torch", "numpy") and package not in sys.stdlib_module_names


def _is_of_user(kind: Any) -> bool:
    """Whether a foreign class or function is of no installed package, whose caches are no state of a training."""
    file = getattr(sys.modules.get(getattr(kind, "__module__", None) or ""), "__file__", None) or ""
    return _is_foreign(kind) and "site-packages" not in file
