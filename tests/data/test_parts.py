"""``data.parts``: the networks of an ensemble train on parts of the train split."""

import pytest
import torch

from genbench.data import MNIST1D, Batches, MNIST1DStream
from genbench.data.batches import MergedBatches, WarmStart


def loader(n, size, *, seeds, parts, shift=0, **settings):
    y = torch.arange(n) + shift
    return Batches(y.float()[:, None], y, batch_size=size, seed=0, seeds=seeds, parts=parts, **settings)


def drawn(batches, epoch=0):
    """The labels of an epoch, [steps, lanes, B]."""
    batches.set_epoch(epoch)
    return torch.stack([y for _, y in batches])


def test_each_lane_sees_its_part_and_nothing_else_once_an_epoch():
    batches = loader(14, 2, seeds=(1, 2, 3), parts=3)  # 4 examples a part, 2 are left over
    assert len(batches) == 2
    for epoch in range(3):
        found = drawn(batches, epoch)
        for lane in range(3):
            assert sorted(found[:, lane].flatten().tolist()) == list(range(4 * lane, 4 * lane + 4))


def test_a_part_is_ordered_as_a_set_of_its_own():
    """And in lanes of one seed, alike."""
    found, alone = drawn(loader(12, 3, seeds=(7, 7), parts=2)), drawn(loader(6, 3, seeds=(7,), parts=1))
    assert torch.equal(found[:, 0], alone[:, 0])
    assert torch.equal(found[:, 1], alone[:, 0] + 6)


def test_a_warm_start_stays_within_the_part():
    found = loader(12, 3, seeds=(5, 5), parts=2, warm_start=WarmStart(2, 2))
    alone = loader(6, 3, seeds=(5,), parts=1, warm_start=WarmStart(2, 2))
    for epoch in range(2):
        found.set_epoch(epoch)
        alone.set_epoch(epoch)
        for (_, y), (_, own) in zip(found, alone, strict=True):
            assert torch.equal(y[1], own[0] + 6)


def test_lanes_of_several_loaders_keep_their_parts():
    loaders = [loader(8, 2, seeds=(1, 2), parts=2), loader(8, 2, seeds=(3, 4), parts=2, shift=100)]
    merged = MergedBatches(loaders, [(1, 1), (0, 0), (0, 1)])
    expected = [drawn(each) for each in loaders]
    found = drawn(merged)
    for lane, (index, place) in enumerate([(1, 1), (0, 0), (0, 1)]):
        assert torch.equal(found[:, lane], expected[index][:, place])


def test_an_epoch_is_one_of_a_part():
    data = MNIST1D(train_size=1000, batch_size=50, parts=4)
    data.order_seeds = (0, 1, 2, 3)
    assert data.steps_per_epoch == len(data.train_dataloader()) == 5
    assert len(data.tensors("train")[1]) == 1000  # measures see all of it
    whole = MNIST1D(train_size=1000, batch_size=None, parts=4)
    assert whole.batch_size == 250


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": 0}, "data.parts is 0; accepted: an integer from 1 to 40"),
        ({"parts": 41}, "data.parts is 41; accepted: an integer from 1 to 40"),
        ({"parts": 4, "batch_size": 11}, "data.batch_size is 11; accepted: an integer from 1 to 10"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MNIST1D(**{"train_size": 40, "batch_size": 5, **settings})


def test_new_examples_have_no_parts():
    with pytest.raises(ValueError, match=r"data.parts is 2; accepted: 1 where data.fresh is true"):
        MNIST1DStream(train_size=40, batch_size=5, parts=2)
