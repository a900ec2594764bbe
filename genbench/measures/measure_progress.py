"""Progress of measuring: the current measure, its passes over the data, and their seconds."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from genbench.process.progress import LINES, duration

LONG, SLOW = 60.0, 5.0  # seconds of a measure and of a pass from which it is announced
_OFTEN = 1.0  # seconds between two lines to a given ``say``
_log = logging.getLogger(__name__)

Say = Callable[..., None]  # (line, urgent=False)


def log(line: str, urgent: bool = False) -> None:
    """The default ``say``."""
    _log.info(line)


_say: ContextVar[Say] = ContextVar("say", default=log)


@contextmanager
def progress_to(say: Say) -> Iterator[None]:
    """Send progress lines to ``say`` within the context, about once a second; otherwise they go to the log, twice a
    minute. A measure that will take long is announced at its first pass, as urgent."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


class MeasureProgress:
    """Count the passes over the data of a set of measures.

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
        """Start a measure that makes at most ``bound`` passes (None if unknown)."""
        self._left.remove(name)
        self._name, self._bound, self._passes = name, bound, 0
        self._begun = time.monotonic()

    def tick(self) -> None:
        """Count one pass over the data."""
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
