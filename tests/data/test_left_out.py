"""``data.left_out``: each network leaves a random share of the train split out."""

import pytest
import torch

from genbench.data import MNIST1D, Batches, Digits
from genbench.data.batches import MergedBatches, WarmStart


def loader(n, size, *, seeds, left_out, shift=0, **settings):
    y = torch.arange(n) + shift
    return Batches(y.float()[:, None], y, batch_size=size, seed=0, seeds=seeds, left_out=left_out, **settings)


def drawn(batches, epoch=0):
    """The labels of an epoch, [steps, lanes, B]."""
    batches.set_epoch(epoch)
    return torch.stack([y for _, y in batches])


def test_each_lane_sees_its_own_share_once_in_every_epoch_and_nothing_else():
    batches = loader(20, 2, seeds=(1, 2, 3), left_out=0.3)
    assert len(batches) == 7
    for epoch in range(3):
        found = drawn(batches, epoch)
        for lane in range(3):
            assert sorted(found[:, lane].flatten().tolist()) == batches.rows(lane).tolist()
    rows = [frozenset(batches.rows(lane).tolist()) for lane in range(3)]
    assert len(set(rows)) == 3
    assert {len(each) for each in rows} == {14}


def test_every_example_is_left_out_about_as_often():
    batches = loader(30, 2, seeds=tuple(range(400)), left_out=0.3)
    often = sum(torch.isin(torch.arange(30), batches.rows(lane)).double() for lane in range(400)) / 400
    assert float((often - 0.7).abs().max()) < 5 * (0.7 * 0.3 / 400) ** 0.5


def test_lanes_of_one_seed_leave_the_same_out_and_nothing_changes_without_it():
    assert torch.equal(*drawn(loader(20, 2, seeds=(5, 5), left_out=0.5)).unbind(1))
    plain = Batches(torch.zeros(12, 1), torch.arange(12), batch_size=3, seed=0, seeds=(7,))
    assert torch.equal(drawn(loader(12, 3, seeds=(7,), left_out=0.0)), drawn(plain))


def test_it_is_a_share_of_each_part_and_of_warm_starts():
    batches = loader(20, 2, seeds=(1, 2), left_out=0.2, parts=2)
    for lane, (low, high) in enumerate([(0, 10), (10, 20)]):
        rows = batches.rows(lane)
        assert len(rows) == 8
        assert low <= int(rows.min()) <= int(rows.max()) < high
    warm = loader(20, 4, seeds=(1,), left_out=0.2, warm_start=WarmStart(4, 2))
    assert set(drawn(warm).flatten().tolist()) <= set(warm.rows(0).tolist())


def test_lanes_of_several_loaders_keep_what_they_leave_out():
    loaders = [loader(10, 2, seeds=(1, 2), left_out=0.4), loader(10, 2, seeds=(3,), left_out=0.4, shift=100)]
    found = drawn(MergedBatches(loaders, [(1, 0), (0, 1)]))
    assert sorted(found[:, 0].flatten().tolist()) == (loaders[1].rows(0) + 100).tolist()
    assert sorted(found[:, 1].flatten().tolist()) == loaders[0].rows(1).tolist()


def test_the_data_say_what_each_network_is_trained_on():
    data = MNIST1D(train_size=200, batch_size=10, left_out=0.25)
    data.order_seeds = (4, 9)
    assert data.steps_per_epoch == len(data.train_batches()) == 15
    seen = data.trained_on("train")
    assert seen.shape == (200, 2)
    for lane in range(2):
        assert torch.equal(seen[:, lane].nonzero()[:, 0], data.train_batches().rows(lane))
    assert not data.trained_on("test").any()
    assert MNIST1D(train_size=50, batch_size=10).trained_on("train").all()
    with_parts = MNIST1D(train_size=100, batch_size=10, parts=2)
    with_parts.order_seeds = (0, 1)
    assert with_parts.trained_on("train").sum(0).tolist() == [50, 50]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"left_out": 1.0}, r"^data\.left_out is 1\.0; accepted: a number in \[0, 1\)"),
        ({"left_out": -0.1}, r"^data\.left_out is -0\.1; accepted"),
        ({"left_out": 0.9, "train_size": 3, "batch_size": 1}, r"^data\.left_out is 0\.9; accepted: a share of 3 "),
        ({"left_out": 0.5, "train_size": 20, "batch_size": 11}, r"^data\.batch_size is 11; accepted: .*10"),
    ],
)  # fmt: skip
def test_what_leaves_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Digits(**settings)
