"""The runs of one experiment: plan them all, then train what is missing on several processes."""

import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench import records
from genbench.checks import check_integer
from genbench.config import ConfigError, Plan

GROUPS = ("data", "model", "optimizer", "scheduler")
SWEPT: dict[Path, dict[str, Any]] = {}  # experiment folders that this process has swept, with their loggers


@dataclass(frozen=True)
class Job:
    """One run of a sweep: the overrides that name it and the configuration they give."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    choices: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the status of its record, ``error`` in one line."""

    run_id: str
    status: str
    error: str | None = None
    accuracy: float | None = None
    seconds: float | None = None


def choices(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """What Hydra chose in the groups that a record names."""
    return {group: str(runtime[group]) for group in GROUPS if group in runtime}


def run(jobs: Sequence[Job], *, n_jobs: int, command: Sequence[str]) -> list[Outcome]:
    """Train every job that has no final record, ``n_jobs`` at a time.

    All jobs are checked before the first one starts: an invalid configuration refuses the whole sweep, in one line, and
    nothing is written. Then each experiment folder gets its plan (``sweep.json``). A job whose process dies is recorded
    as failed and the others go on.
    """
    from pebble import ProcessPool

    check_integer("hydra.launcher.n_jobs", n_jobs, least=1)
    if not jobs:
        raise ConfigError("the sweep is empty: one of its values is an empty list or range")
    # fork from a process that has imported torch once and runs no threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genbench.experiment"])
    workers = min(n_jobs, len(jobs))
    with ProcessPool(max_workers=workers, context=context, initializer=_end_with_parent) as pool:
        try:
            plans = _plan(pool, jobs)
            first = {planned.folder: index for index, (planned, _) in reversed(list(enumerate(plans)))}
            own = sorted(first.values())  # jobs that are one run, [l2,mixup] and [mixup,l2] say, are trained once
            trained = _train_planned(pool, [jobs[i] for i in own], [plans[i] for i in own], command, workers)
            outcomes = dict(zip(own, trained, strict=True))
            return [outcomes[first[planned.folder]] for planned, _ in plans]
        except BaseException:
            pool.stop()
            raise


def _train_planned(
    pool: Any, jobs: Sequence[Job], plans: Sequence[tuple[Plan, Outcome | None]], command: Sequence[str], workers: int
) -> list[Outcome]:
    from genbench.report.table import check

    for job, (planned, _) in zip(jobs, plans, strict=True):
        check(job.config.get("table"), planned.bound, planned.choices)
    _write_plans(jobs, [planned for planned, _ in plans], command)
    return _train(pool, jobs, plans, workers=workers)


def _end_with_parent() -> None:
    """End this worker as soon as the process that swept is gone, however it ended; its run continues next time."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _plan(pool: Any, jobs: Sequence[Job]) -> list[tuple[Plan, Outcome | None]]:
    """What identifies each job, and its outcome if it has been trained already."""
    futures = [pool.schedule(_prepare, args=(job.config, job.choices)) for job in jobs]
    plans = []
    for job, future in zip(jobs, futures, strict=True):
        try:
            plans.append(future.result())
        except ValueError as error:
            raise ConfigError(f"{error}  [{' '.join(job.overrides)}]") from None
    return plans


def _prepare(config: dict[str, Any], chosen: dict[str, Any]) -> tuple[Plan, Outcome | None]:
    from genbench import experiment

    planned = experiment.plan(config, choices=chosen)
    record = experiment.final_record(planned.folder)
    if record is None:
        experiment.check(config)
        return planned, None
    return planned, _outcome(record)


def _write_plans(jobs: Sequence[Job], plans: Sequence[Plan], command: Sequence[str]) -> None:
    folders: dict[Path, list[int]] = {}
    for index, planned in enumerate(plans):
        folders.setdefault(planned.folder.parent, []).append(index)
    for folder, members in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            records.write_sweep(
                folder,
                {
                    "schema": records.SCHEMA,
                    "experiment": folder.name,
                    "command": list(command),
                    "table": jobs[members[0]].config.get("table"),
                    "runs": [{"run_id": plans[i].run_id, "overrides": list(jobs[i].overrides)} for i in members],
                },
            )
        except OSError as error:
            raise ConfigError(f"runs_dir={str(folder.parent)!r} cannot be written: {error.strerror}") from None
        SWEPT[folder] = jobs[members[0]].config["logger"]


def _train(
    pool: Any, jobs: Sequence[Job], plans: Sequence[tuple[Plan, Outcome | None]], *, workers: int
) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {index: outcome for index, (_, outcome) in enumerate(plans) if outcome is not None}
    varying = _varying(jobs)
    todo = deque((index, False) for index in range(len(jobs)) if index not in outcomes)
    with _Progress(total=len(jobs), done=len(outcomes)) as progress:
        running: dict[Future[Any], int] = {}
        while todo or running:
            while todo and len(running) < workers:
                index, patient = todo.popleft()
                job = jobs[index]
                running[pool.schedule(_execute, args=(job, varying[index], patient))] = index
                progress.update(running=len(running))
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                index = running.pop(future)
                outcome = _result(future, jobs[index], plans[index][0])
                if outcome is None:  # another process trains it: come back when there is nothing else to do
                    todo.append((index, True))
                else:
                    outcomes[index] = outcome
                    progress.finished(" ".join(varying[index]), outcome)
                progress.update(running=len(running))
    return [outcomes[index] for index in range(len(jobs))]


def _execute(job: Job, overrides: Sequence[str], patient: bool) -> Outcome | None:
    """Train one job in a worker; None if another process is at it and ``patient`` is false."""
    from genbench import experiment

    try:
        record = experiment.run(job.config, choices=job.choices, overrides=overrides, wait=patient)
    except experiment.Interrupted as stopped:  # this run alone: Ctrl-C in the terminal reaches the sweep itself too
        return Outcome("", "failed", str(stopped))
    return None if record is None else _outcome(record)


def _result(future: "Future[Any]", job: Job, planned: Plan) -> Outcome | None:
    from pebble import ProcessExpired

    try:
        return future.result()
    except ProcessExpired as death:
        error = _cause_of_death(death.exitcode)
    except Exception as failure:  # the record itself could not be written: a full disk, say
        return Outcome(planned.run_id, "failed", f"{type(failure).__name__}: {failure}")
    from genbench import experiment

    return _outcome(experiment.write_failure(planned, experiment=job.config["name"], error=error))


def _cause_of_death(exitcode: int) -> str:
    import signal

    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with exit status {exitcode}"


def _outcome(record: Mapping[str, Any]) -> Outcome:
    return Outcome(
        record["run_id"],
        record["status"],
        record["error"],
        record["metrics"].get("test/performance/accuracy"),
        record["seconds"].get("total"),
    )


def _varying(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """The overrides that tell the jobs apart."""
    count = Counter(override for job in jobs for override in job.overrides)
    return [tuple(o for o in job.overrides if count[o] < len(jobs)) or job.overrides for job in jobs]


class _Progress:
    """One bar over the runs and one quiet line for each that ends."""

    def __init__(self, *, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[running]} running, {task.fields[failed]} failed"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("runs", total=total, completed=done, running=0, failed=0, left="")
        self._total, self._already, self._failed, self._started = total, done, 0, time.monotonic()

    def __enter__(self) -> "_Progress":
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def update(self, *, running: int) -> None:
        self._bar.update(self._task, running=running)

    def finished(self, label: str, outcome: Outcome) -> None:
        self._failed += outcome.status != "completed"
        self._bar.advance(self._task)
        task = self._bar.tasks[0]
        done = task.completed - self._already
        left = (self._total - task.completed) * (time.monotonic() - self._started) / done
        self._bar.update(self._task, failed=self._failed, left=f"about {_duration(left)} left" if left else "")
        result = (
            f"test accuracy {outcome.accuracy:.3f}"
            if outcome.accuracy is not None
            else f"{outcome.status}: {outcome.error}"
        )
        took = f"  {outcome.seconds:.1f} s" if outcome.seconds is not None else ""
        colour = None if outcome.status == "completed" else "red"
        self._bar.console.print(f"{label}  {result}{took}", style=colour, highlight=False, markup=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
