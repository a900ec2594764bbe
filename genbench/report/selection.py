"""The runs that a table, a figure or a report shows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from genbench import records
from genbench.analysis.statistics import LARGEST
from genbench.privacy import clean
from genbench.records.settings import show, shown

_CONTENT = "sha256:"  # prefix of weights that are known by their digest


@dataclass(frozen=True)
class SelectedRun:
    """A run that has a record or is planned; ``overrides`` are the plan's, ``state`` says how the run ended. ``names``
    are shown in place of digests of weights."""

    run_id: str
    state: str
    reason: str
    record: Mapping[str, Any] | None
    overrides: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The record's settings, by dotted key."""
        return records.flatten(self.record["config"]) if self.record else {}

    @cached_property
    def _texts(self) -> dict[str, str | None]:
        return {}

    def text(self, key: str) -> str | None:
        """Return a setting or choice as shown, from the record, or without one from the plan; None if absent."""
        if key not in self._texts:
            self._texts[key] = self._shown(key)
        return self._texts[key]

    def _shown(self, key: str) -> str | None:
        if self.record is not None and key in self.record["choices"]:
            return show(self.record["choices"][key])
        values = self.overrides if self.record is None else self.config
        return shown(values[key], self.names) if key in values else None

    def value(self, key: str) -> Any:
        """Return a setting or choice of the record, by dotted key."""
        return self.config.get(key, self.record["choices"].get(key) if self.record else None)

    def measured(self, metric: str) -> float | None:
        """Return a metric of a completed run, or a time (``seconds.<name>``); None if absent."""
        if self.record is None or self.record["status"] != "completed":
            return None
        if metric.startswith("seconds."):
            return self.record["seconds"].get(metric.removeprefix("seconds."))
        return self.record["metrics"].get(metric)


@dataclass(frozen=True)
class Selection:
    """The ``runs`` of an experiment that are shown, planned ones first; the lines of ``left_out`` name the others.

    ``folder`` holds them, and ``sweep`` is the plan of the last command; either may be None. ``problems`` are
    unreadable records, as (path, reason).
    """

    name: str
    runs: Sequence[SelectedRun]
    left_out: Sequence[str] = ()
    folder: Path | None = None
    sweep: Mapping[str, Any] | None = None
    problems: Sequence[tuple[str, str]] = ()

    @property
    def unregistered(self) -> str | None:
        """Why the last command gives no claims to judge; None if it does."""
        if (self.sweep or {}).get("claims") is not None:
            return None
        damaged = [f"{path}: {reason}" for path, reason in self.problems if path == records.SWEEP]
        return damaged[0] if damaged else "the last command registered no claims"

    @cached_property
    def records(self) -> list[Mapping[str, Any]]:
        """The records of the runs that have one."""
        return [run.record for run in self.runs if run.record is not None]


def load(folder: str | Path, *, everything: bool = False) -> Selection:
    """Load the runs that the last command planned in ``folder``; without a plan or with ``everything``, all runs.

    ``left_out`` names the other runs and unreadable records. Numbers too large to be averaged count as missing, with
    the reason.
    """
    loaded = records.load(folder)
    return select(loaded, everything=everything)


