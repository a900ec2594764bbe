"""A sweep: plan all runs of an experiment, then train the missing ones, several at a time."""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

from genbench.checks import ConfigError, check_integer, check_number
from genbench.process import progress
from genbench.runs.executors import Died, Executor, OutOfTime, Processes, running
from genbench.runs.sweep_plan import Job, Outcome, outcome_of, write_plans
from genbench.runs.units import (
    Prepared,
    Unit,
    execute_pack,
    execute_run,
    halves,
    interrupted_packs,
    lanes_that_fit,
    prepare,
)

Check = Callable[[Sequence[tuple[Mapping[str, Any], Prepared]]], None]  # the configuration of each run and its plan


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
    load_check: Callable[[], Check] | None = None,
) -> list[Outcome]:
    """Train every job that has no final record, ``executor.n_jobs`` at a time.

    Processes of this machine check all jobs before the first one starts: one invalid configuration refuses the whole
    sweep, in one line, and nothing is written. Then each experiment folder gets its plan (``sweep.json``). A job whose
    process dies, with any status, is tried again from its checkpoint, ``retries`` times, and then recorded as failed;
    the others go on. A run that takes more than ``timeout`` seconds is ended and recorded as failed; a pack may take as
    many times longer as it has runs.

    With ``lanes``, jobs with the same graph train as one pack: at most so many lanes, or with ``"auto"`` as many as fit
    in memory once every process has work. Jobs that cannot be packed are trained alone, with a message.

    With ``dry`` the jobs are ``listed`` on standard output; nothing is written or trained.

    ``load_check`` is called while the workers start, as it may import much; it returns the function that checks the
    tables and the claims of the configurations against the prepared runs.
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
    with running(here, units=len(jobs)):
        prepared, check = _plan(
            here, jobs, packed=lanes is not None, remote=bool(executor.gpu) or not executor.here, load_check=load_check
        )
        first = {one.plan.folder: index for index, one in reversed(list(enumerate(prepared)))}
        own = sorted(first.values())  # jobs with one run_id, such as [l2,mixup] and [mixup,l2], are trained once
        todo = [jobs[i] for i in own], [prepared[i] for i in own]
        sweep = _Sweep(executor, *todo, lanes=lanes, timeout=timeout, retries=retries)
        if dry:
            if listed:
                sweep.show(here, check)
            return [one.outcome or Outcome(one.plan.run_id, "planned") for one in prepared]
        sweep.plan(command, here, check)
        if local:
            sweep.train()
    if not local and sweep.missing:
        with running(executor, units=sweep.missing, folder=prepared[0].plan.folder.parent):
            sweep.train()
    outcomes = dict(zip(own, sweep.outcomes, strict=True))
    return [outcomes[first[one.plan.folder]] for one in prepared]


def _on(job: Job, device: str) -> Job:
    """Return the job with the device that ``auto`` means for the executor; this machine may have another."""
    trainer = job.config["trainer"]
    if trainer.get("accelerator") != "auto":
        return job
    return replace(job, config={**job.config, "trainer": {**trainer, "accelerator": device}})


def _plan(
    here: Executor, jobs: Sequence[Job], *, packed: bool, remote: bool, load_check: Callable[[], Check] | None
) -> tuple[list[Prepared], Check | None]:
    """Prepare each job, and meanwhile load the check of tables and claims."""
    futures = [here.submit(prepare, job.config, job.choices, packed, remote) for job in jobs]
    check = None if load_check is None else load_check()
    prepared = []
    for job, future in zip(jobs, futures, strict=True):
        try:
            prepared.append(here.result(future))
        except (ValueError, Died) as error:
            raise ConfigError(f"{error}  [{' '.join(job.overrides)}]") from None
    return prepared, check


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
        self._groups: dict[str, list[int]] = {}  # jobs that may share a pack, by their key
        self._outcomes = {index: one.outcome for index, one in enumerate(prepared) if one.outcome is not None}

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcome of each job."""
        return [self._outcomes[index] for index in range(len(self._jobs))]

    @property
    def already(self) -> str | None:
        """The number of runs that need no training, in words; None without one."""
        from genbench.runs import source

        there = self._outcomes.values()
        if not there:
            return None
        others = sum(outcome.genbench != source.of_genbench() for outcome in there)
        made = f", {others} made by another genbench" if others else ""
        return f"{len(there)} of {len(self._jobs)} were there already{made}"

    @property
    def missing(self) -> int:
        """The number of units to compute."""
        return len(self._todo)

    def show(self, here: Executor, check: Check | None) -> None:
        """Check the tables and claims, and print every run and whether it is to be trained."""
        self._check(check)
        self._todo = deque(self._units(here))
        for index, planned in enumerate(self._plans):
            state = "there" if index in self._outcomes else "train"
            print(state, planned.run_id, " ".join(self._varying[index]), sep="  ")
        print(self._summary(), flush=True)

    def plan(self, command: Sequence[str], here: Executor, check: Check | None) -> None:
        """Check the tables and claims, write the plans and form the units; ``here`` computes on this machine."""
        self._check(check)
        write_plans(self._jobs, self._plans, command)
        self._todo = deque(self._units(here))
        print(self._summary(), file=sys.stderr, flush=True)

    def _check(self, check: Check | None) -> None:
        if check is not None:
            check([(job.config, one) for job, one in zip(self._jobs, self._prepared, strict=True)])

    def _summary(self) -> str:
        """Return the number of runs, and of those to train, in words."""
        missing = sum(len(unit.jobs) for unit in self._todo)
        there = self.already
        if not missing:
            return there or ""
        packs = sum(unit.packed for unit in self._todo)
        alone = len(self._todo) - packs
        how = f" as {packs} {'pack' if packs == 1 else 'packs'}" + (f" and {alone} alone" if alone else "")
        total = f"{len(self._jobs)} {'run' if len(self._jobs) == 1 else 'runs'}"
        summary = f"{total}: {missing} to train{how if packs else ''}" + (f"; {there}" if there else "")
        return "\n".join([summary, *self._alone()])

    def _alone(self) -> Iterator[str]:
        """Say of a packed sweep which runs train alone, and why."""
        found: dict[str, list[str]] = {}
        for unit in self._todo:
            if self._lanes is not None and not unit.packed and len(self._jobs) > 1:
                (index,) = unit.jobs
                found.setdefault(self._why_alone(index), []).append(" ".join(self._varying[index]))
        for reason, names in found.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"  alone: {', '.join(names[:3])}{more} ({reason})"

    def _why_alone(self, index: int) -> str:
        if len(self._groups.get(self._group(index), ())) < 2:
            return "no other run to train differs in numbers only"
        if self._lanes != "auto":
            return f"hydra.launcher.lanes={self._lanes}"
        few = len(self._todo) <= self._workers
        return f"so that {len(self._todo)} processes have work" if few else "no more fit in memory"

    def _group(self, index: int) -> str:
        """The key that jobs of one pack share."""
        return f"{self._plans[index].folder.parent} {self._prepared[index].group}"

    def train(self) -> None:
        """Train the missing runs."""
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
        """Return the progress of a unit; a pack notes it in the folder of the first run that it trains."""
        notes = (progress.read(self._plans[index].folder, since=since) for index in unit.jobs)
        return next((note for note in notes if note is not None), None)

    def _units(self, here: Executor) -> list[Unit]:
        """Return the units of work: interrupted packs as they were, then new ones, packed if ``lanes`` asks for it."""
        missing = [index for index in range(len(self._jobs)) if index not in self._outcomes]
        if self._lanes is None:
            return [Unit((index,)) for index in missing]
        packs: list[list[int]] = []
        for folder in dict.fromkeys(self._plans[index].folder.parent for index in missing):
            for ids in here.submit(interrupted_packs, folder).result():
                held = [i for i in missing if self._plans[i].folder.parent == folder and self._plans[i].run_id in ids]
                if held:
                    packs.append(held)
                    missing = [i for i in missing if i not in held]
        for index in missing:
            self._groups.setdefault(self._group(index), []).append(index)
        new = [part for group in self._groups.values() for part in self._parts(group, here)]
        if self._lanes == "auto":
            while 0 < len(packs) + len(new) < self._workers and len(largest := max(new, key=len, default=[])) > 1:
                new.remove(largest)
                new += halves(largest)
        # the widest first, so that no process works alone at the end
        packs += sorted(new, key=self._width, reverse=True)
        return [Unit(tuple(pack), packed=self._width(pack) > 1) for pack in packs]

    def _width(self, pack: Sequence[int]) -> int:
        return sum(self._prepared[index].lanes for index in pack)

    def _parts(self, group: list[int], here: Executor) -> list[list[int]]:
        """Split a group of jobs that is too wide for one pack."""
        most = self._lanes
        if most == "auto":
            if self._width(group) == 1:
                return [group]
            together = self._workers if self._executor.here else 1
            spread = isinstance(self._executor, Processes)
            most = here.submit(lanes_that_fit, self._jobs[group[0]].config, together, spread).result()
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
            return self._executor.submit(execute_pack, jobs, varying, plans, timeout)
        return self._executor.submit(execute_run, jobs[0], varying[0], plans[0], unit.patient, timeout)

    def _take(self, unit: Unit, future: "Future[Any]") -> None:
        """Settle a finished unit, or queue other units for its jobs."""
        if not unit.packed:
            self._take_one(unit, future)
            return
        several = len(unit.jobs) > 1
        try:
            results = self._executor.result(future)
        except (Died, MemoryError) as error:  # the system may have killed it for lack of memory
            self._progress.say(f"{len(unit.jobs)} packed runs: {error}; " + ("in two halves" if several else "alone"))
            smaller = halves(list(unit.jobs)) if several else [list(unit.jobs)]
            self._todo.extend(Unit(tuple(part), packed=several and self._width(part) > 1) for part in smaller)
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
            from genbench.runs.results import write_failure

            outcome = outcome_of(write_failure(planned, experiment=job.config["name"], error=str(death)))
        except Exception as failure:  # the record could not be written: a full disk, say
            outcome = Outcome(planned.run_id, "failed", f"{type(failure).__name__}: {failure}")
        self._settle(index, outcome)

    def _settle(self, index: int, outcome: Outcome | None) -> None:
        if outcome is None:  # another process trains it: try again after all other units
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


def _varying(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return, for each job, the overrides in which the jobs differ."""
    count = Counter(override for job in jobs for override in job.overrides)
    return [tuple(o for o in job.overrides if count[o] < len(jobs)) or job.overrides for job in jobs]
