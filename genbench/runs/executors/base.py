"""What every executor has: functions to compute elsewhere, and what became of them."""

import contextlib
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from genbench.checks import check_integer
from genbench.privacy import clean

GRACE = 30.0  # seconds that a process which is asked to end has for its checkpoint


class Died(Exception):
    """What computed a unit is gone and left no result; the message is one line that says how."""


class OutOfTime(Died):
    """It was ended as it took longer than it may."""


class Executor(ABC):
    """Computes functions elsewhere, ``n_jobs`` at a time, between :meth:`start` and :meth:`stop`.

    Attributes:
        n_jobs: how many functions are computed at a time at most; who submits more is at fault.
        here: whether they share the memory of this machine.
        gpu: whether each is given a GPU; None: they see what this process sees.
    """

    here: bool = True
    gpu: bool | None = None

    def __init__(self, *, n_jobs: int) -> None:
        self.n_jobs = check_integer("hydra.launcher.n_jobs", n_jobs, least=1)

    @abstractmethod
    def start(self, *, units: int, folder: Path) -> None:
        """Get ready for so many functions; what must be written for them goes to ``folder``."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Have ``function(*args)`` computed: an importable function of what can be pickled."""

    @abstractmethod
    def result(self, future: "Future[Any]") -> Any:
        """What became of a finished future: its value, the exception that the function raised, or :class:`Died`."""

    @abstractmethod
    def stop(self, *, abort: bool) -> None:
        """Free what was taken; with ``abort`` functions that are being computed are ended."""


def end_with(pid: int) -> None:
    """End this process as soon as process ``pid``, which swept, is gone, however it ended; its run continues next
    time."""
    import psutil

    def follow() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            sweeping = psutil.Process(pid)
            while sweeping.is_running() and sweeping.status() != psutil.STATUS_ZOMBIE:  # dead, and not yet asked after
                time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """End this process, however it hangs, once the block has taken so long: the system does, by SIGALRM."""
    if seconds is None:
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def died(exitcode: int) -> Died:
    """That a process ended so."""
    if exitcode == -signal.SIGALRM:
        return OutOfTime("it took longer than hydra.launcher.timeout allows")
    return Died(cause_of_death(exitcode))


def cause_of_death(exitcode: int) -> str:
    """How a process ended, in words."""
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with exit status {exitcode}"


def last_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip("- ")]
    return clean(lines[-1]) if lines else type(error).__name__


class Call:
    """A function and its arguments for another machine: called in the folder that this process is in, so that
    relative paths mean the same. It returns what the function returns and what it raises, as a pair."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args, self.folder = function, args, os.getcwd()

    def __call__(self) -> tuple[Any, Exception | None]:
        os.chdir(self.folder)
        try:
            return self.function(*self.args), None
        except Exception as error:
            return None, error
