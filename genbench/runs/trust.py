"""Check the configurations of other people: they may name data, never code.

A record, like any file, may come from anybody, and Hydra calls whatever ``_target_`` names. The user's own records
carry a mark (``genbench.records.ownership``). Others are checked here, without importing anything that they name.
"""

import ast
import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from genbench.checks import ConfigError
from genbench.config import KEYED, folder

_LIBRARIES = {  # components of other libraries that genbench's own choices use
    "optimizer": re.compile(r"torch\.optim\.[A-Z]\w*|pytorch_optimizer\.(Lion|SOAP|ScheduleFreeAdamW|ScheduleFreeSGD)"),
    "trainer": re.compile(r"pytorch_lightning\.Trainer"),
}
_ROOMS = {  # the modules that define the components of each kind
    "data": "genbench.data",
    "model": "genbench.models",
    "optimizer": "genbench.training.muon",
    "scheduler": "genbench.training.schedule",
    "regularization": "genbench.regularization",
    "measures": "genbench.measures",
    "callbacks": "genbench.callbacks",
    "reducers": "genbench.measures.trajectory",
    "logger": "genbench.loggers",
    "settings of data": "genbench.data",
}
_LOOK_UP = "hydra.utils.get_method"  # looks up a measure by ``path``
_PARTIAL = ("optimizer", "scheduler", "measures")  # kinds that are completed later
_PARTS = ("data", "model", "optimizer", "scheduler", "trainer")  # groups with one component
_PLAIN = ("_convert_", "_recursive_")  # Hydra's keys that call nothing
_LOCATIONS = ("path", "source", "hub")
_WORD = re.compile(r"[\w+-]*|sha256:[0-9a-f]+")
_METRIC = re.compile(r"(train|val|test|all|weights)(/\w[\w.+-]*)+")
_PACKAGE = Path(__file__).parents[1]


def check(config: Mapping[str, Any], *, name: str) -> None:
    """Refuse another user's configuration if it names anything but genbench's own components, or a place to read from;
    ``name`` is the record in the message.

    Every ``_target_``, nested ones too, must be defined in genbench (or be an optimizer or the Trainer that its own
    choices use) and fit its group. Nothing is imported before all of them are known to.

    Raises:
        ConfigError: the refused name, in one line.
    """
    found = list(_nodes(config))
    parts = {name: config.get(name) for name in (*_PARTS, *KEYED)}
    faults = [f"{part}={value!r}" for part, value in parts.items() if not isinstance(value or {}, Mapping)]
    faults += [fault for node, kind, path in found if (fault := _fault(node, kind, path))]
    if not faults:
        faults = [fault for node, kind, path in found if (fault := _other_kind(node, kind, path))]
    faults += [f"{path}={value!r}" for path, value in _places(config, "")]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ConfigError(
            f"{name} was not written by you, and names what is not genbench's own: {'; '.join(faults[:3])}{more}; "
            "accepted: trust=true, if you know who wrote it: what it names is then run as you; a place of data is "
            "given on the command line instead (data.path=…)"
        )


