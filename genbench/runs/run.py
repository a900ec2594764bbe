"""A run in the making: its parts, its state on disk and its record."""

import contextlib
import functools
import io
import math
import platform
import secrets
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from hydra.utils import get_object
from pytorch_lightning.utilities.exceptions import SIGTERMException

from genbench import loggers, records
from genbench.config import one_line
from genbench.privacy import clean, shared, shorten
from genbench.process.progress import Pace
from genbench.records import unfinished
from genbench.records.estimate import Estimate
from genbench.records.unfinished import Unfinished
from genbench.runs import distributed, remeasure, source
from genbench.runs.build import Config, build_callbacks, build_data, build_module, build_trainer, make
from genbench.runs.plan import Plan
from genbench.training import AtomicCheckpointIO, Diverged, Finish, ProcessLost, Shard, Training

CHECKPOINT = "checkpoint.ckpt"
ENDED = "ended"  # in a checkpoint: of a run whose training has ended, and which is being measured
FINAL = ("completed", "diverged")  # of a record's states: those that the same command leaves as they are
TRACEBACK = "traceback.txt"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a run; the same command continues it."""


def final_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that need not be trained again: whole, undamaged, completed or diverged."""
    try:
        record = records.verify(folder)
    except (records.RecordError, OSError):
        return None
    return record if record["status"] in FINAL else None


def finished_record(planned: Plan) -> dict[str, Any] | None:
    """The record of a run that need be neither trained nor measured again."""
    record = final_record(planned.folder)
    if record is None or remeasure.outdated(planned, record):
        return None
    with contextlib.suppress(OSError):  # of a process that was killed between its record and this
        _remove_state(planned.folder)
    return record