def select(loaded: records.Records, *, everything: bool = False) -> Selection:
    """Select runs as :func:`load` does, from records that were read already."""
    by_id = {record["run_id"]: record for record in loaded.records}
    damaged = {path.split("/")[0] for path, _ in loaded.problems}
    left_out = [f"{path} {reason}" for path, reason in loaded.problems]
    if earlier := records.earlier_code(loaded):
        left_out.append(f"{len(earlier)} run{'s' * (len(earlier) > 1)} of earlier code")
        by_id = {run_id: record for run_id, record in by_id.items() if run_id not in earlier}
    runs = []
    for plan in (loaded.sweep or {}).get("runs", []):
        run_id, overrides = plan["run_id"], planned(plan.get("overrides", []))
        if (record := by_id.pop(run_id, None)) is not None:
            runs.append(of_record(record, overrides))
        elif run_id in damaged:
            runs.append(SelectedRun(run_id, "damaged", "record damaged", None, overrides))
        elif records.running(loaded.folder / run_id):
            runs.append(SelectedRun(run_id, "running", "still running", None, overrides))
        else:
            runs.append(SelectedRun(run_id, "missing", "not run yet", None, overrides))
    if loaded.sweep and not everything and by_id:
        some = f"{len(by_id)} runs of other commands" if len(by_id) > 1 else "1 run of another command"
        left_out.append(f"{some} in this folder; genbench-table --all shows all")
        by_id = {}
    for record in by_id.values():
        if record["status"] == "failed" and loaded.sweep:  # from an earlier plan: it has no numbers to show
            left_out.append(f"{record['run_id']}: not in the last sweep; failed: {record['error']}")
        else:
            runs.append(of_record(record))
    if names := _names(runs):
        runs = [replace(run, names=names) for run in runs]
    named = loaded.sweep or (loaded.records[0] if loaded.records else {})
    name = str(named.get("experiment") or loaded.folder.resolve().name)
    return Selection(name, runs, left_out, loaded.folder, loaded.sweep, loaded.problems)


def _names(runs: Sequence[SelectedRun]) -> dict[str, str]:
    """Return the unambiguous names that the plan has for weights, by the digest in records and by the source as typed:
    a run without a record has no digest."""
    found: dict[str, set[str]] = {}
    typed: dict[str, str] = {}
    for run in runs:
        for key, text in run.overrides.items():
            own = run.config.get(key)
            if isinstance(own, str) and own.startswith(_CONTENT) and text != own:
                found.setdefault(own, set()).add(_name(text))
                typed[text] = own
    count = Counter(name for names in found.values() for name in names)
    names = {content: min(names) for content, names in found.items() if len(names) == 1 and count[min(names)] == 1}
    return names | {text: names[content] for text, content in typed.items() if content in names}


def _name(source: str) -> str:
    """Return the name of weights: of a file its own, of a run its experiment's and its own.

    >>> [_name(source) for source in ("teacher", "nets/teacher.pt", "runs/teachers/1ea98c14e70e", "hf://me/net")]
    ['teacher', 'teacher.pt', 'teachers/1ea98c14e70e', 'hf://me/net']
    """
    if "://" in source or "/" not in source:
        return source
    path = PurePosixPath(source)
    return path.name if path.suffix else "/".join(part for part in path.parts[-2:] if part != "…")


def of_record(record: Mapping[str, Any], overrides: Mapping[str, str] | None = None) -> SelectedRun:
    """Return the run of a record."""
    error = clean(record["error"] or "")
    reason = error if error.startswith(record["status"]) else f"{record['status']}: {error}".rstrip(": ")
    return SelectedRun(record["run_id"], record["status"], reason, _computable(record), overrides or {})


def _computable(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record with numbers that are too large to be averaged replaced by None, and notes that say so."""
    wild = {
        part: {key: value for key, value in record[part].items() if value is not None and not abs(value) <= LARGEST}
        for part in ("metrics", "seconds")
    }
    if not any(wild.values()):
        return record
    reasons = {
        key: f"{Decimal(value):.3g} is too large to be averaged"
        for part, prefix in (("metrics", ""), ("seconds", "seconds."))
        for key, value in ((prefix + name, value) for name, value in wild[part].items())
    }
    missing = {part: {**record[part], **dict.fromkeys(found)} for part, found in wild.items()}
    return {**record, **missing, "notes": {**record["notes"], **reasons}}


def planned(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values of Hydra overrides as shown, by key.

    >>> planned(["regularization=[mixup,l2]", "data.label_noise=0.20", "+x='a'"])
    {'regularization': 'l2+mixup', 'data.label_noise': '0.2', 'x': 'a'}
    """
    values = {}
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        key = key.split("@")[0]
        try:
            parsed: Any = json.loads(value)
        except ValueError:
            parsed = value.strip("'\"")
            if value.startswith("[") and value.endswith("]"):
                parsed = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        # a group's choices are recorded sorted
        values[key] = show(sorted(parsed, key=str) if isinstance(parsed, list) and "." not in key else parsed)
    return values
