"""Writes that fail, at random or for a moment: no checkpoint, no numbers and no run are lost to them."""

import contextlib
import errno
import os
import random

import pytest
import pytorch_lightning as pl
import torch

from genbench import records
from genbench.loggers import CSVLogger, TensorBoardLogger
from genbench.loggers.base import RunInfo
from genbench.runs import build, execute, run_pack
from genbench.training import AtomicCheckpointIO, Checkpoint

FEW = (
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
)


@pytest.fixture
def full(monkeypatch):
    """A disk that takes files whose name it likes: ``full(lambda name: ...)`` says which it does not."""
    refuses = [lambda name: False]
    replace = os.replace

    def replacing(source, target, **settings):
        if refuses[-1](os.path.basename(target)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        return replace(source, target, **settings)

    monkeypatch.setattr(os, "replace", replacing)
    return refuses.append


def first(name):
    """Refuses the first file of this name."""
    left = [name]
    return lambda other: other == name and bool(left) and left.pop() is not None


def repeat(action):
    for step in range(3):
        action(step)


class Raises(pl.Callback):
    """Raises in one step, while ``on``."""

    on = True

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.on and trainer.global_step == 20:
            raise RuntimeError("on purpose")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_the_run_goes_on(configure, tmp_path, full):
    """The second write fails: said once, and the next one is tried."""
    written = []

    def refuses(name):
        if name != "checkpoint.ckpt":
            return False
        written.append(name)
        return len(written) == 2

    full(refuses)
    with pytest.warns(UserWarning, match="checkpoint could not be written .No space left on device.") as said:
        record = execute.run(configure("checkpoint_seconds=0", "trainer.max_steps=270", *FEW))
    assert record["status"] == "completed"
    assert len(written) > 2
    assert len([one for one in said if "checkpoint" in str(one.message)]) == 1


def test_a_run_that_failed_goes_on_from_its_checkpoint(configure, tmp_path, monkeypatch):
    plain = configure("checkpoint_seconds=0", *FEW)
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    plain["callbacks"]["raises"] = {"_target_": f"{__name__}.Raises"}
    failed = execute.run(plain)
    assert (failed["status"], failed["error"]) == ("failed", "RuntimeError: on purpose")
    (path,) = tmp_path.glob("runs/default/*/checkpoint.ckpt")
    assert 0 < AtomicCheckpointIO().load_checkpoint(path)["global_step"] <= 20
    monkeypatch.setattr(Raises, "on", False)
    record = execute.run(plain)
    assert record["metrics"] == whole["metrics"]
    assert not path.exists()


def test_a_pack_that_failed_goes_on_from_its_checkpoint(configure, tmp_path, monkeypatch):
    plains = configure("checkpoint_seconds=0", *FEW, each=[{"seed": seed} for seed in range(2)])

    def pack(root):
        there = [{**plain, "runs_dir": str(tmp_path / root)} for plain in plains]
        return execute.run_packed(there, choices=[{}] * 2, overrides=[()] * 2)

    whole = pack("whole")
    with monkeypatch.context() as patch:
        patch.setattr(run_pack.RunPack, "after_step", lambda self, progress: 1 / (progress < 0.6))
        assert {record["status"] for record in pack("runs")} == {"failed"}
    (path,) = tmp_path.glob("runs/default/packs/*.ckpt")
    assert 0 < AtomicCheckpointIO().load_checkpoint(path)["global_step"] < 27
    assert [record["metrics"] for record in pack("runs")] == [record["metrics"] for record in whole]
    assert not path.parent.exists()


def test_a_record_of_a_pack_that_cannot_be_written_fails_its_run_alone(configure, tmp_path, full):
    plains = configure(*FEW, each=[{"seed": seed} for seed in range(3)])
    full(first("weights.pt"))
    found = execute.run_packed(plains, choices=[{}] * 3, overrides=[()] * 3)
    assert [record["status"] for record in found] == ["failed", "completed", "completed"]
    assert "No space left" in found[0]["error"]


def test_a_logger_that_cannot_write_says_so_once_and_has_all_rows_in_the_end(tmp_path, full):
    logger = CSVLogger(
        run=RunInfo(folder=tmp_path, experiment="e", run_id="r", seed=0, choices={}, config={}), flush_seconds=0
    )
    full(lambda name: name == "metrics.csv")
    with pytest.warns(UserWarning, match="metrics.csv could not be written .No space left on device.") as said:
        repeat(lambda step: logger.log_metrics({"loss": step / 2}, step=step))
    assert len(said) == 1
    full(lambda name: False)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,loss", "0,0.0", "1,0.5", "2,1.0"]


def test_tensorboard_that_cannot_write_ends_no_run(tmp_path, monkeypatch):
    logger = TensorBoardLogger(
        run=RunInfo(folder=tmp_path, experiment="e", run_id="r", seed=0, choices={}, config={}), flush_seconds=1
    )

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logger.experiment.file_writer, "add_event", full)
    with pytest.warns(UserWarning, match="TensorBoard's events of this run end here .No space left") as said:
        repeat(lambda step: logger.log_metrics({"loss": 0.5}, step=step))
    logger.finish(None)
    assert len(said) == 1


