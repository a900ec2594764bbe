"""Where the units of a sweep are computed: processes of this machine, or what joblib, submitit and Ray offer."""

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import re
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType
from typing import Any

from genbench.checks import ConfigError, check_choice, check_integer, check_number, require
from genbench.process.termination import asked, terminable
from genbench.records import clean

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


class Processes(Executor):
    """Processes of this machine, forked from one that has imported torch already; each has a GPU, in turn where there
    are several. What dies is replaced when there is something to compute."""

    def start(self, *, units: int, folder: Path) -> None:
        self._begun = _begun()
        self._threads = ThreadPoolExecutor(min(self.n_jobs, units))  # each sees to a process of its own
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
    """A process that computes one function after the other, and the pipe to it."""

    def __init__(self, begun: Any) -> None:
        context = start_server()
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), begun))
        self.process.start()
        theirs.close()

    def compute(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """What the process makes of it; :class:`Died` if it ends instead, with whatever status."""
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
        """Have the process end once it has nothing to do, or with ``abort`` as soon as its checkpoint is written."""
        if abort:
            self.process.terminate()
        else:
            self._pipe.close()


@functools.cache
def _begun() -> Any:
    """Counts the processes that were started, for their GPUs; it lasts as long as this process, as a worker that is
    still starting when its executor ends would miss it."""
    return start_server().Value("i", 0)


def _serve(pipe: Any, pid: int, begun: Any) -> None:
    """What a worker does until the process that sweeps closes the pipe or sends SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the sweep, which ends its workers
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
    """The error, or one that says the same where it does not come through a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(clean(f"{type(error).__name__}: {error}"))
    return error


class Joblib(Executor):
    """Processes of this machine, started by joblib's loky."""

    def __init__(self, *, n_jobs: int) -> None:
        super().__init__(n_jobs=n_jobs)
        self._loky = require("joblib.externals.loky", extra="joblib", needed_by="hydra/launcher=joblib")

    def start(self, *, units: int, folder: Path) -> None:
        self._idle: list[Any] = []
        self._busy: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        # a pool a process: one that dies breaks its pool, and would take with it whatever else is computed there
        pool = (
            self._idle.pop()
            if self._idle
            else self._loky.ProcessPoolExecutor(max_workers=1, initializer=_end_with, initargs=(os.getpid(),))
        )
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
        if abort:  # once their checkpoints are written
            for pool in self._busy.values():
                for pid in list(getattr(pool, "_processes", {})):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
            wait(self._busy, timeout=GRACE)
        for pool in [*self._idle, *self._busy.values()]:
            pool.shutdown(kill_workers=abort)


class Submitit(Executor):
    """Jobs of submitit, one for each function: ``cluster`` is ``local`` or ``slurm``, settings are those of its
    ``update_parameters``, where None leaves the cluster's default.

    A job that SLURM preempts, or that runs out of its time ``max_num_timeout`` times at most, is queued again and
    continues from its checkpoint. What jobs leave is kept in ``folder`` until they have ended well.
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
        self._asking = threading.Lock()  # jobs share what they know of the queue
        self._jobs: dict[Future[Any], Any] = {}

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        # what it starts on this machine would print a traceback at a Ctrl-C in the terminal; stop() ends it
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            job = self._executor.submit(_Requeued(function, args))
        except self._submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"SLURM does not take the job: {_last_line(error)}") from None
        finally:
            signal.signal(signal.SIGINT, before)
        future: Future[Any] = Future()
        self._jobs[future] = job
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
        except errors.FailedJobError as failure:  # before or after the function: it catches its own
            trace, _, _ = str(failure).partition("\n----------------------\nYou can check")
            raise Died(f"the job failed: {_last_line(trace)}") from None
        except errors.UncompletedJobError:
            state = job.state if self._cluster == "slurm" else "killed (out of memory?)"
            raise Died(f"the job ended without a result: {state}") from None
        self._forget(job)
        if error is not None:
            raise error
        return value

    def _forget(self, job: Any) -> None:
        """Remove the files of a job that nobody asks about any more."""
        for path in self._folder.glob(f"{job.job_id}_*"):
            path.unlink(missing_ok=True)
        for link in self._folder.glob(".submission_file_*.sh"):
            if not link.exists():
                link.unlink(missing_ok=True)

    def stop(self, *, abort: bool) -> None:
        for job in self._jobs.values():
            if self._cluster == "slurm":
                job.cancel(check=False)
            elif not job.done():  # its own cancel() is the signal that is ignored
                os.kill(int(job.job_id), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for job in self._jobs.values():
            while not job.done() and time.monotonic() < deadline:
                time.sleep(0.2)
            self._forget(job)
        with contextlib.suppress(OSError):  # there lies what jobs that died have left
            self._folder.rmdir()


class Ray(Executor):
    """Tasks of Ray: on the cluster at ``address``, or on one of this machine that ends with the sweep.

    ``num_cpus`` and ``num_gpus`` are what one function is given, fractions too.
    """

    def __init__(self, *, n_jobs: int, address: str | None, num_cpus: float, num_gpus: float) -> None:
        super().__init__(n_jobs=n_jobs)
        check_number("hydra.launcher.num_cpus", num_cpus, low=0)
        check_number("hydra.launcher.num_gpus", num_gpus, low=0)
        self.here, self.gpu = address is None, num_gpus > 0
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        if address is None:  # Ray reads these when it is imported
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers unless told not to
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # listens on the loopback interface alone
        self._ray = require("ray", extra="ray", needed_by="hydra/launcher=ray")

        if address is not None:  # before anything is written
            self._connect(address)

    def start(self, *, units: int, folder: Path) -> None:
        import math

        if self.here:
            self._connect(
                "local",
                num_cpus=math.ceil(self.n_jobs * self._resources["num_cpus"]),
                include_dashboard=False,
                object_store_memory=100 * 2**20,  # what goes through it is small
            )
        # Ray does not try again what died: it may be what killed the process
        self._task = self._ray.remote(_call).options(max_retries=0, **self._resources)

    def _connect(self, address: str, **settings: Any) -> None:
        import logging

        try:
            self._ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = clean(error).partition(". ")[0]
            raise ConfigError(f"hydra.launcher.address={address}: Ray does not start: {reason}") from None

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        return self._task.remote(_Call(function, args)).future()

    def result(self, future: "Future[Any]") -> Any:
        try:
            value, error = future.result()
        except self._ray.exceptions.OutOfMemoryError:
            raise Died("the process was killed by Ray: out of memory") from None
        except self._ray.exceptions.WorkerCrashedError:
            raise Died("Ray's process was killed (out of memory?)") from None
        except self._ray.exceptions.RayError as failure:
            raise Died(f"the task failed: {_last_line(failure)}") from None
        if error is not None:
            raise error
        return value

    def stop(self, *, abort: bool) -> None:
        self._ray.shutdown()  # ends the tasks of this process, on somebody else's cluster too


class _Call:
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


class _Requeued(_Call):
    """As submitit runs it: what is interrupted for want of time or priority is queued again."""

    def __call__(self) -> tuple[Any, Exception | None]:
        from submitit import JobEnvironment
        from submitit.core.utils import UncompletedJobError

        number = JobEnvironment._usr_sig()
        requeue = signal.getsignal(number)
        assert callable(requeue)

        def interrupt(signum: int, frame: FrameType | None) -> None:
            try:
                requeue(signum, frame)
            except SystemExit as end:  # queued again: the run itself must not take this for its own end
                os._exit(end.code if isinstance(end.code, int) else 1)
            except UncompletedJobError:  # too many times: the same command continues
                raise KeyboardInterrupt from None

        signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM):  # somebody ends the sweep, or SLURM the job
            signal.signal(number, signal.default_int_handler)
        return super().__call__()

    def checkpoint(self) -> Any:
        """What submitit submits in place of an interrupted job: the same, which finds its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _call(call: _Call) -> tuple[Any, Exception | None]:
    return call()


def start_server() -> Any:
    """The context of worker processes: forked from one that has imported torch once and runs no threads. It starts to
    import now."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genbench.runs.execute"])
    forkserver.ensure_running()
    return context


def _begin(pid: int, begun: Any) -> None:
    """What a worker does first; ``begun`` counts them."""
    _end_with(pid)
    _take_gpu(begun)


def _take_gpu(begun: Any) -> None:
    """Make the next of several GPUs the one that this process uses."""
    import torch

    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    if (gpus := torch.cuda.device_count()) > 1:
        torch.cuda.set_device(number % gpus)


def _end_with(pid: int) -> None:
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


def _last_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip("- ")]
    return clean(lines[-1]) if lines else type(error).__name__
