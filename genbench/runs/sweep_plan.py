"""The jobs of a sweep, their outcomes, and the plan of a sweep in the folder of its experiment."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from genbench import records
from genbench.checks import ConfigError
from genbench.privacy import nearby, shared
from genbench.runs.planned import Plan

GROUPS = ("data", "model", "optimizer", "scheduler")
SWEPT: dict[Path, dict[str, Any]] = {}  # experiment folders that this process swept, and their loggers


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides and the configuration that they give."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    choices: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: the status of its record, ``error`` in one line, and the digest of the genbench that wrote
    it."""

    run_id: str
    status: str
    error: str | None = None
    accuracy: float | None = None
    seconds: float | None = None
    genbench: str | None = None
    validation: float = float("nan")  # the objective of a searching sweeper


def choices(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Return Hydra's choices in the groups that a record names."""
    return {group: str(runtime[group]) for group in GROUPS if group in runtime}


def write_plans(jobs: Sequence[Job], plans: Sequence[Plan], command: Sequence[str]) -> None:
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
    """Return the entry of a plan for a run that has a record."""
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
    """Write the plan of a command to ``folder``; a command that plans several times adds to its own plan.

    If several processes of the command plan at once, ``key`` is the key of the command.
    """
    command, claims = [nearby(word) for word in command], config.get("claims")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.nullcontext() if key is None else FileLock(folder / records.LOCK):
            if planned_with(folder, key) if key is not None else folder in SWEPT:
                already = records.read_sweep(folder)
                if already["command"] == shared(command):
                    runs = list({run["run_id"]: run for run in (*already["runs"], *runs)}.values())
                    claims = _joined(already["claims"], claims)
            records.tidy(folder, runs=True)
            records.write_sweep(
                folder,
                {
                    "experiment": folder.name,
                    "command": command,
                    "table": config.get("table"),
                    "claims": claims,
                    "paper": config.get("paper"),
                    "planned": datetime.now(UTC).isoformat(timespec="seconds"),
                    "runs": list(runs),
                    **({} if key is None else {"key": key}),
                },
            )
    except OSError as error:
        raise ConfigError(f"runs_dir={str(folder.parent)!r} cannot be written: {error.strerror}") from None
    SWEPT[folder] = config["logger"]


def _joined(already: Mapping[str, Any] | None, claims: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the claims with the settings that either part of a command changed."""
    changed = dict.fromkeys(text for block in (already, claims) for text in (block or {}).get("changed", ()))
    return {**claims, "changed": list(changed)} if claims and changed else claims


def planned_with(folder: Path, key: str) -> bool:
    """Tell whether a process of the command with this key wrote the plan in ``folder``."""
    try:
        return records.read_sweep(folder).get("key") == key
    except records.RecordError:
        return False


def outcome_of(record: Mapping[str, Any]) -> Outcome:
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
    """Return the accuracy on the validation split, by which a searching sweeper chooses; nan without one."""
    value = record["metrics"].get("val/performance/accuracy")
    return float("nan") if value is None else value
