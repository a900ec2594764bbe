"""Execute runs: plan, check, build once, fit, measure, write.

A *backend* builds, fits and measures locked runs, writes their records and returns them: ``single.train``,
``packed.train``, ``distributed.train``, or ``single.measure`` for a run that has trained already. Resuming is a look-up
of the backend: see :func:`_backend_of`.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.utils import get_object

from genbench import records
from genbench.checks import ConfigError
from genbench.config import is_bar
from genbench.process.memory import keep_freed
from genbench.runs import distributed, pack_checkpoints, packed, process_group, remeasure, single
from genbench.runs.build import Config, quiet, threads_of
from genbench.runs.plan import check, other_code, plan
from genbench.runs.planned import Plan
from genbench.runs.results import final_record, write_failure
from genbench.runs.run import Backend, Run
from genbench.runs.state import ENDED, read_checkpoint
from genbench.training import Shard, Unpackable

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
    """Train one network and write its record; a run that has a final record is not trained again.

    A run that raises or diverges leaves a record too, with the reason.

    Args:
        config: the resolved configuration.
        choices: what was chosen in each group, for the record.
        overrides: what sets the run apart in its sweep, for loggers.
        typed: all overrides that gave the configuration, for the record.
        expected: the plan of the process that sweeps; with other code here the run fails.
        wait: wait for another process that trains the same run; else return None.
        watch: context of a folder, entered while the run in it trains: ``genbench.process.progress.shown`` say.

    Returns:
        the record; None in all but the first of the processes that torchrun or srun has started.
    """
    planned = plan(config, choices=choices, typed=typed)
    if expected is not None and (reason := other_code(planned, expected)):
        return write_failure(expected, experiment=config["name"], error=reason)
    with process_group.joined(config["trainer"]) as shard:
        if shard is not None and shard.rank > 0:
            distributed.follow(config, planned, shard)
            return None
        one = Run(config, planned, overrides)
        if one.record is None:
            check(config, planned.datamodule)
        with ExitStack() as locks:
            if _is_to_train(one, locks, wait=wait):
                with contextlib.nullcontext() if _shows_itself(config) else watch(one.folder):
                    _train([one], _backend_of(one, shard))
        return one.record


def run_packed(
    configs: Sequence[Config],
    *,
    choices: Sequence[Mapping[str, Any]],
    overrides: Sequence[Sequence[str]],
    typed: Sequence[Sequence[str]] | None = None,
    expected: Sequence[Plan] = (),
) -> list[dict[str, Any] | None]:
    """Train runs of one ``packing.key`` as one network and write their records; arguments as those of :func:`run`.

    They continue from the checkpoint of an interrupted pack that holds all of them.

    Returns:
        their records; None for a run that another process trains.

    Raises:
        Unpackable: they cannot be vectorized. No record was written; they can be trained one by one.
        TooLarge: they do not fit in memory. Fewer of them may.
        Interrupted: they were stopped; the same call continues from the last checkpoint.
    """
    if process_group.size(configs[0]["trainer"]) > 1:
        raise Unpackable("trainer=ddp shares one run among processes")
    plans = [
        plan(config, choices=chosen, typed=words)
        for config, chosen, words in zip(configs, choices, typed or [()] * len(configs), strict=True)
    ]
    for planned, other in zip(plans, expected, strict=bool(expected)):
        if reason := other_code(planned, other):
            raise Unpackable(reason)
    runs = [Run(*each) for each in zip(configs, plans, overrides, strict=True)]
    del plans  # and with them the data of finished runs
    with ExitStack() as locks:
        left = [one for one in runs if _is_to_train(one, locks, wait=False)]
        for one in left:
            if (state := _ended_in(one)) is not None:
                _train([one], partial(single.measure, state=state))
        if training := [one for one in left if one.record is None]:
            _train(training, packed.train)
        elif left:
            pack_checkpoints.tidy(left[0].folder.parent)
    return [one.record for one in runs]


def run_together(
    config: Config, *, choices: Mapping[str, Any], overrides: Sequence[str], typed: Sequence[str], run_id: str
) -> None:
    """Train a run as one of several processes; ``distributed.train`` has started them and holds the run's lock."""
    with process_group.joined(config["trainer"]) as shard:
        assert shard is not None
        planned = plan(config, choices=choices, typed=typed)
        if planned.run_id != run_id:
            raise ConfigError("the source differs from the planned one: it was changed while the processes started")
        if shard.rank > 0:
            distributed.follow(config, planned, shard)
        else:
            one = Run(config, planned, overrides)
            _train([one], _backend_of(one, shard))


def _backend_of(run: Run, shard: Shard | None) -> Backend:
    """What continues a run from the files that it has left, or trains it anew."""
    if shard is None and process_group.size(run.config["trainer"]) > 1:
        return distributed.train
    if (state := _ended_in(run)) is not None:
        return partial(single.measure, state=state, shard=shard)
    if pack_checkpoints.holds(run.folder):  # at the width of that pack, so that its numbers stay the same
        return packed.train
    return partial(single.train, shard=shard)


def _is_to_train(run: Run, locks: ExitStack, *, wait: bool) -> bool:
    """Lock a run; whether it has no final record and no other process trains it. Outdated measures are taken anew."""
    if run.record is not None:
        return False
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"runs_dir={run.config['runs_dir']!r} cannot be written: {error.strerror}") from None
    try:
        # a process that asks for the state of a sweep holds the lock for an instant, far less than a second
        locks.enter_context(FileLock(run.folder / records.LOCK, timeout=-1 if wait else 1))
    except Timeout:
        run.data = None
        return False
    if (finished := final_record(run.folder)) is not None:
        run.record, run.data = remeasure.renewed(run, finished), None
        return False
    records.tidy(run.folder, runs=False)
    return True


def _train(runs: Sequence[Run], backend: Backend) -> None:
    keep_freed()
    with threads_of(runs[0].config), quiet():
        backend(runs)


def _ended_in(run: Run) -> dict[str, Any] | None:
    """The state of a run that has trained and was broken off while it was measured."""
    state = read_checkpoint(run.folder)
    return state if state is not None and ENDED in state else None


def _shows_itself(config: Config) -> bool:
    """Whether the callbacks contain a progress bar of Lightning's."""
    return any(node is not None and is_bar(get_object(node["_target_"])) for node in config["callbacks"].values())
