"""What modules keep in Python, beside the tensors that a checkpoint holds anyway: plain attributes, hooks, classes."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map

from genbench.training.contents import (
    OF_MODULES,
    Contents,
    Opaque,
    Reader,
    alike,
    attributes_of,
    is_foreign,
    is_genbench,
)

# names by which code gets at all attributes or buffers of a module at once
WHOLE = ("__dict__", "_buffers", "buffers", "named_buffers", "recall", "state_dict")
# functions of a class that are not called in a step
_BETWEEN = ("build", "after_epoch", "finish", "identity", "scheduler")


class Unsavable(ValueError):
    """A method or network keeps state that a checkpoint cannot hold; the message is one line."""


class Key(NamedTuple):
    """One thing that a module keeps.

    Attributes:
        module: its index in the lane's.
        kind: "attribute"; "buffer", one that a state dict leaves out; "class", data of its class, or what a function of
            the class refers to; "hooks"; "parameters", which it has and which are trained; "modules", its parts;
            "loss", of the lane.
        name: of the attribute, buffer, or member of the class.
    """

    module: int
    kind: str
    name: str = ""

    @property
    def of_step(self) -> bool:
        """Whether a step may see it, if it is not an attribute."""
        return self.kind not in ("attribute", "buffer") and not (self.kind == "class" and self.name in _BETWEEN)


def _all_but_buffers(key: Key) -> bool:
    return key.kind != "buffer"


class Attributes:
    """What the modules of a lane keep in Python at this time, to find what changes from now on.

    Args:
        modules: those of the lane that come first: its methods, and the foreign parts of its network and methods.
            Attributes of other modules of genbench are not looked at.
        owner: the lane. Its modules, parameters and buffers are not the state of an attribute that refers to them.
        loss: the loss of the lane.

    Attributes:
        modules: all of the lane's.
    """

    def __init__(self, modules: Sequence[nn.Module], owner: nn.Module, loss: Any) -> None:
        self._owner, self._loss = owner, loss
        others = {id(module): module for module in owner.modules()}
        for module in (owner, *modules):
            others.pop(id(module), None)
        self.modules, self._first = [*modules, *others.values()], len(modules)
        self._before = self._states(lambda key: True)

    def changed(self, among: Callable[[Key], bool] = _all_but_buffers) -> list[Key]:
        """What is new, gone or has changed ``among`` some keys; by default all but buffers, which may change."""
        states = self._states(among)
        return [key for key in self._changed(states) if among(key)]

    @contextmanager
    def reading(self, reads: set[Key]) -> Iterator[set[Key]]:
        """Add to ``reads`` the attributes, buffers included, that are read within the context before it sets them;
        give those that it sets first."""
        places = {id(module): index for index, module in enumerate(self.modules)}
        first: set[Key] = set()

        def read(module: nn.Module, name: str) -> None:
            reader = sys._getframe(2).f_globals.get("__name__", "").partition(".")[0]
            if (place := places.get(id(module))) is not None and (
                name not in WHOLE or reader not in ("genbench", "torch")
            ):
                reads.update({Key(place, "attribute", name)} - first)

        def write(module: nn.Module, name: str) -> None:
            if (place := places.get(id(module))) is not None:
                first.update({Key(place, "attribute", name)} - reads)

        with contextlib.ExitStack() as stack:
            for kind in {type(module) for module in self.modules}:
                stack.enter_context(_observed(kind, read, write))
            yield first

    def differences(self, other: "Attributes") -> dict[Key, str]:
        """What modules of another lane, of the same structure, keep otherwise, with a name of each."""
        found = {}
        for key, (leaves, _) in self._before.items():
            shared = key.kind == "class" and type(self.modules[key.module]) is type(other.modules[key.module])
            if shared or key.kind == "modules":
                continue
            theirs = _leaves(other._before, key)
            for path in dict.fromkeys((*leaves, *theirs)):
                if not alike(leaves.get(path), theirs.get(path)):
                    found[key] = f"{self.title(key)}{path}"
                    break
        return found

    def aliases(self) -> dict[Key, tuple[str, str]]:
        """The plain attributes that refer to tensors of the lane: a name of the attribute, and of the tensor."""
        tensors = {name for name, _ in (*self._owner.named_parameters(), *self._owner.named_buffers())}
        return {
            key: (f"{self.title(key)}{path}", name)
            for key, contents in self._before.items()
            if key.kind == "attribute"
            for path, name in contents.own.items()
            if name in tensors
        }

    def buffers(self) -> dict[tuple[int, str], Tensor | None]:
        """The buffers of all modules at the time of this call, by module and name."""
        return {(i, name): buffer for i, module in enumerate(self.modules) for name, buffer in module._buffers.items()}

    def title(self, key: Key) -> str:
        """A key as messages name it."""
        if key.kind == "loss":
            return "the loss"
        ends = {"hooks": "'s hooks", "parameters": "'s parameters", "modules": "'s parts"}
        return f"{type(self.modules[key.module]).__name__}{ends.get(key.kind, f'.{key.name}')}"

    def save(self) -> list[list[Any]]:
        """Return what has changed for a checkpoint.

        Raises:
            Unsavable: names what a checkpoint cannot hold.
        """
        saved: list[list[Any]] = []
        states = self._states(lambda key: True)
        for key in self._changed(states):
            if key not in states and key.kind == "attribute":
                saved.append([key.module, key.name])
                continue
            value = getattr(self.modules[key.module], key.name) if key.kind in ("attribute", "buffer") else None
            if key.kind == "buffer":
                saved.append([key.module, key.name, value, True])
            elif key.kind != "attribute" or states[key].own or _has_gradient(states[key]) or not _is_plain(value):
                what = f"this {type(value).__name__}" if key.kind == "attribute" else "it"
                raise Unsavable(
                    f"{self.title(key)} changes in training, and no checkpoint can hold {what}: "
                    "a run that is interrupted starts again; accepted: buffers (self.register_buffer), or numbers, "
                    "text, tensors, and lists, dicts and sets of them"
                )
            else:
                on_device = tree_any(lambda leaf: isinstance(leaf, Tensor) and leaf.device.type != "cpu", value)
                saved.append([key.module, key.name, value, on_device])
        return saved

    def load(self, saved: Sequence[Sequence[Any]], device: torch.device) -> None:
        """Set what :meth:`save` returned. Tensors that were on a device move to this one."""
        for index, name, *rest in saved:
            module = self.modules[index]
            if not rest:
                delattr(module, name)
            elif (buffer := module._buffers.get(name)) is not None:
                buffer.copy_(rest[0])
            else:
                value, on_device = rest
                moved = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)
                setattr(module, name, moved if on_device else value)

    def _changed(self, states: Mapping[Key, Contents]) -> list[Key]:
        keys = dict.fromkeys((*states, *self._before))
        return [key for key in keys if _leaves(states, key) != _leaves(self._before, key)]

    def _states(self, among: Callable[[Key], bool]) -> dict[Key, Contents]:
        reader = Reader(self._owner)
        readers: dict[Key, Callable[[], Contents]] = {Key(-1, "loss"): partial(reader.read, self._loss)}
        for index, module in enumerate(self.modules):
            readers[Key(index, "hooks")] = partial(reader.read_hooks, module)
            readers[Key(index, "parameters")] = partial(reader.read_parameters, module)
            parts: dict[str, Any] = {f".{name}": Opaque(part) for name, part in module._modules.items()}
            readers[Key(index, "modules")] = partial(Contents, parts, {})
            for name, value in attributes_of(module).items() if index < self._first or not is_genbench(module) else ():
                if name not in OF_MODULES:
                    readers[Key(index, "attribute", name)] = partial(reader.read, value)
            for name in module._non_persistent_buffers_set:
                readers[Key(index, "buffer", name)] = partial(reader.read_values, module._buffers.get(name))
        states = {key: read() for key, read in readers.items() if among(key)}
        for index, module in enumerate(self.modules):
            if is_foreign(module) and among(Key(index, "class")):
                for name, contents in reader.read_class(type(module)).items():
                    if among(Key(index, "class", name)):
                        states[Key(index, "class", name)] = contents
        return states


def _leaves(states: Mapping[Key, Contents], key: Key) -> dict[str, Any]:
    return states[key].leaves if key in states else {}


@contextmanager
def _observed(kind: Any, read: Callable[[Any, str], None], write: Callable[[Any, str], None]) -> Iterator[None]:
    """Call ``read`` or ``write`` with the object and the name of each attribute that is read or set of an object of the
    class ``kind``."""
    own = {name: vars(kind)[name] for name in ("__getattribute__", "__setattr__") if name in vars(kind)}
    get, set_ = kind.__getattribute__, kind.__setattr__

    def getattribute(self: Any, name: str) -> Any:
        read(self, name)
        return get(self, name)

    def setattribute(self: Any, name: str, value: Any) -> None:
        write(self, name)
        set_(self, name, value)

    kind.__getattribute__, kind.__setattr__ = getattribute, setattribute
    try:
        yield
    finally:
        for name in ("__getattribute__", "__setattr__"):
            if name in own:
                setattr(kind, name, own[name])
            else:
                delattr(kind, name)


def register_missing(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Register the buffers of a checkpoint that the module has not yet, as some are registered in training."""
    for name in state.keys() - module.state_dict().keys():
        owner, _, last = name.rpartition(".")
        with contextlib.suppress(AttributeError):  # of a module that is not there: loading says it
            module.get_submodule(owner).register_buffer(last, torch.empty_like(state[name]))


def _has_gradient(contents: Contents) -> bool:
    return any(path.endswith(".grad") for path in contents.leaves)


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint gives this value back, which is read without running code."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # of many kinds, by what the value refuses
        return False
    return True
