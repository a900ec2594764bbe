"""Processes of this machine, started by joblib."""

import contextlib
import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from genbench.checks import require
from genbench.privacy import clean
from genbench.runs.executors.base import GRACE, Died, Executor, died, end_with


class Joblib(Executor):
    """Processes of this machine, started by joblib's loky."""

    def __init__(self, *, n_jobs: int) -> None:
        super().__init__(n_jobs=n_jobs)
        self._loky = require("joblib.externals.loky", extra="joblib", needed_by="hydra/launcher=joblib")

    def start(self, *, units: int, folder: Path) -> None:
        self._idle: list[Any] = []
        self._busy: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        # one pool a process: a dead process breaks its pool, with everything else in it
        while self._idle:
            with contextlib.suppress(self._loky.process_executor.BrokenProcessPool):  # it died while it was idle
                return self._given(self._idle.pop(), function, args)
        pool = self._loky.ProcessPoolExecutor(max_workers=1, initializer=end_with, initargs=(os.getpid(),))
        return self._given(pool, function, args)

    def _given(self, pool: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> "Future[Any]":
        future = pool.submit(function, *args)
        self._busy[future] = pool
        return future

    def result(self, future: "Future[Any]") -> Any:
        pool = self._busy.pop(future)
        try:
            value = future.result()
        except self._loky.process_executor.BrokenProcessPool as error:
            pool.shutdown(kill_workers=True)
            code = re.search(r"\{\w+\((-?\d+)\)", str(error))  # of TerminatedWorkerError: {SIGKILL(-9)}
            raise died(int(code[1])) if code else Died(clean(error)) from None
        except BaseException:
            self._idle.append(pool)
            raise
        self._idle.append(pool)
        return value

    def stop(self, *, abort: bool) -> None:
        if abort:  # after their checkpoints are written
            for pool in self._busy.values():
                for pid in list(getattr(pool, "_processes", {})):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
            wait(self._busy, timeout=GRACE)
        for pool in [*self._idle, *self._busy.values()]:
            pool.shutdown(kill_workers=abort)