def test_metrics_are_written_before_the_checkpoint_that_a_kill_leaves(configure, tmp_path):
    """Whatever is not done again stands in metrics.csv."""

    class Notes:
        def __init__(self):
            self.flushed = 0

        def flush(self):
            assert not (tmp_path / "state.ckpt").exists()
            self.flushed += 1

    notes = Notes()

    class Trainer:
        should_stop = False
        train_dataloader = build.build_data(configure()).train_dataloader()

        def save_checkpoint(self, path):
            assert notes.flushed == 1
            path.touch()

    Checkpoint(tmp_path / "state.ckpt", seconds=0, loggers=[notes, object()]).after_step(Trainer(), last=False)
    assert (tmp_path / "state.ckpt").exists()


def test_a_checkpoint_takes_no_more_than_a_twentieth_of_the_time(configure, tmp_path, monkeypatch):
    now, writes = [0.0], []
    monkeypatch.setattr("genbench.training.checkpoint.time.monotonic", lambda: now[0])

    class Trainer:
        should_stop = False
        train_dataloader = build.build_data(configure()).train_dataloader()

        def save_checkpoint(self, path):
            writes.append(now[0])
            now[0] += 3.0  # seconds that a write takes

    checkpoint = Checkpoint(tmp_path / "state.ckpt", seconds=10)
    while now[0] < 200:
        now[0] += 1.0  # a step
        checkpoint.after_step(Trainer(), last=False)
    assert writes == [10, 73, 136, 199]


def test_a_strangers_loader_continues_at_epochs_and_says_so(tmp_path):
    class Trainer:
        should_stop = False
        train_dataloader = torch.utils.data.DataLoader(range(10))

        def save_checkpoint(self, path):
            raise AssertionError

    checkpoint = Checkpoint(tmp_path / "state.ckpt", seconds=0)
    with pytest.warns(UserWarning, match="position of DataLoader within an epoch is not known.*start of") as said:
        repeat(lambda _: checkpoint.after_step(Trainer(), last=False))
    assert len(said) == 1


@pytest.mark.parametrize("seed", range(4))
def test_whatever_writes_fail_at_random_the_same_command_ends_well(configure, tmp_path, full, seed):
    """One in three; what is there at any moment can be read, and the numbers are those of an undisturbed run."""
    plain = configure("checkpoint_seconds=0", *FEW)
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    draw = random.Random(seed)
    full(lambda name: draw.random() < 1 / 3)
    record = None
    for _ in range(30):
        with contextlib.suppress(OSError):
            record = execute.run(plain)
        assert not records.load(tmp_path / "runs" / "default").problems
        assert not list((tmp_path / "runs").rglob("*.tmp"))
        if record is not None and record["status"] == "completed":
            break
    assert record["metrics"] == whole["metrics"]
