"""The runs of one experiment: plan them all, then train what is missing, several at a time."""

import contextlib
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from genbench import records
from genbench.checks import check_integer, check_number
from genbench.config import ConfigError
from genbench.privacy import nearby, shared
from genbench.process import progress
from genbench.runs.executors import Died, Executor, OutOfTime, Processes, limited
from genbench.runs.plan import Plan

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
    """How a job ended: the status of its record, ``error`` in one line, ``genbench``: the code that wrote it."""

    run_id: str
    status: str
    error: str | None = None
    accuracy: float | None = None
    seconds: float | None = None
    genbench: str | None = None
    validation: float = float("nan")  # what a sweeper that searches goes by


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
    dry: bool = False,
    listed: bool = True,
) -> list[Outcome]:
    """Train every job that has no final record, ``executor.n_jobs`` at a time.

    All jobs are checked before the first one starts, on processes of this machine: an invalid configuration refuses the
    whole sweep, in one line, and nothing is written. Then each experiment folder gets its plan (``sweep.json``). A job
    whose process dies, with whatever status, is tried again, from its checkpoint, ``retries`` times, and then recorded
    as failed; the others go on. One that takes more than ``timeout`` seconds is ended and recorded as failed; a pack
    may take as many times longer as it has runs.

    With ``lanes``, jobs that can be one network train as one: at most so many networks at a time, or with ``"auto"`` as
    many as fit in memory once every process has something to do. What cannot be packed is trained by itself, and said.

    With ``dry`` they are ``listed`` on standard output, and nothing is written or trained.
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
        if dry:
            if listed:
                sweep.show(here)
            return [one.outcome or Outcome(one.plan.run_id, "planned") for one in prepared]
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
    from genbench.report.figures import sweep  # noqa: F401 - what the report needs, while the workers import what they need

    prepared = []
    for job, future in zip(jobs, futures, strict=True):
        try:
            prepared.append(here.result(future))
        except (ValueError, Died) as error:
            raise ConfigError(f"{error}  [{' '.join(job.overrides)}]") from None
    return prepared


def _prepare(config: dict[str, Any], chosen: dict[str, Any], packed: bool, remote: bool) -> Prepared:
    import torch

    from genbench.runs import plan
    from genbench.runs.run import finished_record

    planned = plan.plan(config, choices=chosen)
    record = finished_record(planned)
    if record is not None:
        return Prepared(planned, _outcome(record))
    if remote and config["trainer"].get("accelerator") == "gpu" and not torch.cuda.is_available():
        config = {**config, "trainer": {**config["trainer"], "accelerator": "cpu"}}  # all but the device can be checked
    plan.check(config)
    if not packed:
        return Prepared(planned)
    from genbench.runs.packed import key

    return Prepared(planned, None, key(planned), records.members(planned.bound))


def _write_plans(jobs: Sequence[Job], plans: Sequence[Plan], command: Sequence[str]) -> None:
    folders: dict[Path, list[int]] = {}
    for index, planned in enumerate(plans):
        folders.setdefault(planned.folder.parent, []).append(index)
    for folder, members in folders.items():
        runs = [
            {
                "run_id": plans[i].run_id,
                "overrides": list(jobs[i].overrides),
                "configuration": records.configuration(plans[i].bound),
                "code": plans[i].source.digest,
            }
            for i in members
        ]
        write_plan(folder, jobs[members[0]].config, command=command, runs=runs)


def planned_run(record: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What a plan says of a run that has a record."""
    return {
        "run_id": record["run_id"],
        "overrides": list(overrides),
        "configuration": records.configuration(record["config"]),
        "code": record["provenance"].get("code"),
    }


