"""List choices and settings from the YAML files alone, without heavy imports, so that help answers at once."""

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.checks import ConfigError, nearest
from genbench.config import KEYED, folder

MOST_NODES = 100_000  # of a file with its aliases expanded; no file written by hand comes near
_GLOBAL = "# @package _global_"
# keys of a file that are no settings
_NO_SETTINGS = {"defaults", "_target_", "_partial_", "hydra", "table", "claims", "paper"}
_LOOK_UP = "hydra.utils.get_"  # a node with such a target names a function, which is no setting either


@dataclass(frozen=True)
class Setting:
    """One setting of a choice: its dotted key, its value in the file, and the file's comment on it."""

    key: str
    value: str
    about: str


def places(arguments: Sequence[str]) -> list[Path]:
    """Return the folders of YAML files: ours, and those that the arguments of a command name."""
    found = [folder()]
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=False):
        name, _, inline = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(inline or value))
    return found


def groups(arguments: Sequence[str] = ()) -> dict[str, dict[str, Path]]:
    """Return the file of each choice of each group: of two, the one that Hydra composes, ours.

    Files whose names begin with ``_`` are included by choices.
    """
    found: dict[str, dict[str, Path]] = {}
    for place in places(arguments):
        for path in sorted(place.rglob("*.yaml")):
            group = path.parent.relative_to(place).as_posix()
            if group != "." and not path.name.startswith("_"):
                found.setdefault(group, {}).setdefault(path.stem, path)
    return found


def shadowed(arguments: Sequence[str]) -> list[Path]:
    """Return the user's files that Hydra does not read, as an earlier folder has another file of that name."""
    before, found = places(arguments)[:1], []
    for place in places(arguments)[1:]:
        for path in sorted(place.rglob("*.yaml")):
            first = next((each for other in before if (each := other / path.relative_to(place)).is_file()), None)
            if first is not None and first.read_bytes() != path.read_bytes():
                found.append(path)
        before.append(place)
    return found


def text_of(path: Path) -> str:
    """Return the text of a file; raise ConfigError if it has none."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise ConfigError(f"{_name(path)} is no text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{_name(path)} cannot be read: {error.strerror}") from None


def node_of(path: Path) -> Any:
    """Return the root node of a YAML file, None of an empty one; raise ConfigError if it is malformed."""
    import yaml

    try:
        return yaml.compose(text_of(path), yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(fault(error, path)) from None
    except RecursionError:
        raise ConfigError(f"{_name(path)} is nested too deeply, or refers to itself") from None


def fault(error: Any, path: Path) -> str:
    """Return one line for an error of the YAML parser: the file, the line and the fault."""
    if (mark := getattr(error, "problem_mark", None)) is None:
        return f"{_name(path)}: {str(error).partition(chr(10))[0]}"
    since = f" ({error.context} of line {error.context_mark.line + 1})" if error.context_mark else ""
    return f"{_name(path)}, line {mark.line + 1}: {error.problem}{since}"


def _name(path: Path) -> str:
    return "/".join(path.parts[-2:])


def about(path: Path) -> str:
    """Return the first comment of a file, which describes its choice."""
    for line in text_of(path).splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
        if not line.startswith("#"):
            break
    return ""


def settings(group: str, path: Path) -> list[Setting]:
    """Return the settings of a choice: those of choices that it extends, its own, and those of files that it includes.

    A setting that a choice sets without a comment keeps the comment of the extended or included file.
    """
    import yaml

    text, root = text_of(path), node_of(path)
    if not isinstance(root, yaml.MappingNode):
        return []
    prefix = () if text.startswith(_GLOBAL) else tuple(group.split("/"))
    lines = text.splitlines()
    found: dict[str, Setting] = {}
    included: set[str] = set()
    for name, node in root.value:
        if name.value == "defaults":
            bases = [path.parent / f"{each.value}.yaml" for each in node.value if isinstance(each, yaml.ScalarNode)]
            for base in filter(Path.is_file, bases):
                of_base = {setting.key: setting for setting in settings(group, base)}
                found |= of_base
                included |= set(of_base) if base.name.startswith("_") else set()
    for keys, node in _leaves(root, prefix):
        if not _NO_SETTINGS & set(keys[len(prefix) :]):
            value = text[node.start_mark.index : node.end_mark.index].strip()
            comment = lines[node.end_mark.line][node.end_mark.column :].partition("#")[2]
            key = ".".join(keys)
            said = comment.strip() or (found[key].about if key in found else "")
            found[key] = Setting(key, " ".join(value.split()), said)
    return sorted(found.values(), key=lambda setting: setting.key in included)


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if any(key.value == "_target_" and str(value.value).startswith(_LOOK_UP) for key, value in node.value):
        return
    for key, value in node.value:
        if key.id != "scalar":
            continue
        if value.id == "mapping" and not value.flow_style:
            yield from _leaves(value, (*path, key.value))
        else:
            yield (*path, key.value), value


@functools.cache
def owners(arguments: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Map the dotted key of each setting to the choices that have it: ``{"model.width": ["model=cnn", …], …}``; keys of
    the root have none."""
    found: dict[str, list[str]] = {}
    for group, choices in groups(arguments).items():
        if group != "experiment":
            for name, path in choices.items():
                for setting in settings(group, path):
                    found.setdefault(setting.key, []).append(f"{group}={name}")
    return found


