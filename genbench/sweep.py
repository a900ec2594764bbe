"""The runs of one experiment: plan them all, then train what is missing, several at a time."""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench import records
from genbench.checks import check_integer, check_number
from genbench.config import ConfigError, Plan
from genbench.executors import Died, Executor, OutOfTime, Processes, limited
from genbench.privacy import clean, shared

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


@dataclass(frozen=True)
class Prepared:
    """What is known of a job before it starts: what identifies it, its outcome if it has been trained already, and
    where packs are made, what it must have in common with the others of one, and how many lanes it takes."""

    plan: Plan
    outcome: Outcome | None = None
    group: str = ""
    lanes: int = 1


@dataclass(frozen=True)
class Unit:
    """What is computed at a time: a job, or several that train as one; ``patient``: after whoever is at it;
    ``tries``: how often its process died."""

    jobs: tuple[int, ...]
    packed: bool = False
    patient: bool = False
    tries: int = 0


def run(
    jobs: Sequence[Job],
    *,
    command: Sequence[str],
    executor: Executor,
    lanes: int | str | None = None,
    timeout: float | None = None,
    retries: int = 1,
) -> list[Outcome]:
    """Train every job that has no final record, ``executor.n_jobs`` at a time.

    All jobs are checked before the first one starts, on processes of this machine: an invalid configuration refuses the
    whole sweep, in one line, and nothing is written. Then each experiment folder gets its plan (``sweep.json``). A job
    whose process dies, with whatever status, is tried again, from its checkpoint, ``retries`` times, and then recorded
    as failed; the others go on. One that takes more than ``timeout`` seconds is ended and recorded as failed; a pack
    may take as many times longer as it has runs.

    With ``lanes``, jobs that can be one network train as one: at most so many networks at a time, or with ``"auto"`` as
    many as fit in memory once every process has something to do. What cannot be packed is trained by itself, and said.
    """
    if lanes not in (None, "auto"):
        check_integer("hydra.launcher.lanes", lanes, least=1, note="or auto")
    if timeout is not None:
        check_number("hydra.launcher.timeout", timeout, low=1)
    check_integer("hydra.launcher.retries", retries, least=0)
    if not jobs:
        raise ConfigError("the sweep is empty: one of its values is an empty list or range")
    if executor.gpu is not None:
        jobs = [_on(job, "gpu" if executor.gpu else "cpu") for job in jobs]
    local = isinstance(executor, Processes)
    here = executor if local else Processes(n_jobs=min(executor.n_jobs, os.cpu_count() or 1))
    with _running(here, units=len(jobs)):
        prepared = _plan(here, jobs, packed=lanes is not None, remote=bool(executor.gpu) or not executor.here)
        first = {one.plan.folder: index for index, one in reversed(list(enumerate(prepared)))}
        own = sorted(first.values())  # jobs that are one run, [l2,mixup] and [mixup,l2] say, are trained once
        todo = [jobs[i] for i in own], [prepared[i] for i in own]
        sweep = _Sweep(executor, *todo, lanes=lanes, timeout=timeout, retries=retries)
        sweep.plan(command, here)
        if local:
            sweep.train()
    if not local and sweep.missing:
        with _running(executor, units=sweep.missing, folder=prepared[0].plan.folder.parent):
            sweep.train()
    outcomes = dict(zip(own, sweep.outcomes, strict=True))
    return [outcomes[first[one.plan.folder]] for one in prepared]


@contextlib.contextmanager
def _running(executor: Executor, *, units: int, folder: Path = Path()) -> Iterator[None]:
    executor.start(units=units, folder=folder)
    try:
        yield
    except BaseException:
        executor.stop(abort=True)
        raise
    executor.stop(abort=False)


def _on(job: Job, device: str) -> Job:
    """The job with the device that ``auto`` means where it will run; this machine may have another."""
    trainer = job.config["trainer"]
    if trainer.get("accelerator") != "auto":
        return job
    return replace(job, config={**job.config, "trainer": {**trainer, "accelerator": device}})


def _plan(here: Executor, jobs: Sequence[Job], *, packed: bool, remote: bool) -> list[Prepared]:
    """What is known of each job."""
    futures = [here.submit(_prepare, job.config, job.choices, packed, remote) for job in jobs]
    from genbench.report import figures  # noqa: F401 - what the report needs, while the workers import what they need

    prepared = []
    for job, future in zip(jobs, futures, strict=True):
        try:
            prepared.append(here.result(future))
        except (ValueError, Died) as error:
            raise ConfigError(f"{error}  [{' '.join(job.overrides)}]") from None
    return prepared


def _prepare(config: dict[str, Any], chosen: dict[str, Any], packed: bool, remote: bool) -> Prepared:
    import torch

    from genbench import experiment

    planned = experiment.plan(config, choices=chosen)
    record = experiment.final_record(planned.folder)
    if record is not None:
        return Prepared(planned, _outcome(record))
    if remote and config["trainer"].get("accelerator") == "gpu" and not torch.cuda.is_available():
        config = {**config, "trainer": {**config["trainer"], "accelerator": "cpu"}}  # all but the device can be checked
    experiment.check(config)
    if not packed:
        return Prepared(planned)
    from genbench import packing

    return Prepared(planned, None, packing.key(planned), records.members(planned.bound))


