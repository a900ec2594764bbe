"""Adversarial training: what it trains on, and what it leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.inputs.attacks import perturb, random_start
from genbench.models import CNN
from genbench.models.slots import use_draw
from genbench.regularization.adversarial_training import AdversarialTraining
from genbench.rng import StepRandom
from genbench.training import Lane
from tests.helpers.packs import compare, separately, together

SETTINGS = {
    **{"norm": "linf", "epsilon": 0.1, "steps": 3, "step_size": None, "random_start": True},
    **{"low": None, "high": None},
}
X, Y = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def network():
    torch.manual_seed(0)
    return CNN(input_shape=(1, 8, 8), classes=3, width=4, depth=2, normalization="batch_norm", dropout=0.3)


def test_one_step_on_a_linear_network_is_the_sign_of_its_gradient():
    net = nn.Linear(4, 2)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0])
    single = {**SETTINGS, "steps": 1, "random_start": False}
    moved, same = AdversarialTraining(**single).transform(net, x, y, StepRandom(0, 0))
    away = torch.where(y[:, None] == 1, net.weight[0] - net.weight[1], net.weight[1] - net.weight[0])
    torch.testing.assert_close(moved, x + 0.1 * away.sign())
    assert same is y
    moved, _ = AdversarialTraining(**{**single, "norm": "l2"}).transform(net, x, y, StepRandom(0, 0))
    torch.testing.assert_close(moved, x + 0.1 * away / away.norm(dim=1, keepdim=True))
    moved, _ = AdversarialTraining(**{**single, "low": -0.5, "high": 0.5}).transform(net, x.clamp(-0.5, 0.5), y, None)
    assert moved.abs().max() <= 0.5


def test_the_network_is_attacked_as_it_is_trained_and_left_alone():
    net, draw = network().train(), StepRandom(3, 5)
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    moved, _ = AdversarialTraining(**SETTINGS).transform(net, X, Y, draw)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())
    assert net.training

    def trained(x):  # in training mode with the step's masks; statistics may move here
        other = copy.deepcopy(net)
        use_draw(other, draw)
        return other(x)

    start = random_start(draw, "adversarial_training.start", X, "linf")
    expected = perturb(trained, X, Y, norm="linf", epsilon=0.1, step_size=0.25 / 3, steps=3, start=start)
    torch.testing.assert_close(moved, expected)
    loss = [float(F.cross_entropy(trained(x), Y).detach()) for x in (X, moved)]
    assert loss[1] > loss[0] + 0.1


def test_training_with_it_makes_a_network_more_robust():
    """A feature that is certain but small, and one that is right nine times in ten but large: only the second survives
    the attack (Tsipras et al. 2019, arXiv 1805.12152)."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (600,), generator=generator)
    sign = 2.0 * y - 1
    large = torch.where(torch.rand(600, generator=generator) < 0.9, sign, -sign)
    x = torch.stack([0.1 * sign, large], 1)
    shares = {}
    for name, methods in {"plain": [], "adversarial": [AdversarialTraining(**{**SETTINGS, "epsilon": 0.3})]}.items():
        torch.manual_seed(0)
        lane = Lane(nn.Linear(2, 2), methods, seed=0)
        optimizer = torch.optim.Adam(lane.network.parameters(), 0.05)
        for step in range(400):
            lane.gradient_step(x, y, draw=StepRandom(0, step), lr=0.05, backward=lambda loss: loss.backward())
            optimizer.step()
        net = lane.network
        attacked = perturb(net, x, y, norm="linf", epsilon=0.3, step_size=0.3, steps=1)
        shares[name] = [float((net(z).argmax(1) == y).double().mean()) for z in (x, attacked)]
    right = float((large == sign).double().mean())
    assert shares["plain"][0] == 1
    assert shares["plain"][1] < 0.5
    assert shares["adversarial"] == pytest.approx([right, right])


def test_packed_with_what_also_looks_at_the_batch(configure):
    methods, quick = "[adversarial_training,batch_norm,dropout,mixup]", "regularization.adversarial_training.steps=2"
    assert max(compare(configure, "cnn", methods, "momentum", "constant", torch.float64, quick)) < 1e-9


def test_lanes_may_differ_in_radius_and_step(configure):
    overrides = [("regularization.adversarial_training.epsilon=0.2",), ("seed=1",)]
    configs = [configure("regularization=adversarial_training", "model.width=12", *more) for more in overrides]
    alone = [lane for config in configs for lane in separately(config, torch.float64, 10)]
    for ours, theirs in zip(together(configs, torch.float64, 10), alone, strict=True):
        for p, q in zip(ours.trained, theirs.trained, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1'; accepted: linf, l2"),
        ({"epsilon": -1}, r"epsilon is -1; accepted: a number in \[0, inf\)"),
        ({"steps": 0}, "steps is 0"),
        ({"step_size": -1.0}, "step_size is -1.0"),
        ({"random_start": 1}, "random_start is 1; accepted: true, false"),
        ({"low": 1.0, "high": 0.0}, "low is 1.0 and high 0.0"),
    ],
)
def test_bad_input(setting, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTraining(**{**SETTINGS, **setting})


def test_tokens_are_refused():
    net, tokens = nn.EmbeddingBag(5, 3), torch.zeros(4, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="inputs are tokens; accepted: real numbers"):
        AdversarialTraining(**SETTINGS).transform(net, tokens, torch.zeros(4, dtype=torch.long), StepRandom(0, 0))
