"""How far measuring is: which measure runs, how many passes over the data it has made, and what they take."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from genbench.process.progress import LINES, duration

LONG, SLOW = 60.0, 5.0  # seconds of a measure and of one of its passes that are told before they are spent
_OFTEN = 1.0  # seconds between two lines to one who shows them as he likes
_log = logging.getLogger(__name__)

Say = Callable[..., None]  # (line, urgent=False)


def log(line: str, urgent: bool = False) -> None:
    """Where a line goes if nobody shows it."""
    _log.info(line)


_say: ContextVar[Say] = ContextVar("say", default=log)


@contextmanager
def progress_to(say: Say) -> Iterator[None]:
    """Within it, how far measuring is goes to ``say``, about once a second; else to the log, twice a minute. What takes
    long is urgent, and told before it is spent."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


class MeasureProgress:
    """Counts the passes over the data of a set of measures.

    Args:
        names: of the measures, in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._left = list(names)
        self._name = ""
        self._bound: int | None = None
        self._passes = 0
        self._say = _say.get()
        self._every = LINES if self._say is log else _OFTEN
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
        long = self._passes == 1 and self._bound is not None and each > SLOW and each * self._bound > LONG
        if long or now > self._line + self._every:
            self._line = now
            most = f" of at most {self._bound}" if self._bound else ""
            time_each = duration(each) if each >= 1 else f"{1000 * each:.0f} ms"
            if self._bound and each * self._bound > SLOW:
                time_each += f", at most {duration(each * (self._bound - self._passes))} left"
            after = f"; then {', '.join(self._left)}" if self._left else ""
            self._say(f"measuring {self._name}: {self._passes}{most} passes of about {time_each}{after}", urgent=long)
