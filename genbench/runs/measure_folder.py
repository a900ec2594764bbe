"""Measure every run of an experiment's folder, several at a time; tables read the values with the records."""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench import loggers, records
from genbench.callbacks.base import kind_of
from genbench.checks import ConfigError, check_integer
from genbench.config import bind, one_line
from genbench.process import progress
from genbench.records import added
from genbench.runs import build, source
from genbench.runs.executors import Processes, running
from genbench.runs.measure_group import Asked
from genbench.runs.measure_run import Outcome, fail, left, measure_runs
from genbench.runs.subject import Config, check_trust, hidden

_LANES = 1  # runs of one structure that are measured together
_MOST = 8  # names in a line
_OF_ONE = ("key", "initial", "output")  # settings of one network
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What a command did, in lines, and whether a run could not be measured."""

    lines: list[str]
    failed: bool


def run(config: Config) -> Measured:
    """Measure every completed run in the folder ``checkpoint``, ``n_jobs`` at a time.

    Each value is written beside the record of its run as soon as it is there: the same command continues. What is there
    of the same settings, weights and code is not measured again. The values of a run that cannot be measured are null,
    with the reason; the others go on.

    Args:
        config: that of ``conf/measure.yaml``.

    Raises:
        ConfigError: a setting that is not accepted, or no run to measure; in one line, before anything is written.
    """
    folder = Path(config["checkpoint"])
    _check(config)
    asked = Asked.of(config)
    chosen = _Chosen.of(folder, config)
    work = _Work(folder, config, asked, chosen.runs)
    print("\n".join([work.summary, *chosen.left_out]), file=sys.stderr, flush=True)
    work.run()
    return Measured([*work.lines()], any(outcome.error for outcome in work.outcomes.values()))


def _check(config: Config) -> None:
    """Refuse settings of one network, and other data than those of the runs: their values would look like the runs'."""
    check_integer("n_jobs", config["n_jobs"], least=1)
    for name in _OF_ONE:
        if config[name] is not None:
            raise ConfigError(f"{name}={config[name]} is of one network; accepted with a folder of runs: null")
    if strange := sorted(config["data"].keys() - {"path"}):
        raise ConfigError(
            f"data.{strange[0]}: the runs of a folder are measured on their own data; accepted: data.path=FOLDER, "
            "where these lie now"
        )
    bind({"logger": config["logger"]})
    loggers.check_adds({name: build.make(node) for name, node in config["logger"].items()})
    if not config["measures"]:
        raise ConfigError("measures is empty, so nothing is to be measured; accepted: measures=full, say")


@dataclass(frozen=True)
class _Chosen:
    """The records of the runs that can be measured, and lines about the others."""

    runs: list[Record]
    left_out: list[str]

    @classmethod
    def of(cls, folder: Path, config: Config) -> "_Chosen":
        """Choose the runs of a folder.

        Raises:
            ConfigError: there is none, or its data lie where it is not said.
        """
        loaded = records.load(folder)
        earlier = records.earlier_code(loaded)
        runs: list[Record] = []
        others: dict[str, list[str]] = {}  # why not -> a line about each
        for record in loaded.records:
            if (kind := _why_not(folder, record, earlier)) is not None:
                others.setdefault(kind, []).append("")
            elif (reason := _distrusted(record, config)) is not None:
                others.setdefault("of somebody else", []).append(reason)
            else:
                runs.append(record)
        for run_id in _without_record(folder, loaded):
            kind = "still in training" if records.running(folder / run_id) else "unfinished"
            others.setdefault(kind, []).append("")
        lines = [
            f"left out: {_count(len(each), 'run')} {kind}" + (f": {each[0]}" if each[0] else "")
            for kind, each in others.items()
        ]
        lines += [f"not read: {path} {reason}" for path, reason in loaded.problems]
        if not runs:
            raise ConfigError(_nothing(folder, lines))
        _check_given(runs, config)
        return cls(runs, lines)


