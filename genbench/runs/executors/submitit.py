"""Jobs of SLURM, or of this machine, through submitit."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

from genbench.checks import ConfigError, check_choice, check_integer, check_number, require
from genbench.process.termination import deferred
from genbench.runs.executors.base import GRACE, Call, Died, Executor, last_line


class Submitit(Executor):
    """Jobs of submitit, one for each function: ``cluster`` is ``local`` or ``slurm``; the settings are those of its
    ``update_parameters``, of which None leaves the default of the cluster.

    A job that SLURM preempts, or that exceeds its time, is queued again, at most ``max_num_timeout`` times, and
    continues from its checkpoint. The files of jobs stay in ``folder`` until they succeed.
    """

    def __init__(self, *, n_jobs: int, cluster: str, max_num_timeout: int = 3, **parameters: Any) -> None:
        import shutil

        super().__init__(n_jobs=n_jobs)
        cluster = check_choice("hydra.launcher.cluster", cluster, ("local", "slurm"))
        self._submitit = require("submitit", extra="submitit", needed_by=f"hydra/launcher=submitit_{cluster}")
        for name, least in (("cpus_per_task", 1), ("gpus_per_node", 0)):
            check_integer(f"hydra.launcher.{name}", parameters[name], least=least)
        check_integer("hydra.launcher.max_num_timeout", max_num_timeout, least=0)
        check_integer("hydra.launcher.timeout_min", parameters["timeout_min"], least=1)
        if parameters.get("mem_gb") is not None:
            check_number("hydra.launcher.mem_gb", parameters["mem_gb"], low=0)
        if missing := [name for name in ("sbatch", "srun") if cluster == "slurm" and not shutil.which(name)]:
            raise ConfigError(f"hydra/launcher=submitit_slurm needs SLURM: there is no {missing[0]} on this machine")
        self.here, self.gpu = cluster == "local", parameters["gpus_per_node"] > 0
        self._cluster, self._max_num_timeout = cluster, max_num_timeout
        self._parameters = {**parameters, "gpus_per_node": parameters["gpus_per_node"] or None}

    def start(self, *, units: int, folder: Path) -> None:
        self._folder = folder / "submitit"
        self._executor = self._submitit.AutoExecutor(
            self._folder, cluster=self._cluster, **{f"{self._cluster}_max_num_timeout": self._max_num_timeout}
        )
        self._executor.update_parameters(**self._parameters)
        self._asking = threading.Lock()  # jobs share their state of the queue
        self._jobs: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        # stop() needs every job's number, and ends local processes: at Ctrl-C they would print tracebacks
        with deferred():
            try:
                job = self._jobs[future] = self._executor.submit(_Requeued(function, args))
            except self._submitit.core.utils.FailedJobError as error:
                raise ConfigError(f"SLURM does not take the job: {last_line(error)}") from None
        threading.Thread(target=self._follow, args=(job, future), daemon=True).start()
        return future

    def _follow(self, job: Any, future: "Future[Any]") -> None:
        """Poll a job until it has ended."""
        while True:
            with self._asking:
                if job.done():
                    break
            time.sleep(0.2)
        try:
            future.set_result(job.result())
        except Exception as error:
            future.set_exception(error)

    def result(self, future: "Future[Any]") -> Any:
        job = self._jobs.pop(future)
        errors = self._submitit.core.utils
        try:
            value, error = future.result()
        except errors.FailedJobError as failure:  # before or after the function, which catches its own errors
            trace, _, _ = str(failure).partition("\n----------------------\nYou can check")
            raise Died(f"the job failed: {last_line(trace)}") from None
        except errors.UncompletedJobError:
            state = job.state if self._cluster == "slurm" else "killed (out of memory?)"
            raise Died(f"the job ended without a result: {state}") from None
        self._forget(job)
        if error is not None:
            raise error
        return value

    def _forget(self, job: Any) -> None:
        """Remove the files of a finished job."""
        for path in self._folder.glob(f"{job.job_id}_*"):
            path.unlink(missing_ok=True)
        for link in self._folder.glob(".submission_file_*.sh"):
            if not link.exists():
                link.unlink(missing_ok=True)

    def stop(self, *, abort: bool) -> None:
        for job in self._jobs.values():
            if self._cluster == "slurm":
                job.cancel(check=False)
            elif not job.done():  # its cancel() sends the signal that is ignored
                os.kill(int(job.job_id), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for job in self._jobs.values():
            while not job.done() and time.monotonic() < deadline:
                time.sleep(0.2)
            self._forget(job)
        with contextlib.suppress(OSError):  # it holds files of jobs that died
            self._folder.rmdir()


class _Requeued(Call):
    """A call as submitit runs it: an interruption for lack of time or priority queues it again."""

    def __call__(self) -> tuple[Any, Exception | None]:
        from submitit import JobEnvironment
        from submitit.core.utils import UncompletedJobError

        number = JobEnvironment._usr_sig()
        requeue = signal.getsignal(number)
        assert callable(requeue)

        def interrupt(signum: int, frame: FrameType | None) -> None:
            try:
                requeue(signum, frame)
            except SystemExit as end:  # queued again: the run must not record this as its end
                os._exit(end.code if isinstance(end.code, int) else 1)
            except UncompletedJobError:  # too often: the same command continues
                raise KeyboardInterrupt from None

        signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM):  # the user ends the sweep, or SLURM the job
            signal.signal(number, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return super().__call__()

    def checkpoint(self) -> Any:
        """Return the job that replaces an interrupted one: the same call, which finds its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
