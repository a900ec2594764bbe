"""What modules keep in Python, beside the tensors that a checkpoint holds anyway: plain attributes, hooks, classes."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map

from genbench.training.contents import OF_MODULES, Contents, Opaque, Reader, is_foreign

# names by which code gets at all attributes or buffers of a module at once
WHOLE = ("__dict__", "_buffers", "buffers", "named_buffers", "recall", "state_dict")


class Unsavable(ValueError):
    """A method or network keeps state that a checkpoint cannot hold; the message is one line."""


class Key(NamedTuple):
    """One thing that a module keeps.

    Attributes:
        module: its index in the lane's.
        kind: "attribute"; "buffer", one that a state dict leaves out; "class", the data of its class; "hooks";
            "frozen", which of its own parameters are trained; "loss", of the lane.
        name: of the attribute or buffer.
    """

    module: int
    kind: str
    name: str


class Attributes:
    """What the modules of a lane keep in Python at this time, to find what changes from now on.

    Args:
        modules: the methods of a lane, and the parts of its network and methods that are foreign.
        owner: the lane. Its modules, parameters and buffers are not the state of an attribute that refers to them.
        loss: the loss of the lane.

    Attributes:
        modules: all of the lane's, those of the argument first.
    """

    def __init__(self, modules: Sequence[nn.Module], owner: nn.Module, loss: Any) -> None:
        self._owner, self._loss, self._watched = owner, loss, len(modules)
        others = {id(module): module for module in owner.modules()}
        for module in modules:
            others.pop(id(module), None)
        self.modules = [*modules, *others.values()]
        self._before = self._states()

    def changed(self, *, buffers: bool = False) -> list[Key]:
        """What is new, gone or has changed; of buffers only on demand, as they may change."""
        states = self._states()
        return [
            key
            for key in dict.fromkeys((*states, *self._before))
            if self._leaves(states, key) != self._leaves(self._before, key) and (buffers or key.kind != "buffer")
        ]

    @contextmanager
    def reading(self, reads: set[Key]) -> Iterator[None]:
        """Add to ``reads`` what is read of the modules' attributes, buffers included, within the context."""
        watched = {id(module): index for index, module in enumerate(self.modules[: self._watched])}

        def note(module: nn.Module, name: str) -> None:
            reader = sys._getframe(2).f_globals.get("__name__", "").partition(".")[0]
            if id(module) in watched and (name not in WHOLE or reader not in ("genbench", "torch")):
                reads.add(Key(watched[id(module)], "attribute", name))

        with contextlib.ExitStack() as stack:
            for kind in {type(module) for module in self.modules[: self._watched]}:
                stack.enter_context(_observed(kind, note))
            yield

    def difference(self, other: "Attributes") -> str | None:
        """The first thing that another lane's modules, of the same classes, keep and these do not, or None. Plain
        attributes of genbench's own methods are left out."""
        for key, (leaves, _) in self._before.items():
            if key.kind == "attribute" and not is_foreign(self.modules[key.module]):
                continue
            theirs = self._leaves(other._before, key)
            for path in dict.fromkeys((*leaves, *theirs)):
                a, b = leaves.get(path), theirs.get(path)
                if a != b and not (isinstance(a, Opaque) and isinstance(b, Opaque) and type(a.value) is type(b.value)):
                    return f"{self.title(key)}{path}"
        return None

    def buffers(self) -> dict[tuple[int, str], Tensor | None]:
        """The buffers of all modules at the time of this call, by module and name."""
        return {(i, name): buffer for i, module in enumerate(self.modules) for name, buffer in module._buffers.items()}

    def aliases(self) -> Iterator[tuple[str, str]]:
        """The plain attributes of foreign modules that refer to tensors of the lane, with the names of these."""
        tensors = {name for name, _ in (*self._owner.named_parameters(), *self._owner.named_buffers())}
        for key, contents in self._before.items():
            if key.kind == "attribute" and is_foreign(self.modules[key.module]):
                yield from ((f"{self.title(key)}{path}", n) for path, n in contents.own.items() if n in tensors)

    def title(self, key: Key) -> str:
        """A key as messages name it."""
        if key.kind == "loss":
            return "the loss"
        ends = {"class": "", "hooks": "'s hooks", "frozen": ".requires_grad"}
        return f"{type(self.modules[key.module]).__name__}{ends.get(key.kind, f'.{key.name}')}"

    def save(self) -> list[list[Any]]:
        """Return what has changed for a checkpoint.

        Raises:
            Unsavable: names what a checkpoint cannot hold.
        """
        saved: list[list[Any]] = []
        states = self._states()
        for key in self.changed(buffers=True):
            if key not in states and key.kind == "attribute":
                saved.append([key.module, key.name])
                continue
            value = getattr(self.modules[key.module], key.name) if key.kind in ("attribute", "buffer") else None
            if key.kind == "buffer":
                saved.append([key.module, key.name, value, True])
            elif key.kind != "attribute" or states[key].own or not _is_plain(value):
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

    @staticmethod
    def _leaves(states: dict[Key, Contents], key: Key) -> dict[str, Any]:
        return states[key].leaves if key in states else {}

    def _states(self) -> dict[Key, Contents]:
        reader = Reader(self._owner)
        states = {Key(-1, "loss", ""): reader.read(self._loss)}
        classes = {type(module): reader.read_class(type(module)) for module in self.modules if is_foreign(module)}
        for index, module in enumerate(self.modules):
            states[Key(index, "hooks", "")] = reader.read_hooks(module)
            flags = {name: p is not None and p.requires_grad for name, p in module._parameters.items()}
            states[Key(index, "frozen", "")] = Contents(dict(flags), {})
            if index < self._watched:
                for name in [name for name in vars(module) if name not in OF_MODULES]:
                    states[Key(index, "attribute", name)] = reader.read(vars(module)[name])
                for name in module._non_persistent_buffers_set:
                    states[Key(index, "buffer", name)] = reader.read(_copied(module._buffers.get(name)))
            if is_foreign(module):
                states[Key(index, "class", "")] = classes[type(module)]
        return states


@contextmanager
def _observed(kind: Any, note: Callable[[Any, str], None]) -> Iterator[None]:
    """Call ``note`` with the object and the name of each attribute that is read of an object of the class ``kind``."""
    own, get = vars(kind).get("__getattribute__"), kind.__getattribute__

    def getattribute(self: Any, name: str) -> Any:
        note(self, name)
        return get(self, name)

    kind.__getattribute__ = getattribute
    try:
        yield
    finally:
        if own is None:
            del kind.__getattribute__
        else:
            kind.__getattribute__ = own


def register_missing(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Register the buffers of a checkpoint that the module has not yet, as some are registered in training."""
    for name in state.keys() - module.state_dict().keys():
        owner, _, last = name.rpartition(".")
        with contextlib.suppress(AttributeError):  # of a module that is not there: loading says it
            module.get_submodule(owner).register_buffer(last, torch.empty_like(state[name]))


def _copied(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


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