def _check_given(runs: Sequence[Record], config: Config) -> None:
    """Refuse a command that lacks what records do not hold, or gives what they hold.

    Raises:
        ConfigError: what is accepted; in one line.
    """
    from_files = [record for record in runs if record["provenance"].get("data_path")]
    if from_files and "path" not in config["data"]:
        raise ConfigError(
            f"{_count(len(from_files), 'run')} trained on files, and records do not say where they lie; accepted: "
            "data.path=FOLDER, the same files"
        )
    lost = [key for record in runs for key in hidden(record)]
    if missing := [key for key in lost if key not in config["model"]]:
        raise ConfigError(f"the records do not hold model.{missing[0]}, which was not to be shared; give it again")
    if strange := sorted(config["model"].keys() - lost):
        raise ConfigError(f"model.{strange[0]}: the model is that of each run; accepted: no setting of it")


def _why_not(folder: Path, record: Record, earlier: set[str]) -> str | None:
    """Return why a run has nothing to measure, in words that follow "run"; None if it has."""
    if record["status"] != "completed":
        return f"that {record['status']}"
    if record["run_id"] in earlier:
        return "of earlier code"
    there = "weights.pt" in record["files"] and (folder / record["run_id"] / "weights.pt").is_file()
    return None if there else "without weights.pt"


def _distrusted(record: Record, config: Config) -> str | None:
    """Return why the code that a record names is not run; None if it is."""
    try:
        check_trust(record, config)
    except Exception as error:  # it may be of any form
        return one_line(error)
    return None


def _without_record(folder: Path, loaded: records.Records) -> list[str]:
    """Return the ids of runs that are planned or begun, and have no record."""
    planned = [run["run_id"] for run in (loaded.sweep or {}).get("runs", [])]
    begun = sorted(path.parent.name for path in folder.glob(f"*/{records.LOCK}"))
    return [run_id for run_id in dict.fromkeys([*planned, *begun]) if not (folder / run_id / records.RECORD).exists()]


def _nothing(folder: Path, lines: Sequence[str]) -> str:
    """Return why there is nothing to measure in a folder, in one line."""
    if lines:
        return f"checkpoint={folder.name!r} has no run that can be measured; {'; '.join(lines[:_MOST])}"
    inside = sorted({path.parents[1] for path in folder.glob(f"*/*/{records.RECORD}")})
    hint = f"did you mean {inside[0]}?" if inside else "accepted: a run's folder, a folder of runs, a file"
    return f"checkpoint={folder.name!r} is a folder without {records.RECORD}, and none of its folders has one; {hint}"


