"""Train or measure one run by itself."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.data.base import TensorData
from genbench.data.batches import Batches
from genbench.measures.random_state import restoring_random_state, seed_all
from genbench.process.progress import Pace
from genbench.process.termination import terminable
from genbench.rng import derive_seed
from genbench.runs.build import build_trainer, signals
from genbench.runs.hooks import acts_on_batches, hook_on_batches, knows_epochs
from genbench.runs.run import Run, ending, opened
from genbench.runs.state import CHECKPOINT, ENDED, read_checkpoint, remove_state
from genbench.training import Checkpoint, Shard, StopTogether


def train(runs: Sequence[Run], *, shard: Shard | None = None) -> list[dict[str, Any]]:
    """Build, fit, measure and write one run, from its checkpoint if it has one.

    Everything but an interruption ends in a record. ``shard`` is that of the first of several processes that train it.
    """
    (run,) = runs
    seconds = 0.0
    with opened(runs), terminable():
        checkpoint = Checkpoint(run.folder / CHECKPOINT, seconds=run.config["checkpoint_seconds"], loggers=run.logs)
        with ending(run, failed=checkpoint.drop_if_unusable) as end:
            run.build(shard)
            assert run.module is not None
            run.module.pace = Pace(run.folder)
            agree, path = [], str(checkpoint.path) if checkpoint.path.exists() else None
            if shard is not None:
                each_batch = any(map(acts_on_batches, run.callbacks))
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
            if _trains_by_epochs(run, shard):
                run.data.whole_epochs, run.module.checkpoint = True, checkpoint
            begun = time.perf_counter()
            try:
                with signals(), restoring_random_state():
                    # a user's network may draw from the global generators, as torch's dropout does
                    seed_all(derive_seed(run.config["seed"], "global") % 2**32)
                    trainer.fit(run.module, datamodule=run.data, ckpt_path=path)
            finally:
                seconds = time.perf_counter() - begun
        before = run.module.seconds_before if run.module else 0.0  # a killed attempt that this one continued
        run.write(end.status, end.error, fit=before + seconds, total=before + time.perf_counter() - run.started)
    assert run.record is not None
    return [run.record]


def measure(runs: Sequence[Run], state: Mapping[str, Any], *, shard: Shard | None = None) -> list[dict[str, Any]]:
    """Measure and write one run that has trained already, from the ``state`` that it kept."""
    (run,) = runs
    before, restored = 0.0, False
    if shard is not None:
        shard.broadcast(None)  # the other processes are not needed

    def forget(reason: BaseException) -> None:
        if not restored and not isinstance(reason, OSError | MemoryError):  # the same command trains it again
            remove_state(run.folder)

    with opened(runs), terminable():
        with ending(run, failed=forget) as end:
            run.build()
            before = run.continue_from(state)
            restored = True
            run.measure()
        spent = before + time.perf_counter() - run.started
        run.write(end.status, end.error, fit=spent, total=spent, lanes=state[ENDED]["lanes"])
    assert run.record is not None
    return [run.record]


def _trains_by_epochs(run: Run, shard: Shard | None) -> bool:
    """Whether the training step may loop over the batches of an epoch itself, which saves a third of the time of small
    networks: nothing is called within an epoch, and the checkpoint that the run continues from was written so."""
    kept = read_checkpoint(run.folder)
    return (
        shard is None
        and getattr(type(run.data), "train_dataloader", None) is TensorData.train_dataloader
        and isinstance(run.data.train_batches(), Batches)
        and hook_on_batches(run.data) is None
        and all(knows_epochs(callback) and not acts_on_batches(callback) for callback in run.callbacks)
        and (kept is None or "whole_epochs" in (kept["loader"] or {}))
    )
