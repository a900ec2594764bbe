"""The summary of an experiment: a CSV file with a line a run, from which table, figures and verdicts are made again."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench import records
from genbench.privacy import clean, shared
from genbench.report.figures.custom import numbers
from genbench.report.format import natural
from genbench.report.selection import SelectedRun, Selection, of_record
from genbench.report.spec import DEFAULT_COLUMNS

_FIXED = ("run_id", "status", "seed", "lanes", "claims", "error", "altered", "notes", "unconverged")
_LAST = "sweep"  # only the first line has it: what belongs to all runs
_PARTS = ("choices", "config", "seconds")  # of a record, each with its columns
# settings that the table and the verdicts read without naming them
_READ = (
    "model.normalization",
    *(f"data.{key}" for key in ("seed", "train_size", "val_fraction", "label_noise")),
)
_MADE = ("genbench", "git", "python", "torch", "device", "threads")  # of the provenance
_MOST = 2**24  # bytes of a summary


def write(selection: Selection) -> str:
    """Return the summary of an experiment's runs, in the order of their plan.

    It holds every choice, the settings that vary, the settings and metrics that the claims, the table and its figures
    name, the seconds, and in the last field of the first line the command, the seconds of one process and the versions.
    Numbers are in full precision. Text that reads like a number, or like a formula of a spreadsheet, is in quotes.
    A metric that is null says ``null``; an empty field is absent.
    """
    sweep = selection.sweep or {}
    table = sweep.get("table") or {}
    named = set(strings([table, table.get("columns") or DEFAULT_COLUMNS, sweep.get("claims")]))
    found = selection.records
    metrics = {name for record in found for name in record["metrics"]}
    wanted = {name for name in metrics if name in named}
    wanted |= {name for each in named if each.count("*") == 1 for name in numbers(each, metrics)}
    seconds = {name for record in found for name in record["seconds"] if f"seconds.{name}" in named or name == "total"}
    choices = {name for record in found for name in record["choices"]}
    columns = [
        *_FIXED,
        *(f"choices.{name}" for name in sorted(choices)),
        *(f"config.{key}" for key in _settings(selection.runs, named)),
        *(f"seconds.{name}" for name in sorted(seconds)),
        *sorted(wanted, key=natural),
    ]
    rows = [shared(_row(run, wanted)) for run in selection.runs]
    kept = [name for name in columns if name in _FIXED[:3] or any(row.get(name) is not None for row in rows)]
    if rows:
        rows[0][_LAST] = json.dumps(shared(_about(selection)), ensure_ascii=False)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*kept, _LAST])
    writer.writerows([row.get(name, "") for name in (*kept, _LAST)] for row in rows)
    return buffer.getvalue()


def read(path: Path, experiment: Mapping[str, Any]) -> Selection:
    """Return the runs of a summary as those of a folder: table, figures and verdicts are the same.

    Args:
        path: the CSV file.
        experiment: the nodes ``table``, ``claims`` and ``paper`` of the experiment, and its ``name``.

    Raises:
        ValueError: it is no summary; one line.
    """
    try:
        lines = list(csv.reader(io.StringIO(records.read_bytes(path, limit=_MOST).decode())))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from None
    head, *body = lines or [[]]
    if head[:3] != [*_FIXED[:3]] or head[-1] != _LAST or any(len(line) != len(head) for line in body):
        raise ValueError(f"{path} is no summary of runs; accepted: what genbench-table FOLDER --summary prints")
    name = str(experiment["name"])
    try:
        runs = [_run({key: cell for key, cell in zip(head, line, strict=True) if cell}, name) for line in body]
        about = json.loads(body[0][-1]) if body else {}
        command = list(map(str, about["command"])) if about else []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no summary of runs: {clean(error)}") from None
    planned = [{"run_id": run.run_id, "overrides": []} for run in runs]
    nodes = {key: experiment.get(key) for key in ("table", "claims", "paper")}
    if nodes["claims"] is not None and "changed" in about:
        nodes["claims"] = {**nodes["claims"], "changed": about["changed"]}
    return Selection(
        name, runs, sweep={"experiment": name, "command": command, **nodes, "runs": planned, "about": about}
    )


def process_seconds(found: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the seconds for which one process would train and measure the runs; None if a record has none.

    A run of a pack has its share of the time in which the pack trains. So the sum is right for packs and for sweeps
    that were continued; several processes at once take as much less.
    """
    totals = [record["seconds"].get("total") for record in found]
    known = [total for total in totals if total is not None]
    return sum(known) if len(known) == len(totals) else None


def _about(selection: Selection) -> dict[str, Any]:
    """Return what the scoreboard says of all runs: the command, the seconds, the versions."""
    provenances = [record["provenance"] for record in selection.records]
    seconds = process_seconds(selection.records)
    made: dict[str, Any] = {}
    for name in _MADE:
        values = dict.fromkeys(str(each[name]) for each in provenances if each.get(name) is not None)
        if values:
            made[name] = ", ".join(sorted(values, key=natural))
    sweep = selection.sweep or {}
    if changed := (sweep.get("claims") or {}).get("changed"):
        made["changed"] = changed
    command = list(sweep.get("command") or [])
    return {"command": command, "seconds": None if seconds is None else round(seconds, 1), **made}


