"""From a configuration to a record: seed, build, fit, measure, write."""

import contextlib
import functools
import io
import logging
import math
import os
import platform
import secrets
import signal
import subprocess
import threading
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
from filelock import FileLock, Timeout
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from genbench import loggers, ranks, records, remeasure, source, unfinished
from genbench.callbacks.base import Measuring
from genbench.checks import check_choice, check_integer, check_number, nearest
from genbench.config import PARTS, PASSED, ConfigError, Plan, bind, digest, is_bar, signature
from genbench.draw import derive
from genbench.measures.estimate import Estimate
from genbench.memory import keep_freed
from genbench.models.embedded import Embedded
from genbench.places import evaluating
from genbench.privacy import clean, shared, shorten
from genbench.progress import Pace
from genbench.regularization.base import Method, in_order
from genbench.termination import patient, terminable
from genbench.training import Agree, AtomicCheckpointIO, Checkpoint, Diverged, Finish, Lane, Lost, Share, Training
from genbench.unfinished import Unfinished

CHECKPOINT = "checkpoint.ckpt"
ENDED = "ended"  # in a checkpoint: of a run whose training has ended, and which is being measured
FINAL = ("completed", "diverged")  # of a record's states: those that the same command leaves as they are
TRACEBACK = "traceback.txt"

# Lightning's other settings are fixed, or would undo what a run promises.
TRAINER = (
    "_target_",
    "accelerator",
    "strategy",
    "devices",
    "num_nodes",
    "precision",
    "max_epochs",
    "max_steps",
    "deterministic",
    "benchmark",
    "log_every_n_steps",
)

Config = Mapping[str, Any]
Watch = Callable[[Path], contextlib.AbstractContextManager[Any]]
_CHECKED: set[str] = set()  # configurations without their seeds


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a run; the same command continues it."""


def plan(config: Config, *, choices: Mapping[str, Any] | None = None, typed: Sequence[str] = ()) -> Plan:
    """Check a configuration and identify its run, writing nothing.

    ``run_id`` hashes the bound configuration (see ``config.bind``), in which the content of files stands for their
    paths and a method's own schedule for the run's, the content of the data, and the user's own code (see
    ``genbench.source``). ``choices`` names what was chosen in each group, ``typed`` holds the overrides that gave the
    configuration.
    """
    _check(config)
    bound = bind(config)
    if bound["trainer"].get("accelerator") == "auto":  # what it means here decides the numbers
        bound["trainer"]["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"
    if ranks.size(bound["trainer"]) == 1:
        bound["trainer"]["strategy"] = "auto"
    for name, node in bound["regularization"].items():
        identity = getattr(get_object(node["_target_"]), "identity", dict)
        bound["regularization"][name] = identity(node)
    chosen = {**(choices or {}), "regularization": sorted(config["regularization"])}
    if (own := _own_scheduler(bound)) is not None:
        bound["scheduler"] = own
        chosen["scheduler"] = own["_target_"].rpartition(".")[2]
    data = build_data(config)
    code = source.of(source.targets(_training(config)))
    inputs = {"data": data.digest, **({"code": code.digest} if code.digest else {})}
    run_id = digest({"config": bound, "inputs": inputs})[:12]
    folder = Path(config["runs_dir"]) / config["name"] / run_id
    steps, examples = (getattr(data, name, None) for name in ("steps_per_epoch", "batch_size"))
    of_files = config["data"].get("path") is not None
    return Plan(
        run_id,
        folder,
        bound,
        chosen,
        steps,
        examples,
        typed=tuple(typed),
        source=code,
        measures=_measures(config),
        data=data.digest,
        of_files=of_files,
    )


def _training(config: Config) -> dict[str, Any]:
    """The part of a configuration on which the weights depend: all but what measures them and follows them."""
    callbacks = {key: {**(node or {}), "measures": None} for key, node in config["callbacks"].items()}
    left_out = ("measures", "logger", "table")
    return {**{key: node for key, node in config.items() if key not in left_out}, "callbacks": callbacks}


def _measures(config: Config) -> dict[str, str]:
    """Digests of the user's own measures: they do not say which run it is, but whether it is to be measured again."""
    found = {}
    for callback, node in config["callbacks"].items():
        for name, measure in ((node or {}).get("measures") or {}).items():
            if (code := source.of(source.targets(measure)).digest) is not None:
                found[f"callbacks.{callback}.measures.{name}"] = code
    return found


