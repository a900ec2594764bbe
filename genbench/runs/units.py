"""Units of work of a sweep, one run or one pack, and the functions that workers execute."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench import records
from genbench.runs.executors import limited
from genbench.runs.planned import Plan
from genbench.runs.sweep_plan import Job, Outcome, outcome_of


@dataclass(frozen=True)
class Prepared:
    """A job before it starts: its plan, its outcome if it was trained before, for packing its group and its lanes, and
    the metric keys that it can have, ``*`` in place of what is not known."""

    plan: Plan
    outcome: Outcome | None = None
    group: str = ""
    lanes: int = 1
    metrics: frozenset[str] = frozenset("*")


@dataclass(frozen=True)
class Unit:
    """A unit of work: one run or one pack. ``patient``: wait for another process's lock; ``tries``: how often its
    process died."""

    jobs: tuple[int, ...]
    packed: bool = False
    patient: bool = False
    tries: int = 0


def prepare(config: dict[str, Any], chosen: dict[str, Any], packed: bool, remote: bool) -> Prepared:
    import torch

    from genbench.runs import plan
    from genbench.runs.results import finished_record

    planned = plan.plan(config, choices=chosen)
    record = finished_record(planned)
    if record is not None:
        known = record["metrics"] if record["status"] == "completed" else "*"  # one that diverged may have none
        return Prepared(planned, outcome_of(record), metrics=frozenset(known))
    if remote and config["trainer"].get("accelerator") == "gpu" and not torch.cuda.is_available():
        config = {
            **config,
            "trainer": {**config["trainer"], "accelerator": "cpu"},
        }  # all but the device
    metrics = plan.check(config, planned.datamodule)
    if not packed:
        return Prepared(planned, metrics=metrics)
    from genbench.runs.packing import key

    return Prepared(planned, None, key(planned), records.members(planned.bound), metrics)


def halves(pack: list[int]) -> list[list[int]]:
    middle = (len(pack) + 1) // 2
    return [pack[:middle], pack[middle:]]


def interrupted_packs(folder: Path) -> list[list[str]]:
    from genbench.runs import pack_checkpoints

    return pack_checkpoints.unfinished(folder)


def lanes_that_fit(config: dict[str, Any], processes: int, spread: bool) -> int:
    """Return how many lanes fit in memory if ``processes`` share it; ``spread`` over all GPUs or not."""
    import torch

    from genbench.runs import packing

    if spread:
        processes = -(-processes // max(1, torch.cuda.device_count()))
    return packing.lanes_that_fit(config, processes=processes)


def execute_pack(
    jobs: Sequence[Job], overrides: Sequence[Sequence[str]], plans: Sequence[Plan], timeout: float | None
) -> list[Outcome | None]:
    """Train jobs as one pack in a worker; None for each job that another process trains."""
    from genbench.runs import execute
    from genbench.runs.run import Interrupted

    try:
        with limited(timeout):
            found = execute.run_packed(
                [job.config for job in jobs],
                choices=[job.choices for job in jobs],
                overrides=overrides,
                typed=[job.overrides for job in jobs],
                expected=plans,
            )
    except Interrupted as stopped:
        return [Outcome("", "failed", str(stopped))] * len(jobs)
    return [None if record is None else outcome_of(record) for record in found]


def execute_run(
    job: Job, overrides: Sequence[str], planned: Plan, patient: bool, timeout: float | None
) -> Outcome | None:
    """Train one job in a worker; None if another process trains it and ``patient`` is false."""
    from genbench.runs import execute
    from genbench.runs.run import Interrupted

    try:
        with limited(None if patient else timeout):  # a process that waits for another one does not hang
            record = execute.run(
                job.config,
                choices=job.choices,
                overrides=overrides,
                typed=job.overrides,
                expected=planned,
                wait=patient,
            )
    except Interrupted as stopped:  # ends this run alone: Ctrl-C in the terminal also reaches the sweep
        return Outcome("", "failed", str(stopped))
    return None if record is None else outcome_of(record)
