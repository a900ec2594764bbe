"""What the members of an ensemble share."""

import pytest
import torch

from genbench.checks import ConfigError
from genbench.runs.build import build_data, build_module

PLAIN = ("regularization=ensemble", "regularization.ensemble.members=3", "data.batch_size=10")


def members(configure, *overrides):
    """Whether the initial weights, the first batches and the random draws of the members are all the same."""
    config = configure(*PLAIN, *overrides)
    data = build_data(config)
    module = build_module(config, data)
    nets = [torch.cat([p.flatten() for p in lane.network.parameters()]) for lane in module.lanes]
    x, _ = next(iter(data.train_dataloader()))
    same = [all(torch.equal(one, each[0]) for one in each) for each in (nets, x)]
    return (*same, len({lane.seed for lane in module.lanes}) == 1)


INIT, ORDER = "regularization.ensemble.share_init=true", "regularization.ensemble.share_order=true"


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        ((), (False, False, False)),
        ((ORDER,), (False, True, True)),
        ((INIT,), (True, False, False)),
        ((INIT, ORDER, "data.parts=3"), (True, False, True)),
        ((ORDER, "data.parts=3"), (False, False, True)),
    ],
    ids=["init and order", "init", "order", "data", "init and data"],
)
def test_they_share_what_they_are_told(configure, overrides, same):
    assert members(configure, *overrides) == same


def test_the_first_member_is_the_same_whatever_they_differ_in(configure):
    found = []
    for overrides in ((), (ORDER,), (INIT,)):
        config = configure(*PLAIN, *overrides)
        data = build_data(config)
        module = build_module(config, data)
        x, y = next(iter(data.train_dataloader()))
        found.append((x[0], y[0], module.lanes[0].seed, *module.lanes[0].network.parameters()))
    for first, *others in zip(*found, strict=True):
        assert all(torch.equal(first, each) if isinstance(first, torch.Tensor) else first == each for each in others)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.parts=2",), r"data.parts is 2; accepted: 1, or the number of networks that the run trains, 3"),
        ((INIT, ORDER), "share_init and share_order are true; accepted: one, or data.parts"),
        ((INIT.replace("true", "1"),), "share_init is 1; accepted: true, false"),
    ],
)
def test_refused(configure, overrides, message):
    config = configure(*PLAIN, *overrides)
    with pytest.raises(ConfigError, match=message):
        build_module(config, build_data(config))


def test_one_network_has_no_parts(configure):
    config = configure("data.parts=2", "data.batch_size=10")
    with pytest.raises(ConfigError, match=r"data.parts is 2; .* networks that the run trains, 1"):
        build_module(config, build_data(config))