def write_failure(planned: Plan, *, experiment: str, error: str) -> dict[str, Any]:
    """The record of a run that left none itself, such as one killed by the system; the final one if there is one."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(planned.folder / records.LOCK):  # by now somebody else may be training it
        finished = final_record(planned.folder)
        return finished or _write(planned, experiment=experiment, status="failed", error=error, seconds={})


@dataclass
class End:
    """How a run ended."""

    status: str = "completed"
    error: str | None = None


@contextlib.contextmanager
def ending(run: "Run", *, failed: Callable[[BaseException], None] | None = None) -> Iterator[End]:
    """Have what is done within end the run, if it raises; an interruption is no end. ``failed`` is called with what it
    raises but :class:`Diverged`."""
    end = End()
    try:
        yield end
    except Diverged as reason:
        end.status, end.error = "diverged", str(reason)
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the run was interrupted") from None
        end.status, end.error = "failed", run.explain(reason)
        if failed is not None:
            failed(reason)


class Run:
    """A run in the making: what it is built of, and the record that it ends in, however it was trained.

    Attributes:
        config, planned, folder: what it is.
        data, module, callbacks, logs: what trains and measures it, once :meth:`build` was called.
        lanes: how many networks train with it, if others' do.
        spent: the seconds of its training until now, measuring included.
        record: what it left, once :meth:`write` was called.
    """

    data: Any
    module: Training | None = None
    record: dict[str, Any] | None = None
    lanes: int | None = None

    def __init__(self, config: Config, planned: Plan, overrides: Sequence[str] = ()) -> None:
        self.started = time.perf_counter()
        self.config, self.planned, self.folder = config, planned, planned.folder
        self.callbacks: list[pl.Callback] = []
        self.spent: Callable[[], float] = self._spent
        self._named: dict[str, Any] = {}
        for name in (records.RECORD, TRACEBACK):
            (self.folder / name).unlink(missing_ok=True)
        self.logs = loggers.build(
            {key: make(node) for key, node in config["logger"].items()},
            loggers.Run(
                folder=self.folder,
                experiment=config["name"],
                run_id=planned.run_id,
                seed=config["seed"],
                choices=planned.choices,
                config=shared(planned.bound),
                overrides=shared(list(overrides)),
                provenance=shared({**provenance(planned.bound), "overrides": list(planned.typed)}),
            ),
        )

    def build(self, shard: Shard | None = None) -> None:
        """Make the parts and keep the initial weights."""
        self.data = build_data(self.config)
        self.module = build_module(self.config, self.data, shard)
        self._named = build_callbacks(self.config)
        self.callbacks = [Finish(), *self._named.values()]
        self.module.ended = self._keep
        _save(self.folder / "initial.pt", self.module.network)

    def _spent(self) -> float:
        assert self.module is not None
        return self.module.seconds

    def _keep(self, trainer: Any) -> None:
        """Write down what :meth:`continue_from` needs, as measuring may take minutes."""
        assert self.module is not None
        ended = {
            "key": secrets.token_hex(8),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": self.spent(),
            "lanes": self.lanes or len(self.module.lanes),
        }
        try:
            state = {
                ENDED: ended,
                "weights": self.module.network.state_dict(),
                "history": list(self.module.history),
                "callbacks": {callback.state_key: callback.state_dict() for callback in self.callbacks},
            }
            AtomicCheckpointIO().save_checkpoint(state, self.folder / CHECKPOINT)
        except Exception as reason:  # for want of room, or of somebody's callback: it is missed after a kill alone
            warnings.warn(f"the end of training could not be kept: {one_line(reason)}", stacklevel=2)
        self._measure_from(ended)

    def _measure_from(self, ended: Mapping[str, Any]) -> None:
        assert self.module is not None
        head = {
            "ended": ended["key"],
            "measures": self.planned.measures,
            "provenance": provenance(self.planned.bound),
        }
        self.module.unfinished = Unfinished(self.folder, head)

    def continue_from(self, state: Mapping[str, Any]) -> float:
        """Be as at the end of a training that kept ``state``; the seconds that it took until it was broken off."""
        ended = state[ENDED]
        assert self.module is not None
        module = self.module
        module.pace = Pace(self.folder)
        module.pace.say("measuring")
        module.finish([])  # of the form that training leaves
        module.network.load_state_dict(state["weights"])
        trainer = build_trainer(
            self.config,
            steps_per_epoch=self.data.steps_per_epoch,
            default_root_dir=self.folder,
            logger=self.logs or False,
        )
        module.to(trainer.strategy.root_device)
        module.trainer = Ended(trainer, self.data, epoch=ended["epoch"], step=ended["step"])  # type: ignore[assignment]
        self.call("setup", "fit")
        module.continue_from({"history": state["history"], "seconds": ended["seconds"]})
        for callback in self.callbacks:
            if state["callbacks"].get(callback.state_key):
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.call("on_fit_start")
        self.call("on_train_start")
        self._measure_from(ended)
        assert module.unfinished is not None
        known = {part: module.unfinished.seconds(part.state_key) for part in self.measuring}
        for part, seconds in known.items():
            part.seconds += seconds
        return ended["seconds"] + sum(known.values())

    def call(self, hook: str, *args: Any) -> None:
        """Have the callbacks do what they do in a hook, as Lightning would; the network is final already."""
        assert self.module is not None
        for callback in self.callbacks[1:]:
            getattr(callback, hook)(self.module.trainer, self.module, *args)

    def measure(self) -> None:
        """Have the callbacks do what they do at the end."""
        self.call("on_train_end")
        self.call("on_fit_end")
        self.call("teardown", "fit")

    @property
    def measuring(self) -> list[Any]:
        """The callbacks that measure."""
        return [callback for callback in self.callbacks if hasattr(callback, "results")]

    @property
    def measure_seconds(self) -> float:
        """What measuring took until now."""
        return sum(part.seconds for part in self.measuring)

    def explain(self, error: BaseException) -> str:
        """The error in one line, with its traceback kept in the folder."""
        _keep_traceback(self.folder, error)
        return one_line(error)

    def write(self, status: str, error: str | None, *, fit: float, total: float, lanes: int | None = None) -> None:
        """Write weights and record. ``fit`` and ``total`` are seconds, measuring included."""
        if status == "completed":
            assert self.module is not None
            _save(self.folder / "weights.pt", self.module.network)
        history = self.module.history if self.module else []
        rows = [*history, *(row for part in self.measuring for row in part.history)]
        measure = self.measure_seconds
        estimates = {key: estimate for part in self.measuring for key, estimate in part.results.items()}
        if (least := getattr(getattr(self, "data", None), "bayes_error", None)) is not None:
            value, stderr = least
            estimates["test/performance/bayes_error"] = Estimate(value, stderr=stderr or None)
        self.record = _write(
            self.planned,
            experiment=self.config["name"],
            status=status,
            error=error,
            seconds={"fit": max(0.0, fit - measure), "measure": measure, "total": total},
            lanes=lanes or (len(self.module.lanes) if self.module else 1),
            estimates=estimates,
            measures=remeasure.codes(self.planned, self._named),
            history=_write_history(self.folder / "history.csv", rows),
        )

    @property
    def finished(self) -> bool:
        """Whether it need not be trained again."""
        return self.record is not None and self.record["status"] in FINAL

    def close(self) -> None:
        """Close the loggers; a finished run needs no checkpoint, one that failed goes on from it."""
        if self.module is not None and self.module.pace is not None:
            self.module.pace.end()
        loggers.finish(self.logs, self.record)
        if self.finished:
            _remove_state(self.folder)


class Ended:
    """The Trainer as a callback sees it once training has ended."""

    def __init__(self, trainer: pl.Trainer, data: Any, *, epoch: int = 0, step: int = 0) -> None:
        self._trainer, self.datamodule = trainer, data
        self.current_epoch, self.global_step = epoch, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


def _remove_state(folder: Path) -> None:
    """Remove what a run continues from."""
    for name in (CHECKPOINT, unfinished.FILE):
        (folder / name).unlink(missing_ok=True)


def _keep_traceback(folder: Path, error: BaseException) -> None:
    with contextlib.suppress(OSError):  # the disk is full, say: the error itself is in the record
        records.write_atomic(folder / TRACEBACK, shorten("".join(traceback.format_exception(error))))


def interrupted(reason: BaseException) -> bool:
    """Whether the run was stopped from outside; Lightning turns Ctrl-C into an exit and SIGTERM into its own."""
    causes = (KeyboardInterrupt, SIGTERMException, ProcessLost)
    return isinstance(reason, causes) or isinstance(reason.__context__, causes)


def checkpoint_in(folder: Path) -> dict[str, Any] | None:
    """What a run can continue from, in its training or, under ``ENDED``, in its last measurement; a damaged file is
    removed."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return AtomicCheckpointIO().load_checkpoint(path)
    except (OSError, MemoryError):  # it may be readable the next time
        raise
    except Exception:
        path.unlink()
        return None


