"""Train several runs as one network. Each run leaves the files that it would have left alone."""

from collections.abc import Sequence
from typing import Any

from genbench.process.progress import Pace
from genbench.process.termination import terminable
from genbench.runs import pack_checkpoints
from genbench.runs.build import build_trainer, signals
from genbench.runs.pack_callbacks import Dispatch
from genbench.runs.run import Interrupted, Run, interrupted, opened
from genbench.runs.run_pack import PackData, RunPack
from genbench.training import Checkpoint, Unpackable
from genbench.training.unpackable import out_of_memory


class TooLarge(MemoryError):
    """The lanes do not fit in memory together."""


def train(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build, fit, measure and write runs of one ``packing.key``, from the checkpoint of a pack that holds all of them.

    Raises:
        Unpackable: they cannot be vectorized. No record was written.
        TooLarge: they do not fit in memory.
        Interrupted: they were stopped; the last checkpoint stays.
    """
    folder = runs[0].folder.parent
    try:
        with opened(runs), terminable():
            _train(runs)
    except BaseException as reason:
        if interrupted(reason):
            raise Interrupted("the pack was interrupted") from None
        raise
    pack_checkpoints.tidy(folder)
    return [one.record for one in runs if one.record is not None]


def _train(runs: Sequence[Run]) -> None:
    for one in runs:
        one.build()
    folder = runs[0].folder.parent
    path, state = pack_checkpoints.find(folder, [one.planned.run_id for one in runs])
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
