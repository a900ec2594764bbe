"""A directory of records: the runs of one experiment, the plan of its last sweep, and the state of each run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from genbench.privacy import shared
from genbench.process import collecting
from genbench.records import added
from genbench.records.files import digest, write_atomic
from genbench.records.record import (
    READABLE,
    RECORD,
    SCHEMA,
    RecordError,
    check_digest,
    check_json,
    content_of,
    flatten,
    is_name,
    parse,
    read_run,
    verify,
)

if TYPE_CHECKING:
    import pandas as pd

SWEEP = "sweep.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Records:
    """The records of one experiment's folder.

    ``records`` holds the valid ones sorted by run_id, ``problems`` the others as (relative path, reason), ``sweep`` the
    plan of the last sweep command (``None`` without one).
    """

    folder: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    sweep: dict[str, Any] | None = None

    def frame(self) -> "pd.DataFrame":
        """Return one row a record: run_id, status, error, seed, ``choices.*``, ``config.*``, metric keys,
        ``seconds.*``."""
        import pandas as pd

        return pd.DataFrame([_flat(record) for record in self.records])


@collecting.paused()
def load(folder: str | os.PathLike[str]) -> Records:
    """Read all records of ``runs/<experiment>``, each with the measures that were added to its run; what cannot be
    trusted is listed in ``problems``."""
    folder = Path(folder)
    valid: list[dict[str, Any]] = []
    problems: list[tuple[str, str]] = []
    for run in sorted(path.parent for path in folder.glob(f"*/{RECORD}")):
        try:
            record = read_run(run)
        except RecordError as error:
            problems.append((f"{run.name}/{RECORD}", str(error)))
            continue
        try:
            more = added.read(run)
        except RecordError as error:
            problems.append((f"{run.name}/{added.FILE}", str(error)))
            more = added.Added()
        if stale := [name for name, part in more.parts.items() if not added.of_weights(record, part)]:
            reason = f"{', '.join(stale)}: not of the weights of the record"
            problems.append((f"{run.name}/{added.FILE}", reason))
        valid.append(added.merged(record, more) if more.parts else record)
    sweep = None
    if (folder / SWEEP).exists():
        try:
            sweep = read_sweep(folder)
        except RecordError as error:
            problems.append((SWEEP, str(error)))
    return Records(folder, sorted(valid, key=lambda record: record["run_id"]), problems, sweep)


def configuration(config: Mapping[str, Any]) -> str:
    """Return the digest of a configuration without any seed: runs with the same digest belong to one cell of a table.
    All seeds are left out, as a measure may have one of its own.

    """

    def without(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: without(value) for key, value in node.items() if key != "seed"}
        return [without(value) for value in node] if isinstance(node, list | tuple) else node

    return digest(without(shared(config)))[:12]


def earlier_code(loaded: Records) -> set[str]:
    """Return the ids of records whose configuration was trained, or is planned, with later code of the user's.

    If a configuration has records of several codes, the one planned or finished last counts; records of schema 2 name
    no code and count as the earliest.
    """
    plan = loaded.sweep or {}
    codes = [record["provenance"].get("code") for record in loaded.records]
    planned = [(run.get("configuration"), run.get("code"), plan.get("planned")) for run in plan.get("runs", [])]
    if not any(codes) and not any(code for _, code, _ in planned):
        return set()
    keys = [configuration(record["config"]) for record in loaded.records]
    times = [record["provenance"].get("finished") for record in loaded.records]
    last: dict[Any, tuple[str, Any]] = {}
    for key, code, when in [*zip(keys, codes, times, strict=True), *planned]:
        if (when := str(when or "")) >= last.get(str(key), ("", None))[0]:
            last[str(key)] = when, code
    return {
        record["run_id"] for record, key, code in zip(loaded.records, keys, codes, strict=True) if last[key][1] != code
    }


def status(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return run_id → done, diverged, running, failed, missing (planned, no record) or damaged, in the sweep's order.

    A run is running while the lock ``<run_id>/.lock`` is held. The query never waits and creates nothing, but holds the
    lock of an unfinished run for an instant: a process that acquires it to train must allow for that.
    """
    folder = Path(folder)
    try:
        planned = [run["run_id"] for run in read_sweep(folder)["runs"]]
    except RecordError:
        planned = []
    found = sorted(path.parent.name for name in (RECORD, LOCK) for path in folder.glob(f"*/{name}"))
    result = {}
    for run_id in dict.fromkeys([*planned, *found]):
        state = _state(folder / run_id)
        if state != "missing" or run_id in planned:
            result[run_id] = state
    return result


def read_sweep(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the plan of the last sweep in ``runs/<experiment>``; raises ``RecordError`` if absent, malformed or
    altered."""
    sweep = parse(Path(folder) / SWEEP)
    if sweep.get("schema") not in READABLE:
        accepted = " and ".join(map(str, READABLE))
        raise RecordError(f"has schema {sweep.get('schema')!r}, this version reads {accepted}")
    if sweep["schema"] < 3:
        sweep = shared(sweep)
    else:
        check_digest(sweep)
    runs = sweep.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) and is_name(run.get("run_id")) for run in runs):
        raise RecordError("'runs' must be a list of objects with a run_id")
    for key in ("table", "claims", "paper"):
        if not isinstance(sweep.get(key), dict | None):
            raise RecordError(f"'{key}' must be an object or null")
    if not isinstance(sweep.get("command"), list):
        raise RecordError("'command' must be a list of strings")
    return sweep


def write_sweep(folder: str | os.PathLike[str], sweep: dict[str, Any]) -> None:
    """Write the plan of a sweep to ``runs/<experiment>/sweep.json`` with its digest, without what must not be
    shared."""
    sweep = shared({**content_of(sweep), "schema": SCHEMA})
    check_json(sweep, "")
    sweep["digest"] = digest(sweep)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomic(Path(folder) / SWEEP, json.dumps(sweep, indent=1, allow_nan=False) + "\n")


def _state(folder: Path) -> str:
    state = "missing"
    if (folder / RECORD).exists():
        try:
            record = verify(folder)
        except RecordError:
            state = "damaged"
        else:
            state = {"completed": "done"}.get(record["status"], record["status"])
    return "running" if state in ("missing", "failed", "damaged") and running(folder) else state


def running(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a process holds the lock of the run in ``folder``, that is, trains it."""
    folder = Path(folder)
    if not (folder / LOCK).exists():  # acquiring it would create the file
        return False
    try:
        with FileLock(folder / LOCK, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:  # another user's folder
        return False


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: record[key] for key in ("run_id", "experiment", "status", "error", "seed")}
    for part in ("choices", "config", "seconds"):
        row |= flatten(record[part], part)
    return row | record["metrics"]
