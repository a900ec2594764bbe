"""The record of a run: whether a final one is there, which of its measures are outdated, and how it is written."""

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.utils import get_object

from genbench import records
from genbench.runs.planned import Plan
from genbench.runs.provenance import provenance
from genbench.runs.state import remove_state

FINAL = ("completed", "diverged")  # statuses of a record after which the same command does not train again


def final_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that need not be trained again: undamaged, and completed or diverged."""
    try:
        record = records.verify(folder)
    except (records.RecordError, OSError):
        return None
    return record if record["status"] in FINAL else None


def finished_record(planned: Plan) -> dict[str, Any] | None:
    """The record of a run that need be neither trained nor measured again."""
    record = final_record(planned.folder)
    if record is None or outdated_measures(planned, record):
        return None
    with contextlib.suppress(OSError):  # left by a process that was killed after it wrote the record
        remove_state(planned.folder)
    return record


def outdated_measures(planned: Plan, record: Mapping[str, Any]) -> list[str]:
    """The user's measures whose code has changed since they measured a completed run."""
    if record["status"] != "completed" or "weights.pt" not in record["files"]:
        return []
    known = record["provenance"].get("measures") or {}
    return [path for path, code in planned.measures.items() if (known.get(path) or {}).get("code") != code]


def measure_codes(planned: Plan, callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """For each of the user's measures, the digest of its code and the keys of its estimates; for the record."""
    found = {}
    for path, code in planned.measures.items():
        _, callback, _, name = path.split(".", 3)
        keys = getattr(callbacks.get(callback), "origins", {}).get(name, [])
        found[path] = {"code": code, "keys": keys}
    return found


def write_failure(planned: Plan, *, experiment: str, error: str) -> dict[str, Any]:
    """Write the record of a run that failed before it could write its own; keep a final one that is there."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(planned.folder / records.LOCK):  # another process may be training it by now
        finished = final_record(planned.folder)
        return finished or write_record(planned, experiment=experiment, status="failed", error=error, seconds={})


def write_record(
    planned: Plan,
    *,
    experiment: str,
    status: str,
    error: str | None,
    seconds: Mapping[str, float],
    estimates: Mapping[str, Any] | None = None,
    measures: Mapping[str, Any] | None = None,
    history: str | None = None,
    lanes: int = 1,
) -> dict[str, Any]:
    """Write the record of a run, and return it as it is read back."""
    unmeasured = None if status == "completed" else error if status == "diverged" else f"{status}: {error}"
    parts = records.estimate_parts(estimates or {}, unmeasured)
    if planned.source.notes:
        parts["notes"]["code"] = "; ".join(planned.source.notes)
    records.write(
        planned.folder,
        {
            "schema": records.SCHEMA,
            "run_id": planned.run_id,
            "experiment": experiment,
            "status": status,
            "error": error,
            "config": planned.bound,
            "choices": planned.choices,
            "altered": {
                name: reason
                for name, node in planned.bound["regularization"].items()
                if (reason := getattr(get_object(node["_target_"]), "alters", ""))
            },
            "seed": planned.bound["seed"],
            **parts,
            "history": history,
            "provenance": {
                **provenance(planned.bound),
                "code": planned.source.digest,
                "data": planned.data_digest,
                "data_path": planned.data_from_files,
                "overrides": list(planned.typed),
                "lanes": lanes,
                **({} if planned.claims is None else {"claims": planned.claims}),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **({"measures": dict(measures)} if measures else {}),
            },
            "seconds": dict(seconds),
        },
    )
    return records.read(planned.folder / records.RECORD)


def write_history(path: Path, measured: Sequence[Mapping[str, Any]]) -> str | None:
    """Write one row for each step at which something was measured; the file's name, or None without a row."""
    rows: dict[int, dict[str, Any]] = {}
    for row in measured:
        rows.setdefault(row["step"], {}).update(row)
    if not rows:
        return None
    columns = ["epoch", "step", *sorted({key for row in rows.values() for key in row} - {"epoch", "step"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows[step] for step in sorted(rows))
    records.write_atomic(path, text.getvalue(), settle=False)  # the record follows
    return path.name