def _save(path: Path, network: torch.nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save({key: value.cpu() for key, value in network.state_dict().items()}, buffer)
    records.write_atomic(path, buffer.getvalue())


def _write_history(path: Path, measured: Sequence[Mapping[str, Any]]) -> str | None:
    """One row an epoch: all that was measured at that step."""
    import csv

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
    records.write_atomic(path, text.getvalue())
    return path.name


def _write(
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
    """Write and read back the record of a run."""
    unmeasured = None if status == "completed" else error if status == "diverged" else f"{status}: {error}"
    parts = parts_of(estimates or {}, unmeasured)
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
                "data": planned.data,
                "data_path": planned.of_files,
                "overrides": list(planned.typed),
                "lanes": lanes,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **({"measures": dict(measures)} if measures else {}),
            },
            "seconds": dict(seconds),
        },
    )
    return records.read(planned.folder / records.RECORD)


def parts_of(estimates: Mapping[str, Estimate], unmeasured: str | None = None) -> dict[str, Any]:
    """The parts of a record that estimates fill; ``unmeasured`` says why none of them has a value."""
    metrics, notes, kept = {}, {}, {}
    for key, estimate in estimates.items():
        finite = estimate.value is not None and math.isfinite(estimate.value)
        metrics[key] = estimate.value if finite and unmeasured is None else None
        note = unmeasured or estimate.note or (None if finite else f"the value is {estimate.value}")
        if note:
            notes[key] = clean(note)
        if metrics[key] is not None:
            kept[key] = estimate

    def part(name: str) -> dict[str, Any]:
        values = {key: getattr(estimate, name) for key, estimate in kept.items()}
        return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}

    return {
        "metrics": metrics,
        "stderr": part("stderr"),
        "converged": part("converged"),
        "residual": part("residual"),
        "interval": {
            key: list(estimate.interval)
            for key, estimate in kept.items()
            if estimate.interval is not None and all(map(math.isfinite, estimate.interval))
        },
        "notes": notes,
        "measure_seconds": {key: estimate.seconds for key, estimate in estimates.items()},
    }


def provenance(bound: Config) -> dict[str, Any]:
    """What made the numbers, without naming the machine."""
    cuda = torch.cuda.is_available() and bound["trainer"].get("accelerator") != "cpu"
    return {
        "genbench": version("genbench"),
        "genbench_code": source.of_genbench(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pytorch_lightning": pl.__version__,
        "git": commit(Path(__file__).parents[2]),
        "user_git": user_commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "devices": distributed.size(bound["trainer"]),
        "threads": bound["threads"],
    }


def user_commit() -> str | None:
    """The commit of the user's own repository, that of the folder this process is in; None where there is none."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
    return None if root is None else commit(root)


@functools.cache
def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with a plus sign where tracked files were changed; None if it is none."""
    if not (checkout / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
