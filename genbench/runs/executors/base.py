"""The interface of executors, and how the processes of all of them end."""

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

GRACE = 30.0  # seconds that a process has for its checkpoint when it is asked to end


class Died(Exception):
    """The process of a unit is gone and left no result; the message says in one line how it ended."""


class OutOfTime(Died):
    """A process was ended because it exceeded its time."""


class Executor(ABC):
    """Computes functions in other processes, ``n_jobs`` at a time, between :meth:`start` and :meth:`stop`.

    Attributes:
        n_jobs: maximum number of concurrent functions; callers must not exceed it.
        here: whether the functions share the memory of this machine.
        gpu: whether each function gets a GPU; None: it sees the devices of this process.
    """

    here: bool = True
    gpu: bool | None = None

    def __init__(self, *, n_jobs: int) -> None:
        self.n_jobs = check_integer("hydra.launcher.n_jobs", n_jobs, least=1)

    @abstractmethod
    def start(self, *, units: int, folder: Path) -> None:
        """Prepare for ``units`` functions; files that this needs go to ``folder``."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Compute ``function(*args)``: an importable function and arguments that can be pickled."""

    @abstractmethod
    def result(self, future: "Future[Any]") -> Any:
        """Return the value of a finished future, or raise the exception of its function or :class:`Died`."""

    @abstractmethod
    def stop(self, *, abort: bool) -> None:
        """Release all processes; ``abort`` ends running functions."""


@contextlib.contextmanager
def running(executor: Executor, *, units: int, folder: Path = Path()) -> Iterator[None]:
    """Start an executor and stop it; what is raised within ends its functions."""
    executor.start(units=units, folder=folder)
    try:
        yield
    except BaseException:
        executor.stop(abort=True)
        raise
    executor.stop(abort=False)


def end_with(pid: int) -> None:
    """End this process as soon as process ``pid``, which sweeps, is gone; the same command then continues its run."""
    import psutil

    def follow() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            sweeping = psutil.Process(pid)
            while sweeping.is_running() and sweeping.status() != psutil.STATUS_ZOMBIE:  # dead, but not yet reaped
                time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Have the system end this process by SIGALRM if the block takes more than ``seconds``, even if it hangs."""
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
    """Return the error for a process that ended with this exit code."""
    if exitcode == -signal.SIGALRM:
        return OutOfTime("it took longer than hydra.launcher.timeout allows")
    return Died(cause_of_death(exitcode))


def cause_of_death(exitcode: int) -> str:
    """Return in words how a process ended."""
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with exit status {exitcode}"


def last_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip("- ")]
    return clean(lines[-1]) if lines else type(error).__name__


class Call:
    """A function and its arguments for another machine. It is called in the folder of this process, so that relative
    paths keep their meaning, and returns its value and its exception as a pair."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args, self.folder = function, args, os.getcwd()

    def __call__(self) -> tuple[Any, Exception | None]:
        os.chdir(self.folder)
        try:
            return self.function(*self.args), None
        except Exception as error:
            return None, error
