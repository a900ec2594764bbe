"""Imports in a command's processes that take seconds: quicker, and without what is never used."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

from genbench.process.collecting import paused


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Switch off garbage collection during imports: they create a million lasting objects, and collecting takes a tenth
    of the start. Later collections pass them over; the one at the end of the process took two seconds for torch's."""
    known = len(sys.modules)
    with paused():
        try:
            yield
        finally:
            if len(sys.modules) > known:  # else what is frozen may be the garbage of an earlier run, which would last
                gc.freeze()


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Import torchmetrics, which Lightning imports, without what it imports for one name each: ``scipy.signal`` for an
    alias, ``matplotlib`` for annotations and its plots. It takes a quarter of the start.

    Until the end of the block stand-ins have these places, with the names that it reads while it is imported. A name
    that they lack gives the place back to the module itself: another torchmetrics is imported more slowly, no worse.
    """
    parts = [part for part in (_signal(), _matplotlib()) if not any(name in sys.modules for name in part)]
    standing = {name: module for part in parts for name, module in part.items()}
    sys.modules.update(standing)
    try:
        yield
    finally:
        _leave()


class _StandIn(ModuleType):
    """Stands for a module that is imported when another of its attributes than ``known`` is read."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known, __spec__=ModuleSpec(name, None))  # for those who ask whether there is such a module

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # inspect asks all modules for it
            raise AttributeError(name)
        _leave()
        return getattr(importlib.import_module(self.__name__), name)


def _leave() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]


def _signal() -> dict[str, ModuleType]:
    return {"scipy.signal": _StandIn("scipy.signal", hamming=None)}  # torchmetrics adds one where it is missing


def _matplotlib() -> dict[str, ModuleType]:
    @contextlib.contextmanager
    def context(*args: Any, **settings: Any) -> Iterator[None]:
        with importlib.import_module("matplotlib.style").context(*args, **settings):
            yield

    parts = {
        "axes": _StandIn("matplotlib.axes", Axes=_class("matplotlib.axes", "Axes")),
        "colors": _StandIn("matplotlib.colors", Colormap=_class("matplotlib.colors", "Colormap")),
        "pyplot": _StandIn(
            "matplotlib.pyplot", Figure=_class("matplotlib.figure", "Figure"), style=SimpleNamespace(context=context)
        ),
    }
    return {"matplotlib": _StandIn("matplotlib", **parts), **{part.__name__: part for part in parts.values()}}


def _class(module: str, name: str) -> type:
    """Return a class with the instances of another, which is imported when that is asked."""

    class Instances(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, getattr(importlib.import_module(module), name))

    return Instances(name, (), {})
