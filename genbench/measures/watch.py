"""How far measuring is: which measure runs, how many passes over the data it has made, and what they take."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from genbench.progress import LINES, duration

LONG = 20.0  # seconds that are told before they are spent
_LINE = 1.0  # seconds between two lines to one who shows them as he likes
_log = logging.getLogger(__name__)

Say = Callable[[str], None]
_say: ContextVar[Say | None] = ContextVar("say", default=None)


@contextmanager
def told(say: Say) -> Iterator[None]:
    """Within it, how far measuring is goes to ``say``, about once a second; else to the log, twice a minute."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


class Watch:
    """Counts the passes over the data of a set of measures.

    Args:
        names: of the measures, in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._left = list(names)
        self._name, self._bound, self._passes = "", None, 0
        self._say, self._every = (_say.get() or _log.info), (_LINE if _say.get() else LINES)
        self._begun = self._line = time.monotonic()

    def begin(self, name: str, bound: int | None) -> None:
        """A measure that makes at most ``bound`` passes, where that is known."""
        self._left.remove(name)
        self._name, self._bound, self._passes = name, bound, 0
        self._begun = time.monotonic()

    def tick(self) -> None:
        """A pass over the data has been made."""
        self._passes += 1
        now = time.monotonic()
        each = (now - self._begun) / self._passes
        told = self._passes == 1 and self._bound is not None and each * self._bound > LONG
        if told or now > self._line + self._every:
            self._line = now
            done = f"{self._passes}" + (f" of at most {self._bound}" if self._bound else "")
            after = f"; then {', '.join(self._left)}" if self._left else ""
            self._say(f"measuring {self._name}: {done} passes of about {_each(each)}{after}")


def _each(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.0f} ms"