class _Work:
    """The runs of a folder, and what becomes of them."""

    def __init__(self, folder: Path, config: Config, asked: Asked, runs: Sequence[Record]) -> None:
        self._folder, self._config, self._asked = folder, config, asked
        self._ids = [record["run_id"] for record in runs]
        self.outcomes: dict[str, Outcome] = {}
        todo, self._other = [], 0
        for record in runs:
            parts = _parts(folder / record["run_id"])
            if left(asked.of_run(record), asked, parts):
                todo.append(record)
            else:
                made = {parts[part].made.get("genbench_code") for part in asked.parts.values()}
                self._other += made != {source.of_genbench()}
        self._missing = len(todo)
        self._todo = deque(_units(runs if config["logger"] else todo))  # what is there may not be logged yet

    @property
    def summary(self) -> str:
        """The number of runs, and of those to measure, in words."""
        there = len(self._ids) - self._missing
        others = f", {self._other} by another genbench" if self._other else ""
        measured = f"; {there} measured already{others}" if there else ""
        names = _listed(list(self._asked.parts.values()))
        return f"{_count(len(self._ids), 'run')}: {self._missing} to measure{measured} ({names})"

    def run(self) -> None:
        """Measure the runs that are left."""
        if not self._todo:
            return
        workers = min(self._config["n_jobs"], len(self._todo))
        executor, since = Processes(n_jobs=workers), time.time()
        done = len(self._ids) - sum(map(len, self._todo))
        with (
            running(executor, units=len(self._todo)),
            progress.Sweep(total=len(self._ids), done=done, each=False) as shown,
        ):
            begun: dict[Future[Any], list[str]] = {}
            waiting: deque[list[str]] = deque()  # measured by another command: tried again at the end
            while self._todo or waiting or begun:
                while (self._todo or waiting) and len(begun) < workers:
                    patient = not self._todo
                    ids = (waiting if patient else self._todo).popleft()
                    folders = [self._folder / run_id for run_id in ids]
                    begun[executor.submit(measure_runs, folders, self._config, patient)] = ids
                finished, _ = wait(begun, timeout=progress.NOTED, return_when=FIRST_COMPLETED)
                for future in finished:
                    if later := self._take(begun.pop(future), executor, future, shown):
                        waiting.append(later)
                notes = [(len(ids), progress.read(self._folder / ids[0], since=since)) for ids in begun.values()]
                shown.update(notes, waiting=len(self._todo) + len(waiting))

    def _take(self, ids: list[str], executor: Processes, future: "Future[Any]", shown: progress.Sweep) -> list[str]:
        """Settle a finished unit; return the runs that another process measures."""
        try:
            outcomes = executor.result(future)
        except Exception as error:  # its process died
            outcomes = [self._failed(run_id, error) for run_id in ids]
        for run_id, outcome in zip(ids, outcomes, strict=True):
            if outcome is not None:
                self.outcomes[run_id] = outcome
                status = "failed" if outcome.error else "completed"
                shown.finished(run_id, status=status, result=f"failed: {outcome.error}", seconds=None)
        return [run_id for run_id, outcome in zip(ids, outcomes, strict=True) if outcome is None]

    def _failed(self, run_id: str, error: Exception) -> Outcome:
        try:
            return fail(self._folder / run_id, self._config, error)
        except Exception as other:
            return Outcome(run_id, error=f"{one_line(error)}; {one_line(other)}")

    def lines(self) -> Iterator[str]:
        """Say what was measured, replaced and not measured, and where the values are."""
        done = [outcome for outcome in self.outcomes.values() if not outcome.error]
        taken = sum(outcome.taken for outcome in done)
        if taken:
            of = _count(sum(outcome.taken > 0 for outcome in done), "run")
            yield f"{_count(taken, 'measure')} taken of {of}; their values are in {added.FILE} beside the records"
        for (name, why), count in Counter(item for each in done for item in each.replaced.items()).items():
            yield f"replaced: {name} of {_count(count, 'run')}, which was of {why}"
        yield from _compared(done)
        yield from _unmeasured(done)
        failed = [outcome for outcome in self.outcomes.values() if outcome.error]
        for outcome in failed[:_MOST]:
            yield f"failed: {outcome.run_id}: {outcome.error}"
        if failed[_MOST:]:
            yield f"failed: {len(failed) - _MOST} more"
        if failed:
            yield "the same command measures these again"
        metrics = [key for name in self._asked.measures for key in self._asked.keys(name)]
        yield f"genbench-table {os.path.relpath(self._folder)} --columns {','.join(metrics[:3])} shows them"


def _parts(folder: Path) -> Mapping[str, added.Part]:
    try:
        return added.read(folder).parts
    except records.RecordError:
        return {}


def _units(todo: Sequence[Record]) -> Iterator[list[str]]:
    """Yield the ids of runs that are measured together, of one structure and of the same data; units of the same data
    follow one another, so that a process makes these once."""
    groups: dict[str, list[str]] = {}
    for record in todo:
        config = record["config"]
        structure = [config.get("model"), sorted(source.targets(config.get("regularization")))]
        key = f"{records.digest(config.get('data'))} {records.digest(structure)}"
        groups.setdefault(key, []).append(record["run_id"])
    for _, ids in sorted(groups.items()):
        yield from (ids[start : start + _LANES] for start in range(0, len(ids), _LANES))


def _compared(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Say of metrics that the records have as well whether the values are the same."""
    same = sum(value for outcome in outcomes for value in outcome.again.values())
    other = Counter(key for outcome in outcomes for key, value in outcome.again.items() if not value)
    if same:
        yield f"{_count(same, 'value')} in the records as well, the same"
    if other:
        several = f"{_count(other.total(), 'value')} in the records as well, and others there, which tables show"
        yield f"{several}: {_listed(list(other))}"


def _unmeasured(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Say which metrics have no value, a line for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        for metric, reason in outcome.nulls.items():
            found.setdefault((metric, kind_of(reason)), []).append(reason)
    for (metric, _), reasons in found.items():
        yield f"no value: {metric} of {_count(len(reasons), 'run')}: {reasons[0]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