def check(config: Config) -> None:
    """Build everything a run needs, try one step, throw it away: what is wrong is said before anything is written.

    Of the runs of a sweep that differ in their seed alone one is checked in each process.
    """
    content = {key: node for key, node in config.items() if key not in ("seed", "name", "runs_dir", "table")}
    content["data"] = {key: value for key, value in config["data"].items() if key != "seed"}
    checked = digest(content)
    if checked in _CHECKED:
        return
    with threads_of(config), quiet():
        data = build_data(config)
        module = build_module(config, data)
        for callback in build_callbacks(config).values():
            if isinstance(callback, Measuring):
                callback.subject(module)  # a part of it may be named
        loggers.check(config["logger"])
        build_trainer(config, steps_per_epoch=data.steps_per_epoch, default_root_dir=None)
        if "val" not in data.splits and module.validates:
            raise ConfigError("regularization: a method watches the validation split; set data.val_fraction > 0")
        random = torch.get_rng_state()
        try:
            batch = next(iter(data.train_dataloader()))
            module.try_step(batch)
        except Exception as error:
            raise ConfigError(f"the first training step fails: {one_line(error)}") from error
        if (processes := ranks.size(config["trainer"])) > 1:
            if (examples := batch[1].shape[1]) % processes:
                raise ConfigError(
                    f"a batch has {examples} examples (data.batch_size), which {processes} processes cannot share "
                    f"(trainer.devices × trainer.num_nodes); accepted: a multiple of {processes}"
                )
            if not torch.equal(random, torch.get_rng_state()):
                raise ConfigError(
                    "trainer=ddp: the network, a method or the data draw from torch's global generator (nn.Dropout, "
                    "say), which processes cannot share; accepted: genbench.draw, genbench.models.slots.Dropout"
                )
    _CHECKED.add(checked)


def run(
    config: Config,
    *,
    choices: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    typed: Sequence[str] = (),
    expected: Plan | None = None,
    wait: bool = True,
    watch: Watch = contextlib.nullcontext,
) -> dict[str, Any] | None:
    """Train one network and write its record; a run that has one already is not trained again.

    A run that raises or diverges still leaves a record, which says why. If another process trains the same run, it is
    waited for, or with ``wait=False`` None is returned. ``overrides`` sets the run apart in its sweep, for the loggers;
    ``typed`` are all that gave its configuration, for the record. ``expected`` is the plan that another process has
    made of it: if the code here is another one, the run fails and says so. While it trains ``watch(folder)`` is
    entered, as ``genbench.progress.shown``.

    With ``trainer=ddp`` several processes train it; where torchrun or srun has started them, all but the first return
    None.
    """
    planned = plan(config, choices=choices, typed=typed)
    if expected is not None and (reason := other_code(planned, expected)):
        return write_failure(expected, experiment=config["name"], error=reason)
    if not ranks.started(config["trainer"]):
        return _lead(config, planned, overrides, wait, watch)
    with ranks.joined(config["trainer"]) as share:
        if share.rank == 0:
            return _lead(config, planned, overrides, wait, watch, share)
        _follow(config, planned, share)
        return None


def other_code(planned: Plan, expected: Plan) -> str | None:
    """Why a run that was planned elsewhere cannot be trained here: the modules whose code differs, in one line."""
    ours, theirs = planned.source.modules, expected.source.modules
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"the source of {', '.join(names[:3])}{more} differs from the planned one: it was changed since, or is another "
        "version on this machine; the same command trains the run with the code that is there then"
    )


