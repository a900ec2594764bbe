"""Checks of settings: one clear line that names the setting, the value and what is accepted."""

import difflib
import importlib
import math
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line."""


def check_integer(name: str, value: object, *, least: int, most: int | None = None, note: str = "") -> int:
    """``value`` as an ``int`` of at least ``least`` and at most ``most``.

    >>> check_integer("data.seed", 3, least=0)
    3
    >>> check_integer("data.seed", -1, least=0)
    Traceback (most recent call last):
    ValueError: data.seed is -1; accepted: an integer of at least 0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        accepted = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; accepted: {accepted}{note and f' ({note})'}")
    return value


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    note: str = "",
) -> float:
    """``value`` as a ``float`` in [low, high], without an end that is open or infinite.

    >>> check_number("data.label_noise", 1.5, low=0, high=1)
    Traceback (most recent call last):
    ValueError: data.label_noise is 1.5; accepted: a number in [0, 1]
    >>> check_number("optimizer.lr", 0, low=0, open_low=True)
    Traceback (most recent call last):
    ValueError: optimizer.lr is 0; accepted: a number in (0, inf)
    """
    open_low, open_high = open_low or low == -math.inf, open_high or high == math.inf
    inside = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high  # nan is not
    if not inside or (open_low and value == low) or (open_high and value == high):
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name} is {value!r}; accepted: a number in {interval}{note and f' ({note})'}")
    assert isinstance(value, int | float)
    return float(value)


def check_window(name: str, ends: object) -> tuple[float, float]:
    """The least and the largest number of a window, either of which may be infinite.

    >>> check_window("within loss", [0.009, float("inf")])
    (0.009, inf)
    >>> check_window("within loss", [2, 1])
    Traceback (most recent call last):
    ValueError: within loss is [2, 1]; accepted: the least number first
    """
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise ValueError(f"{name} is {ends!r}; accepted: the least and the largest number")
    low, high = (float(end) if end in (math.inf, -math.inf) else check_number(name, end) for end in ends)
    if low > high:
        raise ValueError(f"{name} is {ends!r}; accepted: the least number first")
    return low, high


def check_choice(name: str, value: object, accepted: tuple[str, ...]) -> str:
    """``value`` if it is one of ``accepted``.

    >>> check_choice("model.activation", "sine", ("relu", "tanh"))
    Traceback (most recent call last):
    ValueError: model.activation is 'sine'; accepted: relu, tanh
    """
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(accepted)}")
    return value


def check_flag(name: str, value: object) -> bool:
    """``value`` if it is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; accepted: true, false")
    return value


def check_function(name: str, value: object, *, of: str, optional: bool = False) -> None:
    """Refuse what is no function ``of`` the named arguments; None is accepted if it is ``optional``.

    >>> check_function("Gap count", 3, of="output and target", optional=True)
    Traceback (most recent call last):
    ValueError: Gap count is 3; accepted: a function of output and target, or null
    """
    if not callable(value) and not (optional and value is None):
        raise ValueError(f"{name} is {value!r}; accepted: a function of {of}{', or null' if optional else ''}")


def nearest(word: str, accepted: Sequence[str]) -> str:
    """The end of an error message: the accepted word nearest to a misspelt one, in any case, or all of them.

    >>> nearest("SAM", ["none", "sam"])
    "did you mean 'sam'?"
    """
    words = {other.casefold(): other for other in reversed(accepted) if other != word}
    close = difflib.get_close_matches(word.casefold(), list(words)[::-1], n=1, cutoff=0.6)
    return f"did you mean {words[close[0]]!r}?" if close else f"accepted: {', '.join(accepted) or 'none'}"


def covers(patterns: Collection[str], name: str) -> bool:
    """Whether a name is one of the patterns, in which ``*`` stands for any text.

    >>> covers(["test/norm/*"], "test/norm/l2"), covers(["test/norm/l[1]"], "test/norm/l1")
    (True, False)
    """
    return name in patterns or any(
        fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns if "*" in pattern
    )


def require(module: str, *, extra: str, needed_by: str, otherwise: str = "") -> Any:
    """Import and return a module that an extra of genbench installs.

    Raises:
        ConfigError: it is not installed; names the extra, and ``otherwise`` what is accepted without it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise missing_extra(extra, needed_by=needed_by, otherwise=otherwise) from None


def missing_extra(extra: str, *, needed_by: str, otherwise: str = "") -> ConfigError:
    """The error for a package that is not installed.

    >>> print(missing_extra("hub", needed_by="model.weights='hf://a/b'", otherwise="a file"))
    model.weights='hf://a/b' needs: pip install "genbench[hub]"; accepted also: a file
    """
    instead = f"; accepted also: {otherwise}" if otherwise else ""
    return ConfigError(f'{needed_by} needs: pip install "genbench[{extra}]"{instead}')
