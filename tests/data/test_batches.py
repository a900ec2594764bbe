import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from genbench.data import MNIST1D, Batches


def batches(n=10, *, batch_size=3, seed=0, seeds=None):
    return Batches(torch.arange(n).float()[:, None], torch.arange(n), batch_size=batch_size, seed=seed, seeds=seeds)


def drawn(loader, epoch):
    """The labels of one epoch, which here are the indices."""
    loader.set_epoch(epoch)
    return [y.tolist() for _, y in loader]


def test_an_epoch_draws_without_replacement_and_drops_the_partial_batch():
    epoch = drawn(batches(), 0)
    assert [len(batch) for batch in epoch] == [3, 3, 3]
    assert len(batches()) == 3
    flat = [index for batch in epoch for index in batch]
    assert len(set(flat)) == 9
    for x, y in batches():
        assert torch.equal(x[:, 0].long(), y)


@pytest.mark.usefixtures("untouched")
def test_order_depends_on_seed_and_epoch_alone():
    first = drawn(batches(), 4)
    torch.rand(3, generator=torch.Generator().manual_seed(1))
    loader = batches()
    drawn(loader, 0)
    assert drawn(loader, 4) == first
    assert drawn(batches(), 5) != first
    assert drawn(batches(seed=1), 4) != first


def test_each_lane_sees_what_a_run_with_its_seed_sees():
    loader = batches(seeds=(7, 0, 7))
    for epoch in range(2):
        lanes = drawn(loader, epoch)
        assert torch.tensor(lanes).shape == (3, 3, 3)
        for lane, seed in enumerate((7, 0, 7)):
            assert [step[lane] for step in lanes] == drawn(batches(seed=seed), epoch)
    x, y = next(iter(loader))
    assert (x.shape, y.shape) == ((3, 3, 1), (3, 3))


def test_one_lane_has_a_lane_axis_and_no_lane_has_none():
    data = MNIST1D(train_size=40, batch_size=10)
    assert next(iter(data.train_dataloader()))[0].shape == (10, 1, 40)
    data.order_seeds = (0,)
    assert next(iter(data.train_dataloader()))[0].shape == (1, 10, 1, 40)


def test_a_position_counts_for_its_own_epoch_alone():
    whole, loader = drawn(batches(), 1), batches()
    loader.load_state_dict({"epoch": 1, "position": 2})
    assert drawn(loader, 1) == whole[2:]
    assert drawn(loader, 1) == whole  # once
    loader.load_state_dict({"epoch": 0, "position": 2})
    assert drawn(loader, 1) == whole


class Recorder(pl.LightningModule):
    """Notes the batches it is given, as (epoch, first input value of every example)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(40, 10)
        self.seen, self.validated = [], 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((self.trainer.current_epoch, x[:, 0, 0].tolist()))
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[1])

    def test_step(self, batch, batch_idx):
        self.validated += len(batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(pl.Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class SaveAtEpoch(pl.Callback):
    def __init__(self, epoch, path):
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def fit(data, *callbacks, ckpt_path=None, **settings):
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **settings,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


def expected(data, epochs):
    loader, result = data.train_dataloader(), []
    for epoch in epochs:
        loader.set_epoch(epoch)
        result += [(epoch, x[:, 0, 0].tolist()) for x, _ in loader]
    return result


@pytest.fixture
def data():
    return MNIST1D(train_size=50, val_fraction=0.2, batch_size=10, seed=2)  # four steps an epoch


def test_lightning_follows_the_order_of_each_epoch_without_a_warning(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*srun.*|.*isinstance.*LeafSpec.*")
        module = fit(data, max_epochs=3, num_sanity_val_steps=0)
    assert module.seen == expected(data, range(3))
    assert module.validated == 3 * 10


def test_a_stranger_may_train_without_validation_and_test():
    module = fit(MNIST1D(train_size=50, batch_size=10), max_epochs=1)
    assert module.validated == 0
    pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(module, datamodule=MNIST1D())
    assert module.validated == 1000


@pytest.mark.parametrize("limit", [None, 3])
def test_resuming_at_an_epoch_draws_the_order_of_that_epoch(data, tmp_path, limit):
    path = tmp_path / "last.ckpt"
    whole = fit(data, SaveAtEpoch(1, path), max_epochs=4, limit_train_batches=limit)
    resumed = fit(data, max_epochs=4, ckpt_path=path, limit_train_batches=limit)
    assert len(whole.seen) == 4 * (limit or 4)
    assert resumed.seen == [entry for entry in whole.seen if entry[0] >= 2]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("step", range(1, 9))
def test_resuming_within_an_epoch_continues_with_the_next_batch(data, tmp_path, step):
    path = tmp_path / "middle.ckpt"
    whole = fit(data, SaveAt(step, path), max_epochs=3)
    resumed = fit(data, max_epochs=3, ckpt_path=path)
    assert resumed.seen == whole.seen[step:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_resuming_after_the_last_step_of_a_run_that_ended_within_an_epoch(data, tmp_path):
    path = tmp_path / "end.ckpt"
    fit(data, SaveAt(6, path), max_steps=6)
    assert fit(data, max_steps=10, ckpt_path=path).seen == expected(data, range(3))[6:10]


def test_tensors_move_to_the_trainers_device(data):
    class Strategy:
        root_device = torch.device("meta")

    class Trainer:
        strategy = Strategy()

    data.trainer = Trainer()
    data.setup("fit")
    assert data.tensors("train")[0].is_meta
    assert data.evaluation_batches("val")[0][0].is_meta