def train_share(
    config: Config,
    share: Share,
    *,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    typed: Sequence[str],
    run_id: str,
) -> None:
    """One process's part of a run that another has planned, checked and locked."""
    planned = plan(config, choices=choices, typed=typed)
    if planned.run_id != run_id:
        raise ConfigError("the source differs from the planned one: it was changed while the processes started")
    if share.rank == 0:
        _run(config, planned, overrides, share)
    else:
        _follow(config, planned, share)


def _lead(
    config: Config, planned: Plan, overrides: Sequence[str], wait: bool, watch: Watch, share: Share | None = None
) -> dict[str, Any] | None:
    if (finished := finished_record(planned)) is not None:
        return finished
    check(config)
    try:
        planned.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"runs_dir={config['runs_dir']!r} cannot be written: {error.strerror}") from None
    try:
        # whoever asks for the state of a sweep holds this lock for an instant: a second tells that from a training
        with FileLock(planned.folder / records.LOCK, timeout=-1 if wait else 1):
            if (finished := final_record(planned.folder)) is not None:
                return remeasure.renewed(config, planned, finished)
            records.tidy(planned.folder, runs=False)
            with contextlib.nullcontext() if _shows_itself(config) else watch(planned.folder):
                if share is None and ranks.size(config["trainer"]) > 1:
                    return _start(config, planned, overrides)
                return _run(config, planned, overrides, share)
    except Timeout:
        return None


def _start(config: Config, planned: Plan, overrides: Sequence[str]) -> dict[str, Any]:
    """Have a run trained by processes of its own."""
    try:
        error = ranks.train(
            config, choices=planned.choices, overrides=overrides, typed=planned.typed, run_id=planned.run_id
        )
    except KeyboardInterrupt:
        raise Interrupted("the run was interrupted") from None
    if error is None:
        return records.read(planned.folder / records.RECORD)
    return _write(planned, experiment=config["name"], status="failed", error=error, seconds={})


def _follow(config: Config, planned: Plan, share: Share) -> None:
    """Train a run together with the first of its processes, which does everything else."""
    try:
        with threads_of(config), quiet():
            data = build_data(config)
            module = build_module(config, data, share)
            told = share.told((None, False))
            if told is None:  # its training has ended, and the first process measures it
                return
            resume, each_batch = told
            trainer = build_trainer(
                config,
                share=share,
                steps_per_epoch=data.steps_per_epoch,
                default_root_dir=planned.folder,
                callbacks=[Agree(share, each_batch=each_batch)],
                enable_checkpointing=False,
            )
            with signals():
                trainer.fit(module, datamodule=data, ckpt_path=resume)
    except (Diverged, Lost):  # the first one knows
        pass
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the run was interrupted") from None
        _keep_traceback(planned.folder, reason)
        raise


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


def _run(config: Config, planned: Plan, overrides: Sequence[str], share: Share | None) -> dict[str, Any]:
    from genbench import packing

    keep_freed()
    run = Run(config, planned, overrides)
    try:
        with terminable(), threads_of(config), quiet():
            state = checkpoint_in(run.folder)
            resume = state is not None
            if state is not None and ENDED in state:
                measure(run, state, share)
            else:
                del state  # as large as what trains
                if not packing.resume(run):
                    _train(run, share, resume=resume)
    finally:
        run.close()
    assert run.record is not None
    return run.record


