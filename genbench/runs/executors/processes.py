"""Processes of this machine, forked from one that has imported torch."""

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genbench.privacy import clean
from genbench.process.termination import asked, terminable
from genbench.runs.executors.base import GRACE, Executor, died, end_with


class Processes(Executor):
    """Processes of this machine, forked from one that has imported torch; several GPUs are used in turn. A dead process
    is replaced when there is work."""

    def start(self, *, units: int, folder: Path) -> None:
        self._begun = _begun()
        self._threads = ThreadPoolExecutor(min(self.n_jobs, units))  # each serves one process
        self._own = threading.local()
        self._workers: list[_Worker] = []
        self._ending = False

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        return self._threads.submit(self._compute, function, args)

    def _compute(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        worker = getattr(self._own, "worker", None)
        if worker is None or not worker.process.is_alive():
            worker = self._own.worker = _Worker(self._begun)
            self._workers.append(worker)
            if self._ending:
                worker.process.terminate()
        return worker.compute(function, args)

    def result(self, future: "Future[Any]") -> Any:
        return future.result()

    def stop(self, *, abort: bool) -> None:
        self._ending = abort
        self._threads.shutdown(wait=not abort, cancel_futures=abort)
        deadline = time.monotonic() + GRACE
        try:
            for worker in self._workers:
                worker.end(abort=abort)
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
            self._threads.shutdown()


class _Worker:
    """A process that computes one function after another, and the pipe to it."""

    def __init__(self, begun: Any) -> None:
        context = start_server()
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), begun))
        self.process.start()
        theirs.close()

    def compute(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the result of the process; raise :class:`Died` if it ends instead, with any status."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((function, args))
        multiprocessing.connection.wait([self._pipe, self.process.sentinel])
        try:
            value, error = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            assert self.process.exitcode is not None
            raise died(self.process.exitcode) from None
        if error is not None:
            raise error
        return value

    def end(self, *, abort: bool) -> None:
        """End the process once it is idle, or with ``abort`` as soon as its checkpoint is written."""
        if abort:
            self.process.terminate()
        else:
            self._pipe.close()


@functools.cache
def _begun() -> Any:
    """Return the counter of started processes, which assigns their GPUs. It lives as long as this process: a worker
    that is still starting when its executor stops needs it."""
    return start_server().Value("i", 0)


def _serve(pipe: Any, pid: int, begun: Any) -> None:
    """Compute functions until the sweeping process closes the pipe or sends SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C in the terminal the sweep ends its workers
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt), terminable():
        _begin(pid, begun)
        answer: tuple[Any, Exception | None]
        while not asked():
            function, args = pipe.recv()
            try:
                answer = function(*args), None
            except Exception as error:
                answer = None, _picklable(error)
            pipe.send(answer)


def _picklable(error: Exception) -> Exception:
    """Return the error, or one with the same message if it does not survive a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(clean(f"{type(error).__name__}: {error}"))
    return error


def start_server() -> Any:
    """Start the process that workers are forked from, which imports torch once (:mod:`genbench.runs.preload`) and runs
    no threads; return its context."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genbench.runs.preload"])
    forkserver.ensure_running()
    return context


def _begin(pid: int, begun: Any) -> None:
    """Prepare a worker; ``begun`` counts them."""
    end_with(pid)
    _take_gpu(begun)


def _take_gpu(begun: Any) -> None:
    """Select the next of several GPUs for this process."""
    import torch

    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    if (gpus := torch.cuda.device_count()) > 1:
        torch.cuda.set_device(number % gpus)
