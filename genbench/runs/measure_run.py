"""Measure finished runs in a worker, and write the values beside their records."""

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from genbench import loggers, records
from genbench.callbacks.splits import noted
from genbench.config import one_line
from genbench.measures import Estimate
from genbench.measures.measure_progress import progress_to
from genbench.privacy import shared
from genbench.process.memory import keep_freed
from genbench.process.progress import Pace
from genbench.records import added
from genbench.records.added import Part
from genbench.runs import build, source
from genbench.runs.measure_group import Asked, measure_group, users_code
from genbench.runs.plan import training
from genbench.runs.provenance import provenance
from genbench.runs.subject import Config, Subject, device_of, hidden, load

_USUAL_LOSS = "torch.nn.functional.cross_entropy"


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run_id: of the run.
        taken: how many measures were taken now.
        error: why the run could not be measured, in one line.
        replaced: measures whose values were of something else -> of what: other settings, weights, code.
        nulls: metric keys without a value -> the reason.
        again: metric keys that the record has as well -> whether the value is the same.
    """

    run_id: str
    taken: int = 0
    error: str | None = None
    replaced: Mapping[str, str] = field(default_factory=dict)
    nulls: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, bool] = field(default_factory=dict)


def left(of: Mapping[str, Mapping[str, Any]], asked: Asked, parts: Mapping[str, Part]) -> list[str]:
    """Return the names of the measures that are to be taken: not there, of something else, or failed.

    ``of`` is what their values depend on, ``parts`` is what there is.
    """
    found = {name: parts.get(asked.parts[name]) for name in of}
    return [name for name, part in found.items() if part is None or part.failed or part.of != of[name]]


class Addition:
    """The measures that are added to a run; its folder is locked."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        self.folder, self.record = folder, records.read(folder)
        self._asked, self._of = asked, asked.of_run(self.record)
        self._before: Mapping[str, Part] = {}
        with contextlib.suppress(records.RecordError):  # damaged: nothing in it can be trusted
            self._before = added.read(folder).parts
        self._left = left(self._of, asked, self._before)
        self._parts = dict(self._before)
        self._taken: list[str] = []
        self._error: str | None = None

    @property
    def known(self) -> dict[str, Mapping[str, Estimate]]:
        """The estimates that there are already, by the measure's name."""
        return {name: self._before[self._asked.parts[name]].estimates for name in self._of if name not in self._left}

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be measured."""
        return not self._left

    def keep(self, name: str, found: Mapping[str, Estimate]) -> None:
        """Write the estimates of a measure."""
        before = dict(self._parts)
        self._put(name, noted(found, {self._asked.config["split"]: self._note}))
        try:
            added.write(self.folder, self._parts)
        except BaseException:
            self._parts = before
            raise
        self._taken.append(name)

    def fail(self, error: Exception) -> None:
        """Write that the measures that are not there cannot be taken, and why."""
        self._error = one_line(error)
        for name in self._left:
            if name not in self._taken:
                self._put(name, dict.fromkeys(self._asked.keys(name), Estimate(None, note=self._error)), failed=True)
        added.write(self.folder, self._parts)

    def _put(self, name: str, estimates: Mapping[str, Estimate], *, failed: bool = False) -> None:
        self._parts[self._asked.parts[name]] = Part(self._of[name], _made(self._asked), estimates, failed)

    @property
    def outcome(self) -> Outcome:
        """What became of the run until now."""
        metrics = self.record["metrics"]
        estimates: dict[str, Estimate] = {}
        for name in [] if self._error else self._of:
            estimates |= self._parts[self._asked.parts[name]].estimates
        return Outcome(
            self.record["run_id"],
            len(self._taken),
            self._error,
            {self._asked.parts[name]: why for name in self._left if (why := self._other(name))},
            {key: each.note or "" for key, each in estimates.items() if each.value is None},
            {key: each.value == metrics[key] for key, each in estimates.items() if key in metrics},
        )

    def _other(self, name: str) -> str:
        """What the values that were there were of, if it is something else."""
        before = self._before.get(self._asked.parts[name])
        if before is None or before.failed:
            return ""
        return ", ".join(f"other {key}" for key, value in self._of[name].items() if before.of.get(key) != value)

    @cached_property
    def _note(self) -> str | None:
        """What is to be known of values on the data of this run."""
        said = []
        if (loss := self._asked.config["loss"]["_target_"]) != _USUAL_LOSS:
            said.append(f"the loss is {loss}")
        trained = self.record["provenance"].get("code")
        if trained is not None and users_code(frozenset(source.targets(training(self.record["config"])))) != trained:
            said.append("the user's code has changed since the training")
        return "; ".join(said) or None


def measure_runs(folders: Sequence[Path], config: Config, patient: bool) -> list[Outcome | None]:
    """Measure the runs in these folders, which are of one structure, and write the values beside their records.

    An error ends one run alone. None for a run that another process measures, unless ``patient``.
    """
    asked = _asked(json.dumps(config))
    torch.set_num_threads(config["threads"])
    keep_freed()
    outcomes: dict[Path, Outcome | None] = dict.fromkeys(folders)
    ready: list[tuple[Addition, Subject]] = []
    with contextlib.ExitStack() as held, build.quiet():
        for folder in folders:
            try:
                held.enter_context(FileLock(folder / records.LOCK, timeout=-1 if patient else 1))
                records.tidy(folder, runs=False)
                one = Addition(folder, asked)
            except Timeout:
                continue
            except Exception as error:  # its record is gone, say
                outcomes[folder] = Outcome(folder.name, error=one_line(error))
                continue
            if one.is_complete:
                outcomes[folder] = one.outcome
                continue
            try:
                ready.append((one, _load(one, config)))
            except Exception as error:
                outcomes[folder] = _failed(one, error)
        if ready:
            pace = Pace(ready[0][0].folder)  # the progress of all of them
            held.callback(pace.end)
            held.enter_context(progress_to(lambda line, urgent=False: pace.say(line)))
        found = measure_group(
            [subject for _, subject in ready],
            asked,
            known=[one.known for one, _ in ready],
            keep=lambda index, name, estimates: ready[index][0].keep(name, estimates),
        )
        for (one, _), result in zip(ready, found, strict=True):
            outcomes[one.folder] = _failed(one, result) if isinstance(result, Exception) else one.outcome
        for folder, outcome in outcomes.items() if config["logger"] else ():
            if outcome is not None and outcome.error is None:
                _log(folder, config)
    return [outcomes[folder] for folder in folders]


def _log(folder: Path, config: Config) -> None:
    """Add the values of a run to its mirrors."""
    record = records.read(folder)
    whole = added.merged(record, added.read(folder))["metrics"]
    found = {key: value for key, value in whole.items() if key not in record["metrics"] and value is not None}
    parts = {name: build.make(node) for name, node in config["logger"].items()}
    loggers.add(parts, folder, experiment=record["experiment"], metrics=found)


def fail(folder: Path, config: Config, error: Exception) -> Outcome:
    """Write that a run could not be measured, such as one that ended its process."""
    with FileLock(folder / records.LOCK):
        return _failed(Addition(folder, _asked(json.dumps(config))), error)


def _failed(one: Addition, error: Exception) -> Outcome:
    try:
        one.fail(error)
    except OSError as other:  # a full disk, say
        return Outcome(one.folder.name, error=f"{one_line(error)}; {one_line(other)}")
    return one.outcome


def _load(one: Addition, config: Config) -> Subject:
    own = {
        "checkpoint": str(one.folder),
        "data": config["data"] if one.record["provenance"].get("data_path") else {},
        "model": {key: value for key, value in config["model"].items() if key in hidden(one.record)},
    }
    return load({**config, **own}, build_data=lambda whole: _data(json.dumps(whole["data"])))


@functools.lru_cache(maxsize=1)
def _asked(config: str) -> Asked:
    return Asked.of(json.loads(config))


@functools.lru_cache(maxsize=1)  # runs of the same data follow one another
def _data(node: str) -> Any:
    return build.build_data({"data": json.loads(node)})


@functools.cache
def _provenance(threads: int, device: str) -> dict[str, Any]:
    trainer = {"accelerator": "cpu" if device == "cpu" else "gpu"}
    return shared(provenance({"threads": threads, "trainer": trainer}))


def _made(asked: Asked) -> dict[str, Any]:
    return _provenance(asked.config["threads"], device_of(asked.config))
