"""What modules keep in plain Python attributes, beside the tensors and modules that torch keeps for them."""

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map

OF_MODULES = frozenset(vars(nn.Module()))  # attributes that torch keeps in every module


class Unsavable(ValueError):
    """A method or network keeps state that a checkpoint cannot hold; the message is one line."""


def is_foreign(module: nn.Module) -> bool:
    """Whether a module's class is neither genbench's nor torch's, so that nothing is known of what it does."""
    return type(module).__module__.partition(".")[0] not in ("genbench", "torch")


class Attributes:
    """The plain attributes of modules at this time, to find those that change from now on, be it inside a list, a dict
    or another object that can be pickled.

    Args:
        modules: the methods of a lane, and the parts of its network and methods that are foreign.
        owner: the lane. Its modules, parameters and buffers are not the state of an attribute that refers to them.
    """

    def __init__(self, modules: Sequence[nn.Module], owner: nn.Module) -> None:
        self._modules, self._owner = list(modules), owner
        self._before = self._states()

    def changed(self) -> list[tuple[int, str]]:
        """The attributes that are new or have changed, as index of the module and name."""
        return [key for key, state in self._states().items() if self._content(key) != state.content]

    def title(self, key: tuple[int, str]) -> str:
        """An attribute as messages name it."""
        index, name = key
        return f"{type(self._modules[index]).__name__}.{name}"

    def save(self) -> list[list[Any]]:
        """Return the changed attributes for a checkpoint.

        Raises:
            Unsavable: names an attribute that a checkpoint cannot hold.
        """
        saved, states = [], self._states()
        for key in self.changed():
            index, name = key
            value = vars(self._modules[index])[name]
            if states[key].refers or not _is_plain(value):
                raise Unsavable(
                    f"{self.title(key)} changes in training, and no checkpoint can hold this {type(value).__name__}: "
                    "a run that is interrupted starts again; accepted: buffers (self.register_buffer), or numbers, "
                    "text, tensors, and lists, dicts and sets of them"
                )
            on_device = tree_any(lambda leaf: isinstance(leaf, Tensor) and leaf.device.type != "cpu", value)
            saved.append([index, name, value, on_device])
        return saved

    def load(self, saved: Sequence[Sequence[Any]], device: torch.device) -> None:
        """Set the attributes that :meth:`save` returned. Tensors that were on a device move to this one."""
        for index, name, value, on_device in saved:
            moved = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)
            setattr(self._modules[index], name, moved if on_device else value)

    def _content(self, key: tuple[int, str]) -> bytes | None:
        return self._before[key].content if key in self._before else None

    def _states(self) -> "dict[tuple[int, str], _State]":
        own = {id(t) for t in (*self._owner.parameters(), *self._owner.buffers())}
        return {
            (index, name): _state(value, own)
            for index, module in enumerate(self._modules)
            for name, value in vars(module).items()
            if name not in OF_MODULES
        }


class _State(NamedTuple):
    """A value at one time.

    Attributes:
        content: bytes that are equal as long as the value does not change; they are never read.
        held: the objects that ``content`` knows by their ids, which no other object may get.
        refers: whether the value refers to modules, or to parameters or buffers of the lane.
    """

    content: bytes
    held: list[Any]
    refers: bool


class _Pickler(pickle.Pickler):
    """Writes modules and the lane's own tensors as their ids, and other tensors as their ids and versions."""

    def __init__(self, file: io.BytesIO, own: set[int]) -> None:
        super().__init__(file)
        self._own = own
        self.held: list[Any] = []
        self.refers = False

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, nn.Module | Tensor):
            return None
        self.held.append(value)
        if isinstance(value, nn.Module) or id(value) in self._own:
            self.refers = True
            return id(value)
        return id(value), 0 if value.is_inference() else value._version


def _state(value: Any, own: set[int]) -> _State:
    file = io.BytesIO()
    pickler = _Pickler(file, own)
    try:
        pickler.dump(value)
    except Exception:  # of a type that cannot be pickled: only another object is a change
        return _State(f"object {id(value)}".encode(), [value], pickler.refers)
    return _State(file.getvalue(), pickler.held, pickler.refers)


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