def _settings(runs: Sequence[SelectedRun], named: set[str]) -> list[str]:
    """Return the settings that vary, and those that are read by name; a copy of the seed is neither."""
    recorded = [run for run in runs if run.record is not None]
    seeds = [run.record["seed"] for run in recorded if run.record is not None]
    found = []
    for key in sorted({key for run in recorded for key in run.config}, key=natural):
        values = [run.config.get(key, ...) for run in recorded]
        varies = any(value != values[0] for value in values) and values != seeds
        if varies or key in named or key in _READ or key.endswith(".members"):
            found.append(key)
    return found


def _row(run: SelectedRun, metrics: set[str]) -> dict[str, Any]:
    """Return the fields of a run, None where there is nothing to say; a missing run has what was planned."""
    record = run.record
    if record is None:
        planned = {
            f"{part}.{key}": _cell(text) for key, text in run.overrides.items() for part in ("choices", "config")
        }
        return {"run_id": run.run_id, "status": "missing", "seed": run.overrides.get("seed", ""), **planned}
    kept = {name: value for name, value in record["metrics"].items() if name in metrics}
    notes = {
        name: said
        for name, text in record["notes"].items()
        if ((name in kept and record["status"] == "completed") or name not in record["metrics"])
        and (said := _said(text))
    }
    unconverged = [name for name in sorted(kept, key=natural) if record["converged"].get(name) is False]
    named = {key: run.names.get(value, value) if isinstance(value, str) else value for key, value in run.config.items()}
    flat = records.flatten(dict(record["choices"]), "choices") | records.flatten(named, "config")
    flat |= records.flatten(dict(record["seconds"]), "seconds")
    lanes = record["provenance"].get("lanes", 1)
    return {
        "run_id": run.run_id,
        "status": record["status"],
        "seed": record["seed"],
        "lanes": lanes if lanes > 1 else None,
        "claims": record["provenance"].get("claims"),
        "error": None if record["error"] is None else _cell(clean(record["error"])),
        "altered": json.dumps(record["altered"], ensure_ascii=False) if record["altered"] else None,
        "notes": json.dumps(notes, ensure_ascii=False, sort_keys=True) if notes else None,
        "unconverged": json.dumps(unconverged) if unconverged else None,
        **{name: _cell(value) for name, value in (flat | kept).items()},
    }


def _said(note: str) -> str:
    """Return a note without how a search went, which no table shows."""
    return "; ".join(part for part in note.split("; ") if not part.startswith(records.SEARCH))


def _run(cells: Mapping[str, str], experiment: str) -> SelectedRun:
    """Return the run of a line."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in (*_PARTS, "metrics")}
    for name, cell in cells.items():
        part, _, key = name.partition(".")
        if part in _PARTS and key:
            parts[part][key] = _value(cell)
        elif name not in (*_FIXED, _LAST):
            parts["metrics"][name] = _value(cell)
    if cells["status"] == "missing":
        planned = {key: str(value) for part in ("config", "choices") for key, value in parts[part].items()}
        return SelectedRun(cells["run_id"], "missing", "not run yet", None, {**planned, "seed": cells.get("seed", "?")})
    if cells["status"] not in records.STATUSES:
        raise ValueError(f"status is {cells['status']!r}; accepted: missing, {', '.join(records.STATUSES)}")
    for part in ("metrics", "seconds"):
        for name, value in parts[part].items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{name} is {value!r}; accepted: a number, or null")
    lists = {name: json.loads(cells.get(name, "{}")) for name in ("altered", "notes")}
    provenance = {"lanes": int(cells.get("lanes", 1)), **({"claims": cells["claims"]} if "claims" in cells else {})}
    return of_record(
        {
            "schema": records.SCHEMA,
            "run_id": cells["run_id"],
            "experiment": experiment,
            "status": cells["status"],
            "error": str(_value(cells["error"])) if "error" in cells else None,
            "seed": int(cells["seed"]),
            **parts,
            "config": _nested(parts["config"]),
            **lists,
            **{name: {} for name in ("stderr", "residual", "interval", "measure_seconds", "files")},
            "converged": dict.fromkeys(json.loads(cells.get("unconverged", "[]")), False),
            "history": None,
            "provenance": provenance,
        }
    )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested mappings.

    >>> _nested({"data.seed": 3, "data.label_noise": 0.2, "seed": 3})
    {'data': {'seed': 3, 'label_noise': 0.2}, 'seed': 3}
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        node = nested
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return nested


def _cell(value: Any) -> str:
    """Return a value as JSON, and text as it is unless it would be read as something else.

    >>> [_cell(value) for value in (0.1, None, True, "l2+sam", "", "1", "=1+1")]
    ['0.1', 'null', 'true', 'l2+sam', '""', '"1"', '"=1+1"']
    """
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    plain = value.isprintable() and not re.match(r"[=+@\t\r\"-]|$", value) and _value(value) is value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _value(cell: str) -> Any:
    """Return the value that :func:`_cell` wrote."""
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def strings(node: Any) -> Iterator[str]:
    """Yield every key and every text of nested values."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from strings(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node
