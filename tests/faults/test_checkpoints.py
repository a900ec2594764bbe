"""Checkpoints in the midst of an epoch and at SIGTERM: a run continues bit for bit."""

import signal
from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from genbench.data.mnist1d import MNIST1D
from genbench.runs import execute, single
from genbench.runs.run import Interrupted
from genbench.runs.run_pack import RunPack
from genbench.training import AtomicCheckpointIO, Training, Unpackable

FEW = (
    "measures.sam_sharpness.starts=2",
    "~measures.trace",
    "~measures.adaptive_sharpness",
    "~measures.average_sharpness",
)
NEVER = "checkpoint_seconds=1000000"  # but when asked to end


class Asks(pl.Callback):
    """Has the process asked to end in these steps, each time once."""

    steps: tuple[int, ...] = ()
    signal = signal.SIGTERM

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step in self.steps:
            Asks.steps = tuple(step for step in self.steps if step != trainer.global_step)
            signal.raise_signal(self.signal)


def asking(advance):
    """A step, in the midst of which the same is asked."""

    def wrapped(self, *args, **settings):
        Asks().on_train_batch_start(self.trainer, self, None, 0)
        advance(self, *args, **settings)

    return wrapped


class Idle(pl.Callback):
    """Somebody's callback that does nothing."""


ASKS = {"_target_": f"{__name__}.Asks"}


def weights(record, root):
    return torch.load(root / "default" / record["run_id"] / "weights.pt", weights_only=True)


def assert_identical(ours, theirs, tmp_path):
    assert ours["status"] == theirs["status"] == "completed"
    assert ours["metrics"] == theirs["metrics"]
    a, b = weights(ours, tmp_path / "runs"), weights(theirs, tmp_path / "whole")
    assert all(torch.equal(a[key], b[key]) for key in b)
    rows = [
        (root / "default" / ours["run_id"] / "history.csv").read_text()
        for root in (tmp_path / "runs", tmp_path / "whole")
    ]
    assert rows[0] == rows[1]


def interrupt(run, monkeypatch, *steps):
    """Have it asked to end in these steps, one after the other."""
    monkeypatch.setattr(Asks, "steps", steps)
    for _ in steps:
        with pytest.raises(Interrupted):
            run()
    assert Asks.steps == ()


@pytest.mark.parametrize(
    ("number", "settings"),
    [
        (signal.SIGUSR1, ["regularization=dropout", "model=cnn"]),
        (signal.SIGTERM, ["regularization=[sam,mixup,swa,batch_norm]", "optimizer=momentum", "scheduler=cosine"]),
        (signal.SIGTERM, ["regularization=[ensemble,ema]", "callbacks=full"]),
        (signal.SIGTERM, ["data=mnist1d_stream", "data.test_size=200", "optimizer=schedule_free_sgd"]),
    ],
    ids=["dropout", "sam", "ensemble", "stream"],
)
@pytest.mark.parametrize("by_batch", [False, True])
def test_a_run_that_is_asked_to_end_continues_bit_for_bit(configure, tmp_path, monkeypatch, number, settings, by_batch):
    """Within an epoch a run is one item for Lightning, unless a callback looks at batches."""
    monkeypatch.setattr(Asks, "signal", number)
    plain = configure(NEVER, *FEW, *settings)
    if by_batch:
        plain["callbacks"]["asks"] = ASKS
    else:
        monkeypatch.setattr(Training, "_step", asking(Training._step))
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    interrupt(lambda: execute.run(plain), monkeypatch, 0, 4, 13)
    (path,) = tmp_path.glob("runs/default/*/checkpoint.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 14
    assert_identical(execute.run(plain), whole, tmp_path)
    assert not path.exists()


def test_a_run_goes_on_by_batches_where_it_was_broken_off_so(configure, tmp_path, monkeypatch):
    """As it was by earlier code, of whose progress Lightning keeps the batch within the epoch."""
    plain = configure(NEVER, *FEW)
    monkeypatch.setattr(Training, "_step", asking(Training._step))
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    with monkeypatch.context() as earlier:
        earlier.setattr(single, "_trains_by_epochs", lambda run, shard: False)
        interrupt(lambda: execute.run(plain), monkeypatch, 13)
    assert_identical(execute.run(plain), whole, tmp_path)


@pytest.mark.parametrize("own", [True, False])
def test_a_run_is_one_item_an_epoch_where_all_callbacks_are_genbenchs(configure, monkeypatch, own):
    """Others may look at the training loader."""
    plain, items = configure(NEVER, *FEW), []
    monkeypatch.setattr(Training, "on_train_batch_start", lambda self, batch, index: items.append(index), raising=False)
    if not own:
        plain["callbacks"]["idle"] = {"_target_": f"{__name__}.Idle"}
    assert execute.run(plain)["status"] == "completed"
    assert len(items) == (3 if own else 27)  # steps of 9 an epoch


class Scaled(MNIST1D):
    """Somebody's data, whose batches change on their way to the network."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        x, y = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return 0 * x, y


class Own(MNIST1D):
    """Somebody's data with a loader that is not genbench's."""

    def train_batches(self):
        def collate(rows):
            x, y = zip(*rows, strict=True)
            return torch.stack(x)[None], torch.stack(y)[None]

        return DataLoader(TensorDataset(*self.tensors("train")), batch_size=20, collate_fn=collate)


@pytest.mark.parametrize("kind", [Scaled, Own])
def test_what_a_datamodule_does_to_batches_is_done_to_each(configure, monkeypatch, kind):
    """Lightning hands its hooks an item of the loader, which has to be one batch; a loader of its own has no place
    within an epoch, so a checkpoint that is due there warns."""
    plain, items = configure("checkpoint_seconds=0", *FEW), []
    plain["data"]["_target_"] = f"{__name__}.{kind.__name__}"
    monkeypatch.setattr(Training, "on_train_batch_start", lambda self, batch, index: items.append(batch), raising=False)
    with pytest.warns(UserWarning, match="position of DataLoader") if kind is Own else nullcontext():
        assert execute.run(plain)["status"] == "completed"
    assert len(items) == 27
    assert all(bool(x.any()) is (kind is Own) for x, _ in items)
    if kind is Scaled:
        with pytest.raises(Unpackable, match="data Scaled uses transfer_batch_to_device, which a pack has not"):
            execute.run_packed([{**plain, "seed": s} for s in (1, 2)], choices=[{}] * 2, overrides=[()] * 2)


@pytest.mark.parametrize("by_batch", [False, True])
def test_a_pack_that_is_asked_to_end_continues_bit_for_bit(configure, tmp_path, monkeypatch, by_batch):
    """Within an epoch a pack is one item for Lightning, unless a callback looks at batches."""
    configs = configure(
        NEVER,
        *FEW,
        "regularization=[dropout,swa]",
        "regularization.swa.start=0.3",
        "scheduler=cosine",
        each=[{"seed": seed} for seed in range(3)],
    )
    if by_batch:
        configs[1]["callbacks"]["asks"] = ASKS
    else:
        monkeypatch.setattr(RunPack, "advance", asking(RunPack.advance))

    def pack(root):
        there = [{**config, "runs_dir": str(tmp_path / root)} for config in configs]
        return execute.run_packed(there, choices=[{}] * 3, overrides=[()] * 3)

    whole = pack("whole")
    interrupt(lambda: pack("runs"), monkeypatch, 0, 4, 13)
    (path,) = tmp_path.glob("runs/default/packs/*.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 14
    for ours, theirs in zip(pack("runs"), whole, strict=True):
        assert_identical(ours, theirs, tmp_path)
    assert not path.exists()