def _nodes(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Yield every mapping that Hydra would act on, the expected kind of component, and its dotted path."""
    if isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from _nodes(value, (*path, str(index)))
    elif isinstance(config, Mapping):
        if any(isinstance(key, str) and re.fullmatch("_.*_", key) for key in config):
            yield config, _kind(path), ".".join(path)
        for key, value in config.items():
            yield from _nodes(value, (*path, str(key)))


def _kind(path: tuple[str, ...]) -> str:
    """Return the group of the component at a path; empty without one."""
    if len(path) == 4 and path[0] == "callbacks" and path[2] == "measures":
        return "measures"
    if path[:1] + path[2:3] == ("callbacks", "metrics") and (len(path) == 4 or path[4:] == ("when",)):
        return "reducers"
    if len(path) in (2, 3) and path[0] == "data":  # signals, and the start and the end of those that drift
        return "settings of data"
    return path[0] if len(path) == (2 if path and path[0] in KEYED else 1) else ""


def _fault(node: Mapping[str, Any], kind: str, path: str) -> str | None:
    """Return the part of a node that is not genbench's, judged by its words alone."""
    for key, value in node.items():
        if not isinstance(key, str):
            return f"{path} has the key {key!r}"
        if not re.fullmatch("_.*_", key) or (key in _PLAIN and isinstance(value, bool | str)):
            continue
        if key == "_partial_" and isinstance(value, bool) and (kind in _PARTIAL or not value):
            continue
        if key != "_target_":
            return f"{path}.{key}={value!r}"
    target = _target(node, kind)
    if isinstance(target, str) and (_listed(target, kind) or _in_room(target, kind)):
        return None
    looked_up = "" if target == node.get("_target_") else f" of {target!r}"
    return f"{path}._target_={node.get('_target_')!r}{looked_up}"


def _in_room(target: str, kind: str) -> bool:
    module, _ = defined(target) or ("", "")
    return kind in _ROOMS and f"{module}.".startswith(f"{_ROOMS[kind]}.")


def _target(node: Mapping[str, Any], kind: str) -> Any:
    """Return the dotted name that is called, or for a measure looked up."""
    if kind == "measures" and node.get("_target_") == _LOOK_UP:
        return node.get("path")
    return node.get("_target_")


def _listed(target: str, kind: str) -> bool:
    return kind in _LIBRARIES and _LIBRARIES[kind].fullmatch(target) is not None


def _other_kind(node: Mapping[str, Any], kind: str, path: str) -> str | None:
    """Return the fault of a component of genbench or torch.optim that is of another kind than its group's; imports
    it."""
    target = _target(node, kind)
    if not target.startswith(("genbench.", "torch.")):
        return None
    module, name = defined(target) or target.rpartition(".")[::2]
    fits = _fits(getattr(importlib.import_module(module), name, None), kind)
    return None if fits else f"{path}._target_={target!r}, which is none of {kind}"


def _fits(component: Any, kind: str) -> bool:
    from pytorch_lightning import Callback, LightningDataModule
    from pytorch_lightning.loggers import Logger
    from torch import nn, optim

    from genbench.regularization import Method

    bases = {
        "data": LightningDataModule,
        "model": nn.Module,
        "regularization": Method,
        "callbacks": Callback,
        "logger": Logger,
        "optimizer": optim.Optimizer,
    }
    if kind == "settings of data":
        return isinstance(component, type) and is_dataclass(component)
    if kind == "reducers":
        return isinstance(component, type) and hasattr(component, "metrics")
    if isinstance(component, type):
        return kind in bases and issubclass(component, bases[kind])
    if kind == "measures":
        return callable(component) and hasattr(component, "family")
    return callable(component) and kind in ("optimizer", "scheduler")


@functools.cache
def defined(target: str) -> tuple[str, str] | None:
    """Return the module of genbench that defines a class or function, and its name there; None without one.

    Judged by genbench's source: ``genbench.config.json.codecs.open`` can be reached so, but is defined elsewhere.

    >>> defined("genbench.models.MLP"), defined("genbench.config.json.codecs.open")
    (('genbench.models.mlp', 'MLP'), None)
    """
    parts = target.split(".")
    if parts[0] != "genbench" or not all(re.fullmatch(r"[A-Za-z]\w*", part, re.ASCII) for part in parts):
        return None
    seen: set[tuple[str, str]] = set()
    module, name = ".".join(parts[:-1]), parts[-1]
    while (module, name) not in seen and (tree := _tree(module)) is not None:
        seen.add((module, name))
        origin = None
        for node in tree.body:  # the last definition counts, as at run time
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                origin = (module, name)
            elif (
                isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "genbench"
            ):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        origin = (str(node.module), alias.name)
        if origin is None or origin == (module, name):
            return origin
        module, name = origin
    return None


def _tree(module: str) -> ast.Module | None:
    """Parse the source of a module of genbench."""
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if module.split(".")[0] == "genbench" and file.is_file():
            return ast.parse(file.read_bytes())
    return None


def _places(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings that may name a place to read from or resolve to something else: all but plain words."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            below = f"{path}.{key}" if path else str(key)
            if str(key) in _LOCATIONS and node.get("_target_") != _LOOK_UP:
                if not (value is None or value in _hubs() or (isinstance(value, str) and value.startswith("sha256:"))):
                    yield below, value
            elif key not in ("_target_", "_convert_") and not (key == "path" and node.get("_target_") == _LOOK_UP):
                yield from _places(value, below)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _places(value, f"{path}.{index}")
    elif isinstance(node, str) and not (_WORD.fullmatch(node) or (_of_metric(path) and _METRIC.fullmatch(node))):
        yield path, node


def _of_metric(path: str) -> bool:
    """Whether a setting names a metric of a history."""
    return path.startswith("callbacks.") and path.endswith(".metric")


@functools.cache
def _hubs() -> frozenset[str]:
    """Return the hub names of genbench's own choices."""
    texts = (file.read_text() for file in (folder() / "data").glob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"^hub: ([\w.-]+/[\w.-]+)", text, re.MULTILINE))