def _write_plans(jobs: Sequence[Job], plans: Sequence[Plan], command: Sequence[str]) -> None:
    folders: dict[Path, list[int]] = {}
    for index, planned in enumerate(plans):
        folders.setdefault(planned.folder.parent, []).append(index)
    for folder, members in folders.items():
        runs = [{"run_id": plans[i].run_id, "overrides": list(jobs[i].overrides)} for i in members]
        write_plan(folder, jobs[members[0]].config, command=command, runs=runs)


def write_plan(
    folder: Path, config: Mapping[str, Any], *, command: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> None:
    """Note in ``folder`` which runs this command is for; a command that plans several times adds to its own."""
    if folder in SWEPT and (already := records.read_sweep(folder))["command"] == shared(list(command)):
        runs = list({run["run_id"]: run for run in (*already["runs"], *runs)}.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        records.write_sweep(
            folder,
            {"experiment": folder.name, "command": list(command), "table": config.get("table"), "runs": list(runs)},
        )
    except OSError as error:
        raise ConfigError(f"runs_dir={str(folder.parent)!r} cannot be written: {error.strerror}") from None
    SWEPT[folder] = config["logger"]


class _Sweep:
    """The jobs of a sweep on an executor."""

    def __init__(
        self,
        executor: Executor,
        jobs: Sequence[Job],
        prepared: Sequence[Prepared],
        *,
        lanes: int | str | None,
        timeout: float | None,
        retries: int,
    ) -> None:
        self._executor, self._jobs, self._lanes = executor, jobs, lanes
        self._timeout, self._retries = timeout, retries
        self._workers = min(executor.n_jobs, len(jobs))
        self._plans = [one.plan for one in prepared]
        self._prepared = prepared
        self._varying = _varying(jobs)
        self._outcomes = {index: one.outcome for index, one in enumerate(prepared) if one.outcome is not None}

    @property
    def outcomes(self) -> list[Outcome]:
        """Of each job."""
        return [self._outcomes[index] for index in range(len(self._jobs))]

    @property
    def missing(self) -> int:
        """How many units are to do."""
        return len(self._todo)

    def plan(self, command: Sequence[str], here: Executor) -> None:
        """Write the plans and decide what trains together; ``here`` computes on this machine."""
        from genbench.report.spec import check

        for job, planned in zip(self._jobs, self._plans, strict=True):
            check(job.config.get("table"), planned.bound, planned.choices)
        _write_plans(self._jobs, self._plans, command)
        self._todo = deque(self._units(here))

    def train(self) -> None:
        """Train what is missing."""
        with _Progress(total=len(self._jobs), done=len(self._outcomes)) as self._progress:
            running: dict[Future[Any], Unit] = {}
            while self._todo or running:
                while self._todo and len(running) < self._workers:
                    unit = self._todo.popleft()
                    running[self._start(unit)] = unit
                    self._progress.update(running=sum(len(u.jobs) for u in running.values()))
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._take(running.pop(future), future)
                self._progress.update(running=sum(len(u.jobs) for u in running.values()))

    def _units(self, here: Executor) -> list[Unit]:
        """What is missing, in packs where that was asked for: those that were interrupted first, as they were."""
        missing = [index for index in range(len(self._jobs)) if index not in self._outcomes]
        if self._lanes is None:
            return [Unit((index,)) for index in missing]
        packs: list[list[int]] = []
        for folder in dict.fromkeys(self._plans[index].folder.parent for index in missing):
            for ids in here.submit(_unfinished, folder).result():
                held = [i for i in missing if self._plans[i].folder.parent == folder and self._plans[i].run_id in ids]
                if held:
                    packs.append(held)
                    missing = [i for i in missing if i not in held]
        groups: dict[str, list[int]] = {}
        for index in missing:
            groups.setdefault(f"{self._plans[index].folder.parent} {self._prepared[index].group}", []).append(index)
        new = [part for group in groups.values() for part in self._parts(group, here)]
        if self._lanes == "auto":
            while 0 < len(packs) + len(new) < self._workers and len(largest := max(new, key=len, default=[])) > 1:
                new.remove(largest)
                new += _halves(largest)
        # the longest first, so that no process is left alone with one at the end
        packs += sorted(new, key=self._width, reverse=True)
        return [Unit(tuple(pack), packed=self._width(pack) > 1) for pack in packs]

    def _width(self, pack: Sequence[int]) -> int:
        return sum(self._prepared[index].lanes for index in pack)

    def _parts(self, group: list[int], here: Executor) -> list[list[int]]:
        """A group, or where it is too wide parts of it."""
        most = self._lanes
        if most == "auto":
            if self._width(group) == 1:
                return [group]
            together = self._workers if self._executor.here else 1
            spread = isinstance(self._executor, Processes)
            most = here.submit(_fitting, self._jobs[group[0]].config, together, spread).result()
        assert isinstance(most, int)
        parts: list[list[int]] = []
        for index in group:
            if parts and self._width([*parts[-1], index]) <= most:
                parts[-1].append(index)
            else:
                parts.append([index])
        return parts

    def _start(self, unit: Unit) -> "Future[Any]":
        jobs, varying = ([every[i] for i in unit.jobs] for every in (self._jobs, self._varying))
        timeout = None if self._timeout is None else self._timeout * len(jobs)
        if unit.packed:
            return self._executor.submit(_execute_pack, jobs, varying, timeout)
        return self._executor.submit(_execute, jobs[0], varying[0], unit.patient, timeout)

    def _take(self, unit: Unit, future: "Future[Any]") -> None:
        """What came of a unit: outcomes, or other units to do."""
        if not unit.packed:
            self._take_one(unit, future)
            return
        several = len(unit.jobs) > 1
        try:
            results = self._executor.result(future)
        except (Died, MemoryError) as error:  # the system may have killed it for its memory
            self._progress.say(f"{len(unit.jobs)} packed runs: {error}; " + ("in two halves" if several else "alone"))
            halves = _halves(list(unit.jobs)) if several else [list(unit.jobs)]
            self._todo.extend(Unit(tuple(half), packed=several and self._width(half) > 1) for half in halves)
        except Exception as error:
            names = ", ".join(" ".join(self._varying[i]) for i in unit.jobs[:3]) + (", …" if len(unit.jobs) > 3 else "")
            self._progress.say(f"not packed: {len(unit.jobs)} runs ({names}): {error}")
            self._todo.extend(Unit((index,)) for index in unit.jobs)
        else:
            for index, outcome in zip(unit.jobs, results, strict=True):
                self._settle(index, outcome)

    def _take_one(self, unit: Unit, future: "Future[Any]") -> None:
        (index,) = unit.jobs
        job, planned = self._jobs[index], self._plans[index]
        try:
            outcome = self._executor.result(future)
        except Died as death:
            if unit.tries < self._retries and not isinstance(death, OutOfTime):
                self._progress.say(f"{' '.join(self._varying[index])}: {death}; tried again")
                self._todo.append(replace(unit, tries=unit.tries + 1))
                return
            from genbench import experiment

            outcome = _outcome(experiment.write_failure(planned, experiment=job.config["name"], error=str(death)))
        except Exception as failure:  # the record itself could not be written: a full disk, say
            outcome = Outcome(planned.run_id, "failed", f"{type(failure).__name__}: {failure}")
        self._settle(index, outcome)

    def _settle(self, index: int, outcome: Outcome | None) -> None:
        if outcome is None:  # another process trains it: come back when there is nothing else to do
            self._todo.append(Unit((index,), patient=True))
        else:
            self._outcomes[index] = outcome
            self._progress.finished(" ".join(self._varying[index]), outcome)


def _halves(pack: list[int]) -> list[list[int]]:
    middle = (len(pack) + 1) // 2
    return [pack[:middle], pack[middle:]]


def _unfinished(folder: Path) -> list[list[str]]:
    from genbench import packing

    return packing.unfinished(folder)


def _fitting(config: dict[str, Any], processes: int, spread: bool) -> int:
    """How many lanes fit where so many processes share the memory, ``spread`` over all GPUs or not."""
    import torch

    from genbench import packing

    if spread:
        processes = -(-processes // max(1, torch.cuda.device_count()))
    return packing.fitting(config, processes=processes)


def _execute_pack(
    jobs: Sequence[Job], overrides: Sequence[Sequence[str]], timeout: float | None
) -> list[Outcome | None]:
    """Train jobs as one in a worker; None for those that another process is at."""
    from genbench import experiment, packing

    try:
        with limited(timeout):
            found = packing.run(
                [job.config for job in jobs],
                choices=[job.choices for job in jobs],
                overrides=overrides,
                typed=[job.overrides for job in jobs],
            )
    except experiment.Interrupted as stopped:
        return [Outcome("", "failed", str(stopped))] * len(jobs)
    return [None if record is None else _outcome(record) for record in found]


def _execute(job: Job, overrides: Sequence[str], patient: bool, timeout: float | None) -> Outcome | None:
    """Train one job in a worker; None if another process is at it and ``patient`` is false."""
    from genbench import experiment

    try:
        with limited(None if patient else timeout):  # who waits for another process does not hang
            record = experiment.run(
                job.config, choices=job.choices, overrides=overrides, typed=job.overrides, wait=patient
            )
    except experiment.Interrupted as stopped:  # this run alone: Ctrl-C in the terminal reaches the sweep itself too
        return Outcome("", "failed", str(stopped))
    return None if record is None else _outcome(record)


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

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(clean(line), style="yellow", highlight=False, markup=False)

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
            else ": ".join(filter(None, (outcome.status, outcome.error)))
        )
        took = f"  {outcome.seconds:.1f} s" if outcome.seconds is not None else ""
        colour = None if outcome.status == "completed" else "red"
        self._bar.console.print(f"{clean(label)}  {clean(result)}{took}", style=colour, highlight=False, markup=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
