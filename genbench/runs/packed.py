"""Train several runs as one: which runs can, how many fit in memory, and their training.

Each run leaves the files that it would have left alone.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object

from genbench.process.memory import Allocated
from genbench.process.progress import Pace
from genbench.process.termination import terminable
from genbench.runs import pack_checkpoints
from genbench.runs.build import Config, build_data, build_module, build_trainer, signals
from genbench.runs.pack_callbacks import Dispatch
from genbench.runs.plan import Plan
from genbench.runs.run import Interrupted, Run, interrupted, opened
from genbench.runs.run_pack import PackData, RunPack
from genbench.training import Checkpoint, Pack, Unpackable
from genbench.training.pack import out_of_memory

PER_RUN = ("seed", "optimizer", "scheduler", "callbacks")  # what a pack makes for each of its runs
MOST_LANES_ON_CPU = 128  # beyond it a lane-step takes longer (benchmarks/lanes.py)


class TooLarge(MemoryError):
    """The lanes do not fit in memory together."""


def key(planned: Plan) -> str:
    """What runs must have in common to train as one: everything but :data:`PER_RUN` and what a component declares as
    ``per_lane``. A datamodule or model that declares nothing has no such settings, a method all its numbers."""
    bound: dict[str, Any] = {name: None if name in PER_RUN else node for name, node in planned.bound.items()}
    for name in ("data", "model"):
        bound[name] = _common(bound[name], _declared(bound[name]) or ())
    methods = bound["regularization"]
    bound["regularization"] = {name: _common(node, _declared(node)) for name, node in methods.items()}
    return json.dumps([bound, planned.steps_per_epoch, planned.batch_size], sort_keys=True)


def _declared(node: Config) -> tuple[str, ...] | None:
    return getattr(get_object(node["_target_"]), "per_lane", None)


def _common(node: Any, per_lane: tuple[str, ...] | None) -> Any:
    """A node with None in place of the settings in which lanes may differ: those in ``per_lane``, or all numbers."""
    if per_lane is not None:
        return {name: None if name in per_lane else value for name, value in node.items()}
    if isinstance(node, Mapping):
        return {name: _common(value, None) for name, value in node.items()}
    return None if isinstance(node, float | int) and not isinstance(node, bool) else node


def lanes_that_fit(config: Config, *, processes: int) -> int:
    """Number of lanes of this run that fit in half the memory, which so many ``processes`` share.

    Computed from the bytes that a step of one lane allocates. At most ``MOST_LANES_ON_CPU`` without a GPU.
    """
    data = build_data(config)
    module = build_module(config, data)
    pack = Pack([module.lanes[0]], optimizer=module.make_optimizer, own_batches=True)
    x, y = next(iter(data.train_dataloader()))
    allocated = Allocated()
    with contextlib.suppress(Unpackable):  # reported when they train
        pack.prepare(total_steps=1)
        pack.gradient_step(x[:1], y[:1], step=0)  # traces the step; the next one runs its operations alone
        with allocated:
            pack.gradient_step(x[:1], y[:1], step=1)
    fit = max(1, _free() // (2 * processes * max(1, allocated.bytes)))
    return fit if torch.cuda.is_available() else min(fit, MOST_LANES_ON_CPU)


def _free() -> int:
    """Bytes that can be allocated, on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def train(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build, fit, measure and write runs of one :func:`key`, from the checkpoint of a pack that holds all of them.

    Raises:
        Unpackable: they cannot be vectorized. No record was written.
        TooLarge: they do not fit in memory.
        Interrupted: they were stopped; the last checkpoint stays.
    """
    experiment = runs[0].folder.parent
    try:
        with opened(runs), terminable():
            _train(runs)
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the pack was interrupted") from None
        raise
    pack_checkpoints.tidy(experiment)
    return [one.record for one in runs if one.record is not None]


def _train(runs: Sequence[Run]) -> None:
    for one in runs:
        one.build()
    experiment = runs[0].folder.parent
    path, state = pack_checkpoints.find(experiment, [one.planned.run_id for one in runs])
    checkpoint = Checkpoint(
        path,
        seconds=min(one.config["checkpoint_seconds"] for one in runs),
        loggers=[log for one in runs for log in one.logs],
    )
    pack = RunPack(runs, checkpoint, state)
    pack.pace = Pace(runs[0].folder)
    for one in runs:
        assert one.module is not None
        one.module.pace = pack.pace
    trainer = build_trainer(
        runs[0].config,
        steps_per_epoch=runs[0].data.steps_per_epoch,
        default_root_dir=path.parent,
        checkpoint_io=pack_checkpoints.PackCheckpointIO(),
        callbacks=[Dispatch(pack), checkpoint],
    )
    try:
        with signals():
            trainer.fit(pack, datamodule=PackData(pack), ckpt_path=None if state is None else str(path))
    except Unpackable:
        raise
    except BaseException as reason:
        if interrupted(reason):
            raise
        if out_of_memory(reason):
            raise TooLarge(f"{len(pack.lanes)} lanes do not fit in memory") from reason
        pack.fail(reason)
        checkpoint.drop_if_unusable(reason)
    finally:
        pack.pace.end()
    if all(one.finished for one in runs):
        path.unlink(missing_ok=True)