def _train(run: "Run", share: Share | None, *, resume: bool) -> None:
    """Build, fit and measure; whatever happens but an interruption ends in a record."""
    fit = 0.0
    checkpoint = Checkpoint(run.folder / CHECKPOINT, seconds=run.config["checkpoint_seconds"], loggers=run.logs)
    with ending(run, failed=checkpoint.drop_if_unusable) as end:
        run.build(share)
        assert run.module is not None
        run.module.pace = Pace(run.folder)
        agree, path = [], str(checkpoint.path) if resume else None
        if share is not None:
            each_batch = any(map(_acts_on_batches, run.callbacks))
            share.told((path, each_batch))
            agree = [Agree(share, each_batch=each_batch)]
        trainer = build_trainer(
            run.config,
            share=share,
            steps_per_epoch=run.data.steps_per_epoch,
            default_root_dir=run.folder,
            logger=run.logs or False,
            callbacks=[*run.callbacks, *agree, checkpoint],
        )
        fitting = time.perf_counter()
        try:
            with signals():
                trainer.fit(run.module, datamodule=run.data, ckpt_path=path)
        finally:
            fit = time.perf_counter() - fitting
    before = run.module.seconds_before if run.module else 0.0  # of a run that was killed and continued
    run.write(end.status, end.error, fit=before + fit, total=before + time.perf_counter() - run.started)


def measure(run: "Run", state: Mapping[str, Any], share: Share | None = None) -> None:
    """Measure a run that was broken off once its training had ended, from the ``state`` that it kept."""
    before, begun = 0.0, False
    if share is not None:
        share.told(None)  # it needs no other process

    def forget(reason: BaseException) -> None:
        if not begun and not isinstance(reason, OSError | MemoryError):  # the same command trains it again
            _remove_state(run.folder)

    with ending(run, failed=forget) as end:
        run.build()
        before = run.continue_from(state)
        begun = True
        run.measure()
    spent = before + time.perf_counter() - run.started
    run.write(end.status, end.error, fit=spent, total=spent, lanes=state[ENDED]["lanes"])


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

    def build(self, share: Share | None = None) -> None:
        """Make the parts and keep the initial weights."""
        self.data = build_data(self.config)
        self.module = build_module(self.config, self.data, share)
        self._named = build_callbacks(self.config)
        self.callbacks = [Finish(), *self._named.values()]
        self.module.ended = self._keep
        _save(self.folder / "initial.pt", self.module.network)

    def _spent(self) -> float:
        assert self.module is not None
        return self.module.seconds_before + time.perf_counter() - self.module._started

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
        module._trainer = Ended(trainer, self.data, epoch=ended["epoch"], step=ended["step"])  # type: ignore[assignment]
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
            getattr(callback, hook)(self.module._trainer, self.module, *args)

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


def _shows_itself(config: Config) -> bool:
    """Whether a progress bar of Lightning's is among the callbacks."""
    return any(node is not None and is_bar(get_object(node["_target_"])) for node in config["callbacks"].values())


def _acts_on_batches(callback: pl.Callback) -> bool:
    """Whether a callback may end training in the midst of an epoch; ours do not."""
    hook = type(callback).on_train_batch_end
    return hook is not pl.Callback.on_train_batch_end and not hook.__module__.startswith("genbench.")


def interrupted(reason: BaseException) -> bool:
    """Whether the run was stopped from outside; Lightning turns Ctrl-C into an exit and SIGTERM into its own."""
    causes = (KeyboardInterrupt, SIGTERMException, Lost)
    return isinstance(reason, causes) or isinstance(reason.__context__, causes)


