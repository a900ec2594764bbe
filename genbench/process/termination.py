"""SIGTERM and SIGUSR1, by which systems and schedulers ask a process to end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_ASKED = threading.Event()


def asked() -> bool:
    """Tell whether such a signal came within the outermost :func:`terminable` or :func:`patient`."""
    return _ASKED.is_set()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Treat the signals like Ctrl-C, at once, in the main thread."""
    with _handled(_interrupt):
        if _ASKED.is_set():
            raise KeyboardInterrupt
        yield


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Only note the signals: code that calls :func:`asked` ends when it is ready."""
    with _handled(_note):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Deliver Ctrl-C and the signals after the block, not within; processes that it starts have Ctrl-C blocked."""
    came: list[int] = []
    with _handled(lambda number, frame: came.append(number), (signal.SIGINT, *SIGNALS)):
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a handler is not inherited
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # the handler now gets what was pending
    for number in came:
        signal.raise_signal(number)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _ASKED.set()
    raise KeyboardInterrupt


def _note(signum: int, frame: FrameType | None) -> None:
    _ASKED.set()


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], numbers: tuple[int, ...] = SIGNALS) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not {signal.getsignal(number) for number in SIGNALS} & {_interrupt, _note}:
        _ASKED.clear()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)  # None: not of Python
