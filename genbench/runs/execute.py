"""Execute a run: plan, check, build once, fit, measure, write."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from hydra.utils import get_object

from genbench import records
from genbench.config import ConfigError, is_bar
from genbench.process.memory import keep_freed
from genbench.process.progress import Pace
from genbench.process.termination import terminable
from genbench.runs import distributed, remeasure
from genbench.runs.build import Config, build_data, build_module, build_trainer, quiet, signals, threads_of
from genbench.runs.plan import Plan, check, other_code, plan
from genbench.runs.run import (
    CHECKPOINT,
    ENDED,
    Interrupted,
    Run,
    _keep_traceback,
    _remove_state,
    _write,
    checkpoint_in,
    ending,
    final_record,
    finished_record,
    interrupted,
    write_failure,
)
from genbench.training import Checkpoint, Diverged, ProcessLost, Shard, StopTogether

Watch = Callable[[Path], contextlib.AbstractContextManager[Any]]


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
    entered, as ``genbench.process.progress.shown``.

    With ``trainer=ddp`` several processes train it; where torchrun or srun has started them, all but the first return
    None.
    """
    planned = plan(config, choices=choices, typed=typed)
    if expected is not None and (reason := other_code(planned, expected)):
        return write_failure(expected, experiment=config["name"], error=reason)
    if not distributed.started(config["trainer"]):
        return _lead(config, planned, overrides, wait, watch)
    with distributed.joined(config["trainer"]) as shard:
        if shard.rank == 0:
            return _lead(config, planned, overrides, wait, watch, shard)
        _follow(config, planned, shard)
        return None


def train_shard(
    config: Config,
    shard: Shard,
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
    if shard.rank == 0:
        _run(config, planned, overrides, shard)
    else:
        _follow(config, planned, shard)


def _lead(
    config: Config, planned: Plan, overrides: Sequence[str], wait: bool, watch: Watch, shard: Shard | None = None
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
                if shard is None and distributed.size(config["trainer"]) > 1:
                    return _start(config, planned, overrides)
                return _run(config, planned, overrides, shard)
    except Timeout:
        return None


def _start(config: Config, planned: Plan, overrides: Sequence[str]) -> dict[str, Any]:
    """Have a run trained by processes of its own."""
    try:
        error = distributed.train(
            config, choices=planned.choices, overrides=overrides, typed=planned.typed, run_id=planned.run_id
        )
    except KeyboardInterrupt:
        raise Interrupted("the run was interrupted") from None
    if error is None:
        return records.read(planned.folder / records.RECORD)
    return _write(planned, experiment=config["name"], status="failed", error=error, seconds={})


def _follow(config: Config, planned: Plan, shard: Shard) -> None:
    """Train a run together with the first of its processes, which does everything else."""
    try:
        with threads_of(config), quiet():
            data = build_data(config)
            module = build_module(config, data, shard)
            told = shard.broadcast((None, False))
            if told is None:  # its training has ended, and the first process measures it
                return
            resume, each_batch = told
            trainer = build_trainer(
                config,
                shard=shard,
                steps_per_epoch=data.steps_per_epoch,
                default_root_dir=planned.folder,
                callbacks=[StopTogether(shard, each_batch=each_batch)],
                enable_checkpointing=False,
            )
            with signals():
                trainer.fit(module, datamodule=data, ckpt_path=resume)
    except (Diverged, ProcessLost):  # the first one knows
        pass
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the run was interrupted") from None
        _keep_traceback(planned.folder, reason)
        raise


def _run(config: Config, planned: Plan, overrides: Sequence[str], shard: Shard | None) -> dict[str, Any]:
    from genbench.runs import packed

    keep_freed()
    run = Run(config, planned, overrides)
    try:
        with terminable(), threads_of(config), quiet():
            state = checkpoint_in(run.folder)
            resume = state is not None
            if state is not None and ENDED in state:
                measure(run, state, shard)
            else:
                del state  # as large as what trains
                if not packed.resume(run):
                    _train(run, shard, resume=resume)
    finally:
        run.close()
    assert run.record is not None
    return run.record


def _train(run: "Run", shard: Shard | None, *, resume: bool) -> None:
    """Build, fit and measure; whatever happens but an interruption ends in a record."""
    fit = 0.0
    checkpoint = Checkpoint(run.folder / CHECKPOINT, seconds=run.config["checkpoint_seconds"], loggers=run.logs)
    with ending(run, failed=checkpoint.drop_if_unusable) as end:
        run.build(shard)
        assert run.module is not None
        run.module.pace = Pace(run.folder)
        agree, path = [], str(checkpoint.path) if resume else None
        if shard is not None:
            each_batch = any(map(_acts_on_batches, run.callbacks))
            shard.broadcast((path, each_batch))
            agree = [StopTogether(shard, each_batch=each_batch)]
        trainer = build_trainer(
            run.config,
            shard=shard,
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


def measure(run: "Run", state: Mapping[str, Any], shard: Shard | None = None) -> None:
    """Measure a run that was broken off once its training had ended, from the ``state`` that it kept."""
    before, begun = 0.0, False
    if shard is not None:
        shard.broadcast(None)  # it needs no other process

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


def _shows_itself(config: Config) -> bool:
    """Whether a progress bar of Lightning's is among the callbacks."""
    return any(node is not None and is_bar(get_object(node["_target_"])) for node in config["callbacks"].values())


def _acts_on_batches(callback: pl.Callback) -> bool:
    """Whether a callback may end training in the midst of an epoch; ours do not."""
    hook = type(callback).on_train_batch_end
    return hook is not pl.Callback.on_train_batch_end and not hook.__module__.startswith("genbench.")