def _check(config: Config) -> None:
    """What no component checks for itself."""
    for part in PARTS:
        if not isinstance(config.get(part), Mapping) or "_target_" not in config[part]:
            raise ConfigError(
                f"{part} names no _target_; accepted: {part}=CHOICE, as genbench {part} --help lists them"
            )
    check_integer("seed", config["seed"], least=0)
    check_integer("threads", config["threads"], least=1, most=1024)
    check_number("checkpoint_seconds", config["checkpoint_seconds"], low=0)
    name, runs_dir = config["name"], config["runs_dir"]
    if name in ("", ".", "..") or Path(name).name != name or not name.isprintable() or len(os.fsencode(name)) > 255:
        raise ConfigError(f"name={name!r} is not the name of a folder")
    if not runs_dir or not runs_dir.isprintable():
        raise ConfigError(f"runs_dir={runs_dir!r} is not a folder; accepted: runs, say")
    for key in ("max_epochs", "max_steps", "log_every_n_steps"):
        if config["trainer"].get(key) is not None:
            check_integer(f"trainer.{key}", config["trainer"][key], least=1)
    if unknown := sorted(set(config["trainer"]) - set(TRAINER)):
        raise ConfigError(f"trainer.{unknown[0]} is not a setting here; {nearest(unknown[0], TRAINER)}")
    check_choice("trainer.accelerator", config["trainer"].get("accelerator", "auto"), ("auto", "cpu", "gpu", "mps"))
    check_choice("trainer.precision", config["trainer"].get("precision", "32-true"), ("32-true", "bf16-mixed"))
    ranks.check(config["trainer"])
    if config["trainer"].get("max_epochs") is None and config["trainer"].get("max_steps") is None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both null: training would never end; set one")
    lr = config["optimizer"].get("lr", 1)
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise ConfigError(f"optimizer.lr is {'null' if lr is None else repr(lr)}; accepted: a number in (0, inf)")
    for key, value in config["optimizer"].items():  # torch's own say that '<=' is not supported
        if key in ("eps", "weight_decay", "momentum", "alpha") and not isinstance(value, int | float):
            raise ConfigError(f"optimizer.{key} is {'null' if value is None else repr(value)}; accepted: a number")


def make(node: Config, **passed: Any) -> Any:
    """Instantiate a component; what its constructor refuses is a ConfigError in the constructor's words."""
    try:
        # plain lists: Hydra's own would be part of an optimizer's state, which no checkpoint can be read back with
        return instantiate({"_convert_": "all", **node}, **passed)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(one_line(ConfigError(*cause.args))) from error
        raise ConfigError(one_line(cause or error)) from error


def build_data(config: Config) -> Any:
    """The datamodule of a configuration."""
    return make(config["data"])


def build_module(config: Config, data: Any, share: Share | None = None) -> Training:
    """The lanes of a run, each with its own initial weights, draws and order of batches."""
    seed = config["seed"]
    methods = lambda: in_order({key: make(node) for key, node in config["regularization"].items()})  # noqa: E731
    count = max([1, *(method.members for method in methods())])
    data.order_seeds = tuple(derive(seed, "order", index) for index in range(count))
    lanes = []
    for index in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "weights", index))
            network = build_network(config["model"], data)
        lanes.append(Lane(network, methods(), seed=derive(seed, "draws", index)))
    try:
        optimizer = make(config["optimizer"])
        optimizer([{"params": lane.trained} for lane in lanes])
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {one_line(error)}") from error
    scheduler = make(_own_scheduler(config) or config["scheduler"])
    steps = config["trainer"].get("max_steps")
    return Training(lanes, optimizer=optimizer, scheduler=scheduler, max_steps=steps, share=share)


def _own_scheduler(config: Config) -> dict[str, Any] | None:
    """The schedule that a method has in place of the run's own."""
    for node in config["regularization"].values():
        scheduler = getattr(get_object(node["_target_"]), "scheduler", Method.scheduler)
        if (own := scheduler(node)) is not None:
            return own
    return None


