"""The configuration: its root, what identifies a run, and what is refused."""

import atexit
import fnmatch
import functools
import importlib.util
import inspect
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, Container, DictConfig, OmegaConf

from genbench.checks import ConfigError, missing_extra, nearest
from genbench.privacy import clean
from genbench.process import leftovers

# What cannot change a run's numbers, and so is no part of its identity or its record.
EXCLUDED = (
    "name",
    "runs_dir",
    "logger",
    "table",
    "claims",
    "paper",
    "sources",  # the networks made from them have digests
    "measures",  # a callback that takes them lists them
    "checkpoint_seconds",
    "callbacks.*.log_details",
    "data.path",  # the content of the data has a digest
    "trainer.logger",
    "trainer.callbacks",
    "trainer.plugins",
    "trainer.profiler",
    "trainer.default_root_dir",
    "trainer.enable_checkpointing",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.enable_autolog_hparams",
    "trainer.log_every_n_steps",
    "trainer.model_registry",
)
_EXCLUDED = re.compile("|".join(map(fnmatch.translate, EXCLUDED)))
# Arguments that the experiment passes when it builds a component.
PASSED = {
    "model": ("input_shape", "classes", "target_shape"),
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "measures": ("snapshot", "other", "train"),  # a second network is not a setting
    "callbacks": ("network", "count"),  # of somebody else's module
    "logger": ("run",),
}
# Optional packages that targets come from, and the extra that installs each.
EXTRAS = {"pytorch_optimizer": "optimizers"}
# Groups with one component a run.
PARTS = ("data", "model", "optimizer", "scheduler", "trainer")
# Groups whose choices are named entries, so that several combine.
KEYED = ("regularization", "measures", "callbacks", "logger")
_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


@dataclass
class Config:
    """The root of the configuration; a key that is not here is refused."""

    data: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    regularization: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = MISSING
    name: str = "default"
    runs_dir: str = "runs"
    seed: int = 0
    threads: int = 1
    checkpoint_seconds: float = 10.0
    sources: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] | None = None
    claims: dict[str, Any] | None = None
    paper: dict[str, Any] | None = None


@dataclass
class MeasureConfig:
    """The root of ``conf/measure.yaml``."""

    checkpoint: str = MISSING
    key: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    initial: str | None = None
    loss: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    examples: Any = "auto"
    pictures: dict[str, Any] | None = None
    logger: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    n_jobs: int = 2
    device: str = "auto"
    trust: bool = False
    seed: int = 0
    threads: int = 1


@functools.cache
def _scratch() -> str:
    """Make a folder that is removed when the process ends; after a kill, the next command removes it."""
    leftovers.remove(Path(tempfile.gettempdir()).glob(".genbench-scratch-*"))
    while True:
        folder = tempfile.mkdtemp(prefix=".genbench-scratch-")
        if leftovers.hold(os.open(folder, os.O_RDONLY), Path(folder)):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder


ConfigStore.instance().store(name="schema", node=Config)
ConfigStore.instance().store(name="measure_schema", node=MeasureConfig)
OmegaConf.register_new_resolver("scratch", _scratch, replace=True)


def one_line(error: BaseException) -> str:
    """``Type: message`` without line breaks and without paths of this machine."""
    if isinstance(error, SystemExit):
        return f"SystemExit: the run called exit({error.code!r})"
    text = clean(str(error)) or "no message"
    return f"{type(error).__name__}: {text[:300]}" if not isinstance(error, ConfigError) else text


def folder() -> Path:
    """Return the folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def choices(group: str) -> dict[str, Path]:
    """The file of each choice of a group by name; files whose names begin with ``_`` are included by choices."""
    return {path.stem: path for path in sorted((folder() / group).glob("*.yaml")) if not path.name.startswith("_")}


def resolve(composed: DictConfig) -> dict[str, Any]:
    """Return the plain values of a composed configuration, with interpolations resolved and Hydra's own node removed.

    A top-level key that is no setting (``+width=64``) serves interpolations (``${width}``) and is then removed.

    Raises:
        ConfigError: such a key that nothing refers to; a missing setting or group.
    """
    known = [each.name for each in fields(OmegaConf.get_type(composed))]  # type: ignore[arg-type]
    for key in map(str, composed):
        if key not in (*known, "hydra") and not re.search(rf"\${{{key}\b", OmegaConf.to_yaml(composed)):
            raise ConfigError(f"{key} is not a setting, and no setting refers to it; {nearest(key, known)}")
    for key in known:
        if OmegaConf.is_missing(composed, key) or key not in composed:
            accepted = ", ".join(choices(key)) or "a run's folder, or a file of weights"
            raise ConfigError(f"{key} is not given; accepted: {key}={accepted}")
    return {key: _plain(composed[key]) for key in known}


_FIXED: dict[int, tuple[Container, Any]] = {}


def fix(node: Container) -> None:
    """Keep the plain values of a node without interpolations, which :func:`resolve` then gives, the same object, for
    each configuration that holds the node: those of a large node take longer than all others."""
    _FIXED[id(node)] = node, OmegaConf.to_container(node)


def _plain(node: Any) -> Any:
    fixed = _FIXED.get(id(node))
    if fixed is not None and fixed[0] is node:
        return fixed[1]
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, Container) else node


def bind(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with each component's defaults filled in from its signature, without ``EXCLUDED``.

    Raises ConfigError for a setting that its component does not take, a target that cannot be imported, or a number
    that is not finite.
    """
    for group in KEYED:
        entries = config.get(group) or {}
        for name, node in entries.items():
            # a callback may be null, and Measures refuses such a measure
            if node is None and group in ("regularization", "logger"):
                raise ConfigError(f"{group}.{name} is null; accepted: ~{group}.{name}, which takes it out")
            if node is not None and (not isinstance(node, Mapping) or "_target_" not in node):
                chosen = [key for key, other in entries.items() if isinstance(other, Mapping) and "_target_" in other]
                raise ConfigError(f"{group}.{name} is not chosen, so it cannot be set; {nearest(name, chosen)}")
    # what is excluded is checked too; claims are when they are registered
    bound = {key: _bind(value, (key,)) for key, value in config.items() if key != "claims"}
    if bound.get("callbacks"):
        nodes = bound["callbacks"].items()
        bound["callbacks"] = {key: node for key, node in nodes if not node or not is_bar(get_object(node["_target_"]))}
    return {key: value for key, value in bound.items() if key not in EXCLUDED}