def check_files(arguments: Sequence[str]) -> None:
    """Refuse a file of the user's that is no text, or whose aliases expand beyond memory, before anything reads it.

    Raises:
        ConfigError: there is such a file.
    """

    def size(node: Any, sizes: dict[int, int]) -> int:
        """Nodes with every alias written out; what contains itself never ends."""
        if id(node) not in sizes:
            sizes[id(node)] = MOST_NODES + 1
            inside = [] if node.id == "scalar" else node.value
            parts = [part for each in inside for part in (each if isinstance(each, tuple) else (each,))]
            sizes[id(node)] = 1 + sum(size(part, sizes) for part in parts)
        return sizes[id(node)]

    for place in places(arguments)[1:]:
        for path in sorted(place.rglob("*.yaml")):
            if not re.search(r"[*&]\w", text_of(path)):
                continue
            try:
                root = node_of(path)
            except ConfigError:
                continue  # reported when it is read
            if root is not None and size(root, {}) > MOST_NODES:
                raise ConfigError(f"{path.name}: its aliases (*name) make it larger than {MOST_NODES:,} nodes")


@contextlib.contextmanager
def refusing_empty_choices() -> Iterator[None]:
    """Have Hydra refuse a choice of the user's that sets nothing, comments alone say: it would compose without it."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    load = FileConfigSource.load_config

    def checked(source: Any, config_path: str) -> Any:
        found = load(source, config_path)
        if Path(source.path) != folder():
            _check_not_empty(config_path, found.config)
        return found

    FileConfigSource.load_config = checked  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        FileConfigSource.load_config = load  # type: ignore[method-assign]


def _check_not_empty(choice: str, config: Any) -> None:
    """Refuse the choice ``group/name`` if its file holds no value but null; ``none`` may be empty."""
    from omegaconf import OmegaConf

    group, _, name = choice.removesuffix(".yaml").rpartition("/")
    values = OmegaConf.to_container(config)
    if name.startswith("_") or name == "none" or not isinstance(values, dict):  # Hydra refuses another form
        return
    if any(value is not None for value in values.values()):
        return
    target = "_target_: my_package.MyClass"
    accepted = {"experiment": f"name: {name}"} | dict.fromkeys(KEYED, f"{name}: {{{target}}}")
    raise ConfigError(f"{group}/{name}.yaml sets nothing; accepted: {accepted.get(group, target)}, say")


def page(introduction: str, arguments: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Return the help of a command: with arguments that name choices or groups their settings, without such arguments
    every group and choice.

    Raises:
        ConfigError: an argument names no choice.
    """
    found = {group: choices for group, choices in groups(arguments).items() if shown is None or group in shown}
    words = [word for word in arguments if word in found or word.partition("=")[0] in found]
    if words:
        return "\n\n".join(text for word in words for text in _described(word, found))
    return "\n".join([introduction, *(f"\n{_listed(group, choices)}" for group, choices in found.items())])


def _listed(group: str, choices: dict[str, Path]) -> str:
    width = max(map(len, choices))
    return "\n".join([group, *(f"  {name:<{width}}  {about(path)}".rstrip() for name, path in choices.items())])


def _described(word: str, found: dict[str, dict[str, Path]]) -> Iterator[str]:
    """Yield the lines for a group, or for the choices of ``group=choice``, ``group=[choice,choice]`` or
    ``group=choice,choice``."""
    group, _, chosen = word.partition("=")
    if not chosen:
        yield _listed(group, found[group])
        return
    for name in re.findall(r"[^\[\],\s]+", chosen):
        if name not in found[group]:
            raise ConfigError(no_such_choice(group, name, list(found[group])))
        path = found[group][name]
        lines = [f"{group}={name}: {about(path)}".rstrip(": ")]
        has = settings(group, path)
        width = max((len(f"{each.key}={each.value}") for each in has), default=0)
        width = min(width, 60)
        lines += [f"  {f'{each.key}={each.value}':<{width}}  {each.about}".rstrip() for each in has]
        yield "\n".join(lines if has else [*lines, "  nothing to set"])


def no_such_choice(group: str, name: str, accepted: Sequence[str]) -> str:
    """Return the message for a choice that a group does not have."""
    hint = nearest(name, accepted)
    if hint.startswith("did"):
        names = ", ".join(accepted)
        hint += f" (accepted: {names})" if len(names) < 60 else f" (genbench {group} --help lists them)"
    elif len(hint) > 800:
        hint = f"accepted: {len(accepted)}, which genbench {group} --help lists"
    return f"{group}={name}: no such choice; {hint}"