def build_network(node: Config, data: Any) -> torch.nn.Module:
    """The network that a node names, with random weights from torch's global generator; it must fit the data, of which
    it is told the shape of an input, the number of classes and the shape of a target, if it asks for them. To one that
    asks for the shape of an input, tokens come through an embedding."""
    accepted = {parameter.name for parameter in signature(get_object(node["_target_"]))}
    known = {key: getattr(data, key) for key in PASSED["model"] if key in accepted and hasattr(data, key)}
    vocabulary = getattr(data, "vocabulary", None) if "input_shape" in known else None
    if vocabulary is not None:
        known["input_shape"] = (data.channels, *data.input_shape)
    network = make(node, **known)
    if vocabulary is not None:
        network = Embedded(network, vocabulary=vocabulary, channels=data.channels)
    if not hasattr(data, "tensors"):  # somebody else's datamodule: what does not fit is said at the first batch
        return network
    x, y = data.tensors("train")
    with torch.no_grad(), torch.random.fork_rng(), evaluating(network):
        try:
            output = network(x[:1])
            fault = _no_language_model(network, x[:1], output) if getattr(data, "targets", "last") == "all" else None
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"model {type(network).__name__} does not fit the data: {one_line(error)}") from error
    if fault is not None:
        raise ConfigError(
            f"model {type(network).__name__} {fault}; accepted where data.targets=all: model=decoder with model.patch=1"
            " or another causal network with outputs [B, classes, T]; else data.targets=last"
        )
    if output.shape != (1, data.classes, *y.shape[1:]):
        raise ConfigError(
            f"model {type(network).__name__} gives outputs of shape {tuple(output.shape[1:])}; "
            f"the data has {data.classes} classes"
        )
    network.train()
    return network


def _no_language_model(network: torch.nn.Module, x: Tensor, output: Tensor) -> str | None:
    """Why a network does not predict the next token at each position of x [1, T]; None if it does."""
    if output.shape[2:] != x.shape[1:]:
        return f"gives outputs of shape {tuple(output.shape[1:])}, not one at each of {x.shape[1]} positions"
    before = x.shape[1] // 2
    other = torch.cat([x[:, :before], (x[:, before:] == 0).to(x.dtype)], 1)  # tokens that there are, all of them others
    if not torch.allclose(network(other)[..., :before], output[..., :before], atol=1e-6):
        return "sees the tokens that it is to predict"
    return None


def build_callbacks(config: Config) -> dict[str, pl.Callback]:
    return {key: make(node) for key, node in config["callbacks"].items() if node is not None}


def build_trainer(config: Config, *, steps_per_epoch: int, share: Share | None = None, **settings: Any) -> pl.Trainer:
    """Lightning's Trainer of this process.

    It knows nothing of other processes that train the run: Lightning's reducer expects one backward pass a step, its
    barriers that all of them do the same, and its handler of SIGTERM talks to them in the midst of a step.
    """
    node = {**config["trainer"], "max_steps": -1}  # the steps are counted by Training
    node |= {"strategy": "auto", "num_nodes": 1, "devices": 1}
    if ranks.on_gpu(config["trainer"]) and torch.cuda.is_available():
        node["devices"] = [torch.cuda.current_device() if share is None else share.device]
    if node.get("max_epochs") is None:
        node["max_epochs"] = math.ceil(config["trainer"]["max_steps"] / steps_per_epoch)
    fixed = {
        "plugins": [settings.pop("checkpoint_io", None) or AtomicCheckpointIO()],
        "enable_progress_bar": any(isinstance(part, ProgressBar) for part in settings.get("callbacks", ())),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,  # the callbacks evaluate, with full passes
        "logger": False,
    }
    try:
        return make({**fixed, **node}, **settings)
    except Exception as error:
        raise ConfigError(f"trainer: {one_line(error)}") from error


@contextlib.contextmanager
def threads_of(config: Config) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 are heeded after a step; Lightning leaves Ctrl-C ignored once it has handled one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with patient():
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's remarks about loaders, devices and logging intervals say nothing about a run that we built."""
    names = ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning.*")
            warnings.filterwarnings("ignore", module="lightning_fabric.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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
        "git": commit(Path(__file__).parents[1]),
        "user_git": user_commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "devices": ranks.size(bound["trainer"]),
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


def one_line(error: BaseException) -> str:
    """``Type: message`` without line breaks and without paths of this machine."""
    if isinstance(error, SystemExit):
        return f"SystemExit: the run called exit({error.code!r})"
    text = clean(str(error)) or "no message"
    return f"{type(error).__name__}: {text[:300]}" if not isinstance(error, ConfigError) else text