def bind_part(key: str, node: Any) -> Any:
    """Return what stands at a top-level key as :func:`bind` does, be it excluded or not."""
    return _bind(node, (key,))


def _bind(node: Any, path: tuple[Any, ...]) -> Any:
    name = ".".join(map(str, path))  # keys may be numbers, such as those of a figure's names
    if isinstance(node, float):
        if not math.isfinite(node):
            raise ConfigError(f"{name}={node} is not a finite number")
        return int(node) if node.is_integer() else node  # 1.0 is 1
    if isinstance(node, Mapping):
        settings = {key: value for key, value in node.items() if key not in _HYDRA}
        defaults: dict[str, Any] = {}
        if "_target_" in node:
            if not isinstance(node["_target_"], str) or not node["_target_"]:
                raise ConfigError(
                    f"{name}._target_ is {node['_target_']!r}; accepted: the dotted name of a class or a function"
                )
            defaults = defaults_of(
                node["_target_"], settings, name, PASSED.get(path[0], ()), bool(node.get("_partial_"))
            )
        merged = {**defaults, **settings}
        bound = {
            key: _bind(value, (*path, key)) for key, value in merged.items() if not _EXCLUDED.match(f"{name}.{key}")
        }
        return {**{key: node[key] for key in _HYDRA if key in node}, **bound}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_bind(value, (*path, str(index))) for index, value in enumerate(node)]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    # a default that is no plain value: its name stands for it
    return getattr(node, "__qualname__", None) or repr(node)


def is_bar(target: Any) -> bool:
    """Tell whether a callback's class is one of Lightning's progress bars, which change no number."""
    bases = getattr(target, "__mro__", ())
    return any(base.__name__ == "ProgressBar" and base.__module__.startswith("pytorch_lightning.") for base in bases)


def signature(function: Any) -> list[inspect.Parameter]:
    """Return the parameters of a callable; a class that passes ``**settings`` on to its base takes the base's too."""
    found = dict(inspect.signature(function).parameters)
    bases = iter(function.__mro__[1:] if inspect.isclass(function) else ())
    while any(p.kind is p.VAR_KEYWORD for p in found.values()):
        base = next((b for b in bases if "__init__" in vars(b)), object)
        if base is object:
            break
        found = {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}
        found = {**inspect.signature(base).parameters, **found}
    return list(found.values())


def defaults_of(
    target: str, settings: Mapping[str, Any], name: str, passed: Sequence[str] = (), partial: bool = False
) -> dict[str, Any]:
    """Return the defaults of a target, without those that are ``passed`` in code.

    Raises:
        ConfigError: it cannot be imported, does not take one of ``settings``, or, unless ``partial``, needs another.
    """
    defaults, accepted = _signature(target, name)
    for key in settings:
        if accepted is not None and key not in accepted:
            choices = [a for a in accepted if a not in passed]
            raise ConfigError(f"{name}.{key} is not a setting of {target}; {nearest(str(key), choices)}")
    missing = [a for a in accepted or () if a not in defaults and a not in settings and a not in passed]
    if missing and not partial:
        raise ConfigError(f"{name}.{missing[0]} is missing; {target} needs it")
    return {key: value for key, value in defaults.items() if key not in passed}


@functools.cache
def _signature(target: str, name: str) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Return the defaults and the accepted names of a target; None for the names if it takes any keyword."""
    said = logging.getLogger("hydra.utils")  # it prints what is raised
    level = said.level
    said.setLevel(logging.CRITICAL)
    try:
        function = get_object(target)  # as Hydra will find it: a function before a module of the same name
    except Exception as error:
        package = target.partition(".")[0]
        if package in EXTRAS and importlib.util.find_spec(package) is None:
            raise missing_extra(EXTRAS[package], needed_by=f"{name}={target}") from None
        reason = _why_not(target, error.__cause__ or error)
        raise ConfigError(f"{name}._target_={target!r} cannot be imported: {reason}") from None
    finally:
        said.setLevel(level)
    if not callable(function):
        raise ConfigError(f"{name}._target_={target!r} cannot be called")
    parameters = signature(function)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return defaults, None if anything else tuple(p.name for p in named)


def _why_not(target: str, error: BaseException) -> str:
    """Why a target cannot be imported, and where Python would find it."""
    package, (parent, _, name) = target.partition(".")[0], target.rpartition(".")
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        here = [path for path in (Path(f"{package}.py"), Path(package)) if path.exists()]
        where = (
            f"{here[0]} lies in this folder: begin the command with PYTHONPATH=."
            if here
            else "is its folder in PYTHONPATH?"
        )
        return f"No module named {package!r}; {where}"
    if isinstance(error, ModuleNotFoundError | AttributeError) and (module := sys.modules.get(parent)) is not None:
        hint = nearest(name, [key for key, value in vars(module).items() if callable(value) and key[0] != "_"])
        return f"{parent} has no {name!r}{f'; {hint}' if hint.startswith('did') else ''}"
    return str(error).partition("\n")[0]


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of a nested configuration."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
