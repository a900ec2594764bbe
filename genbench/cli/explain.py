"""Explain errors of commands in one line: the value, and what is accepted."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genbench.checks import ConfigError, nearest
from genbench.cli import catalog
from genbench.config import KEYED, Config, MeasureConfig

_LISTED = 12  # maximum number of settings in a message


def explain(error: Exception, arguments: Sequence[str], *, root: str = "train") -> str:
    """Return the message for an error of a command with these arguments; ``root`` is its configuration.

    One line; three for a key that resembles no setting. It is that of a malformed file of the user's if looking for
    what was meant comes across one.
    """
    try:
        return _explained(error, arguments, root)
    except ConfigError as other:
        return str(other)


def _explained(error: Exception, arguments: Sequence[str], root: str) -> str:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, HydraException | OmegaConfBaseException) or text.startswith("Config group override"):
        return _of_configuration(error, lines, arguments, root)
    if isinstance(error, YAMLError):  # of a file that Hydra read
        return catalog.fault(error, Path(str(getattr(getattr(error, "problem_mark", error), "name", "a file"))))
    if isinstance(error, ValueError):
        return " ".join(lines)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {Path(error.filename).name}' if error.filename else ''}"
    if isinstance(error, RecursionError):
        return "the configuration is nested too deeply, or refers to itself"
    if key := re.search(r"full_key: (\S+)", text):  # an error of OmegaConf, of any type
        return f"{key[1]}: {lines[0]}"
    return f"{type(error).__name__}: {' '.join(lines)[:300]} (HYDRA_FULL_ERROR=1 shows where)"


def _of_configuration(error: Exception, lines: Sequence[str], arguments: Sequence[str], root: str) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        word = error.override if len(error.override) < 80 else f"{error.override[:79]}…"
        how = "put values with special characters in quotes: 'key=\"value\"'" if "=" in word else "accepted: key=value"
        return f"{word!r} cannot be read; {how}"
    for pattern, say in _SAID:
        if found := re.search(pattern, text):
            return say(found, arguments, root)
    if (found := re.search(r"Error merging override (.+)", text)) and error.__cause__:
        return f"{found[1]}: {str(error.__cause__).splitlines()[0]}"
    key = re.search(r"full_key: (\S+)", text)
    first = lines[0] if lines else type(error).__name__
    return f"{key[1]}: {first}" if key and key[1] not in first else first


def _no_choice(found: re.Match[str], arguments: Sequence[str], root: str) -> str:
    group, name = found[1], found[2]
    accepted = list(catalog.groups(arguments).get(group, {}))
    if group == "hydra/launcher":
        accepted = sorted({*accepted, "basic"})
    if not accepted:
        return f"{group}={name}: there is no group {group}; {nearest(group, [*catalog.groups(arguments)])}"
    said = catalog.no_such_choice(group, name, accepted)
    if len(catalog.places(arguments)) == 1 and (here := sorted(Path().glob(f"*/{group}/{name}.yaml"))):
        return f"{said.partition(';')[0]}; did you mean --config-dir {here[0].parents[len(Path(group).parts)]}?"
    return said


def _null_choice(found: re.Match[str], arguments: Sequence[str], root: str) -> str:
    groups = catalog.groups(arguments)
    for word in arguments:
        key, _, value = word.partition("=")
        if key in groups and not re.search(r"[A-Za-z_]", value.replace("null", "").replace("true", "")):
            none = f", or '{key}=[]' for none" if key in KEYED else ""
            return f"{word}: a choice is a name or a list of names{none}; genbench {key} --help lists them"
    return f"a choice is a name or a list of names, not {found[1]}; accepted: key=value, as genbench --help shows"


def _no_setting(found: re.Match[str], arguments: Sequence[str], root: str) -> str:
    return no_setting(found[1], arguments, root=root)


def _several(found: re.Match[str], arguments: Sequence[str], root: str) -> str:
    return f"{found[1]} gives several values, so several runs; that takes -m: genbench -m '{found[1]}'"


_SAID: tuple[tuple[str, Callable[[re.Match[str], Sequence[str], str], str]], ...] = (
    (r"Could not (?:find|load) '([^']+)/([^'/]*)'", _no_choice),
    (
        r"In '(experiment/[^']+)': .*\nKey 'experiment' not in",
        lambda found, arguments, root: f"{found[1]}.yaml must begin with the line: # @package _global_",
    ),
    (r"Could not override '([^']+)'", _no_setting),
    (r"Key '([^']+)' (?:not in|is not in)", _no_setting),
    (
        r"Could not delete from config\. '([^']+)' does not exist",
        lambda found, arguments, root: f"~{found[1]}: there is no {found[1]} to take out",
    ),
    (
        r"Error in call to target '[^']*BasicLauncher'",
        lambda found, arguments, root: (
            "hydra/launcher=basic has no settings, and no --dry-run; accepted: hydra/launcher=processes, say"
        ),
    ),
    (r"Config group override must be a string or a list\. Got (\w+)", _null_choice),
    (r"Sweep parameters '(.+)' requires --multirun", _several),
    (r"Ambiguous value for argument '(.+)'", _several),
    (
        r"Could not append to config\. An item is already at '([^']+)'",
        lambda found, arguments, root: f"{found[1]} is a setting already: leave out the + before it",
    ),
)


def no_setting(key: str, arguments: Sequence[str] = (), *, root: str = "train") -> str:
    """Return the message for a key that is no setting, or no setting of the choices made."""
    top = [each.name for each in fields(Config if root == "train" else MeasureConfig)]
    groups = [group for group in catalog.groups(arguments) if root == "train" or group in top]
    every = catalog.owners(tuple(arguments))
    owners = {key: having for key, having in every.items() if having[0].partition("=")[0] in groups}
    if key in groups:  # data={a: 1}, say
        return f"a key of what {key} is set to is not a setting; genbench {key}=CHOICE --help shows those of a choice"
    if key in owners:
        group = owners[key][0].partition("=")[0]
        names = [owner.partition("=")[2] for owner in owners[key]]
        several = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        return f"{key} is a setting of {group}={several}, which is not chosen here"
    known = [other for other in dict.fromkeys([*owners, *top, *groups]) if other != key]
    if same := [other for other in known if other.rpartition(".")[2] == key]:
        order = {name: place for place, name in enumerate(top)}
        least = min(other.count(".") for other in same)
        same = sorted(
            (other for other in same if other.count(".") == least),
            key=lambda other: order.get(other.partition(".")[0], len(top)),
        )
        return f"{key} is not a setting; did you mean {' or '.join(map(repr, same[:3]))}?"
    if close := difflib.get_close_matches(key, known, n=1, cutoff=0.6):
        return f"{key} is not a setting; did you mean {close[0]!r}?"
    first = key.partition(".")[0]
    inside = [other for other in owners if other.startswith(f"{first}.")]
    if first in top and 0 < len(inside) <= _LISTED:
        return f"{key} is not a setting; accepted: {', '.join(inside)}"
    if first in groups or first in top:
        return f"{key} is not a setting; genbench {first}=CHOICE --help shows those of a choice"
    alone = [name for name in top if name not in groups]
    return (
        f"{key} is not a setting\n"
        f"  accepted: {', '.join(alone)}; choices and settings of {', '.join(g for g in groups if '/' not in g)}\n"
        "  genbench --help lists the choices, genbench model=mlp --help the settings of one, genbench --cfg job all"
    )
