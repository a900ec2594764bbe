"""The training step against torch's own arithmetic and hand-made steps."""

from functools import partial

import pytest
import torch

from genbench.models.slots import frozen_norm_statistics
from genbench.regularization import L1, L2, SAM, GradientClipping, LabelSmoothing
from genbench.regularization.base import in_order
from genbench.rng import StepRandom
from tests.helpers.equality import same
from tests.helpers.networks import network
from tests.helpers.runs import by_hand


@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), {}),
        (partial(torch.optim.Adam, lr=0.05), {"fused": True}),  # chosen where nothing else was
        (partial(torch.optim.Adam, lr=0.05, foreach=False), {}),
        (partial(torch.optim.AdamW, lr=0.05, fused=False), {}),
    ],
)
@pytest.mark.parametrize("norm", [False, True])
def test_without_methods_it_is_the_plain_loop(fit, optimizer, plain, norm):
    trained = fit(networks=[network(norm=norm)], optimizer=optimizer).network
    assert same(trained, by_hand(network(norm=norm), partial(optimizer, **plain)))
    assert not same(trained, network(norm=norm))


def test_norm_statistics_come_back_after_an_exception():
    net = network(norm=True)
    mean = net[1].running_mean.clone()
    with pytest.raises(RuntimeError, match="mat1"), frozen_norm_statistics(net):
        net(torch.randn(4, 6, dtype=torch.float64))
    assert torch.equal(net[1].running_mean, mean)
    assert net[1].track_running_stats


def test_draws_are_keyed_by_seed_step_and_site():
    draw = StepRandom(1, 2)
    assert torch.equal(draw.normal("a", 4), StepRandom(1, 2).normal("a", 4))
    others = [StepRandom(1, 3).normal("a", 4), StepRandom(2, 2).normal("a", 4), draw.normal("b", 4)]
    assert not any(torch.equal(draw.normal("a", 4), other) for other in others)


def test_methods_that_exclude_each_other_are_refused():
    class Other(LabelSmoothing):
        pass

    with pytest.raises(ValueError, match=r"label_smoothing\+other.*replace the loss"):
        in_order({"other": Other(smoothing=0.1), "label_smoothing": LabelSmoothing(smoothing=0.1)})


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (L1, {"strength": -1}),
        (L2, {"strength": float("nan")}),
        (L2, {"strength": "abc"}),
        (LabelSmoothing, {"smoothing": 1.5}),
        (SAM, {"rho": True}),
        (GradientClipping, {"max_norm": 0}),
    ],
)
def test_bad_settings_are_named(method, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{method.__name__}: {name} is "):
        method(**settings)