def write_plan(
    folder: Path,
    config: Mapping[str, Any],
    *,
    command: Sequence[str],
    runs: Sequence[Mapping[str, Any]],
    key: str | None = None,
) -> None:
    """Note in ``folder`` which runs this command is for; a command that plans several times adds to its own.

    Where its processes do so, side by side, ``key`` is that of the command.
    """
    command = [nearby(word) for word in command]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.nullcontext() if key is None else FileLock(folder / records.LOCK):
            if planned_with(folder, key) if key is not None else folder in SWEPT:
                already = records.read_sweep(folder)
                if already["command"] == shared(command):
                    runs = list({run["run_id"]: run for run in (*already["runs"], *runs)}.values())
            records.tidy(folder, runs=True)
            records.write_sweep(
                folder,
                {
                    "experiment": folder.name,
                    "command": command,
                    "table": config.get("table"),
                    "planned": datetime.now(UTC).isoformat(timespec="seconds"),
                    "runs": list(runs),
                    **({} if key is None else {"key": key}),
                },
            )
    except OSError as error:
        raise ConfigError(f"runs_dir={str(folder.parent)!r} cannot be written: {error.strerror}") from None
    SWEPT[folder] = config["logger"]


def planned_with(folder: Path, key: str) -> bool:
    """Whether processes of the command of this key have planned what ``folder`` holds."""
    try:
        return records.read_sweep(folder).get("key") == key
    except records.RecordError:
        return False


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
    def already(self) -> str | None:
        """How many runs need no training, in words; None if all do."""
        from genbench.runs import source

        there = self._outcomes.values()
        if not there:
            return None
        others = sum(outcome.genbench != source.of_genbench() for outcome in there)
        made = f", {others} made by another genbench" if others else ""
        return f"{len(there)} of {len(self._jobs)} were there already{made}"

    @property
    def missing(self) -> int:
        """How many units are to do."""
        return len(self._todo)

    def show(self, here: Executor) -> None:
        """Print every run, and whether it is to be trained."""
        self._todo = deque(self._units(here))
        for index, planned in enumerate(self._plans):
            state = "there" if index in self._outcomes else "train"
            print(state, planned.run_id, " ".join(self._varying[index]), sep="  ")
        print(self._summary(), flush=True)

    def plan(self, command: Sequence[str], here: Executor) -> None:
        """Write the plans and decide what trains together; ``here`` computes on this machine."""
        from genbench.report.spec import check

        for job, planned in zip(self._jobs, self._plans, strict=True):
            check(job.config.get("table"), planned.bound, planned.choices)
        _write_plans(self._jobs, self._plans, command)
        self._todo = deque(self._units(here))
        print(self._summary(), file=sys.stderr, flush=True)

    def _summary(self) -> str:
        """How many runs there are, and how many of them are to do."""
        missing = sum(len(unit.jobs) for unit in self._todo)
        there = self.already
        if not missing:
            return there or ""
        packs = sum(unit.packed for unit in self._todo)
        alone = len(self._todo) - packs
        how = f" as {packs} {'pack' if packs == 1 else 'packs'}" + (f" and {alone} alone" if alone else "")
        total = f"{len(self._jobs)} {'run' if len(self._jobs) == 1 else 'runs'}"
        return f"{total}: {missing} to train{how if packs else ''}" + (f"; {there}" if there else "")

    def train(self) -> None:
        """Train what is missing."""
        since = time.time()
        with progress.Sweep(total=len(self._jobs), done=len(self._outcomes)) as self._progress:
            running: dict[Future[Any], Unit] = {}
            while self._todo or running:
                while self._todo and len(running) < self._workers:
                    unit = self._todo.popleft()
                    running[self._start(unit)] = unit
                finished, _ = wait(running, timeout=progress.NOTED, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._take(running.pop(future), future)
                self._progress.update(
                    [(len(unit.jobs), self._note_of(unit, since)) for unit in running.values()], waiting=len(self._todo)
                )

    def _note_of(self, unit: Unit, since: float) -> progress.Note | None:
        """How far a unit is; a pack says so in the folder of the first of its runs that it trains."""
        notes = (progress.read(self._plans[index].folder, since=since) for index in unit.jobs)
        return next((note for note in notes if note is not None), None)

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
        jobs = [self._jobs[i] for i in unit.jobs]
        varying, plans = ([every[i] for i in unit.jobs] for every in (self._varying, self._plans))
        timeout = None if self._timeout is None else self._timeout * len(jobs)
        if unit.packed:
            return self._executor.submit(_execute_pack, jobs, varying, plans, timeout)
        return self._executor.submit(_execute, jobs[0], varying[0], plans[0], unit.patient, timeout)

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
            from genbench.runs.run import write_failure

            outcome = _outcome(write_failure(planned, experiment=job.config["name"], error=str(death)))
        except Exception as failure:  # the record itself could not be written: a full disk, say
            outcome = Outcome(planned.run_id, "failed", f"{type(failure).__name__}: {failure}")
        self._settle(index, outcome)

    def _settle(self, index: int, outcome: Outcome | None) -> None:
        if outcome is None:  # another process trains it: come back when there is nothing else to do
            self._todo.append(Unit((index,), patient=True))
        else:
            self._outcomes[index] = outcome
            result = (
                f"test accuracy {outcome.accuracy:.3f}"
                if outcome.accuracy is not None
                else ": ".join(filter(None, (outcome.status, outcome.error)))
            )
            label = " ".join(self._varying[index])
            self._progress.finished(label, status=outcome.status, result=result, seconds=outcome.seconds)


def _halves(pack: list[int]) -> list[list[int]]:
    middle = (len(pack) + 1) // 2
    return [pack[:middle], pack[middle:]]


def _unfinished(folder: Path) -> list[list[str]]:
    from genbench.runs import packed

    return packed.unfinished(folder)


def _fitting(config: dict[str, Any], processes: int, spread: bool) -> int:
    """How many lanes fit where so many processes share the memory, ``spread`` over all GPUs or not."""
    import torch

    from genbench.runs import packed

    if spread:
        processes = -(-processes // max(1, torch.cuda.device_count()))
    return packed.fitting(config, processes=processes)


def _execute_pack(
    jobs: Sequence[Job], overrides: Sequence[Sequence[str]], plans: Sequence[Plan], timeout: float | None
) -> list[Outcome | None]:
    """Train jobs as one in a worker; None for those that another process is at."""
    from genbench.runs import packed
    from genbench.runs.run import Interrupted

    try:
        with limited(timeout):
            found = packed.run(
                [job.config for job in jobs],
                choices=[job.choices for job in jobs],
                overrides=overrides,
                typed=[job.overrides for job in jobs],
                expected=plans,
            )
    except Interrupted as stopped:
        return [Outcome("", "failed", str(stopped))] * len(jobs)
    return [None if record is None else _outcome(record) for record in found]


def _execute(job: Job, overrides: Sequence[str], planned: Plan, patient: bool, timeout: float | None) -> Outcome | None:
    """Train one job in a worker; None if another process is at it and ``patient`` is false."""
    from genbench.runs import execute
    from genbench.runs.run import Interrupted

    try:
        with limited(None if patient else timeout):  # who waits for another process does not hang
            record = execute.run(
                job.config,
                choices=job.choices,
                overrides=overrides,
                typed=job.overrides,
                expected=planned,
                wait=patient,
            )
    except Interrupted as stopped:  # this run alone: Ctrl-C in the terminal reaches the sweep itself too
        return Outcome("", "failed", str(stopped))
    return None if record is None else _outcome(record)


def _outcome(record: Mapping[str, Any]) -> Outcome:
    return Outcome(
        record["run_id"],
        record["status"],
        record["error"],
        record["metrics"].get("test/performance/accuracy"),
        record["seconds"].get("total"),
        record["provenance"].get("genbench_code"),
        validation(record),
    )


def validation(record: Mapping[str, Any]) -> float:
    """The accuracy on the validation split, by which a sweeper that searches chooses; nan where there is none."""
    value = record["metrics"].get("val/performance/accuracy")
    return float("nan") if value is None else value


def _varying(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """The overrides that tell the jobs apart."""
    count = Counter(override for job in jobs for override in job.overrides)
    return [tuple(o for o in job.overrides if count[o] < len(jobs)) or job.overrides for job in jobs]
