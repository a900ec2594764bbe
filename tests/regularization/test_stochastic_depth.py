from functools import partial

import pytest
import torch

from genbench.models import CNN, MLP, use_draw
from genbench.models.slots import StochasticDepth as Slot
from genbench.regularization.stochastic_depth import StochasticDepth
from genbench.rng import StepRandom
from genbench.training import Lane, Pack
from tests.helpers.equality import apart
from tests.helpers.runs import descend


def network(rate, **settings):
    torch.manual_seed(0)
    net = MLP(**{"input_shape": (1, 4), "classes": 3, "width": 6, "depth": 5, "residual": True, **settings})
    return StochasticDepth(rate=rate).build(net).double()


def test_the_probability_rises_linearly_with_depth():
    net = network(0.8)
    assert [slot.p.item() for slot in net.modules() if isinstance(slot, Slot)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_an_example_has_the_branches_that_its_draws_leave_it():
    net, draw, x = network(0.6), StepRandom(3, 5), torch.randn(7, 1, 4, dtype=torch.float64)
    use_draw(net, draw)
    h = net.layers[0](x.flatten(1))
    for i, layer in enumerate(net.layers[1:]):
        p = 0.6 * (i + 1) / 4
        kept = draw.uniform(f"stochastic_depth.{i}", 7, 1) >= p
        h = h + kept * layer[0](h).relu() / (1 - p)
    torch.testing.assert_close(net(x), net.head(h))
    assert 0 < kept.sum() < 7  # each example by itself


def test_mean_over_masks_is_the_network_without_where_it_is_linear():
    net = network(0.5, depth=2, activation="identity")
    x, outputs = torch.randn(3, 1, 4, dtype=torch.float64), []
    for step in range(4000):
        use_draw(net, StepRandom(0, step))
        outputs.append(net(x).detach())
    outputs = torch.stack(outputs)
    error = (outputs.mean(0) - net.eval()(x)) / (outputs.std(0) / 4000**0.5)
    assert error.abs().max() < 4


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = torch.randn(3, 1, 4, dtype=torch.float64)
    plain = network(0)(x)
    assert torch.equal(network(0.9).eval()(x), plain)
    assert not torch.equal(network(0.9)(x), plain)  # masks of torch's own generator


def test_a_network_without_residual_branches_is_refused():
    for net in (CNN(input_shape=(1, 40), classes=2), MLP(input_shape=(1, 4), classes=2)):
        with pytest.raises(
            ValueError, match=rf"^regularization stochastic_depth: {type(net).__name__} has no residual"
        ):
            StochasticDepth(rate=0.1).build(net)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "half", True])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"StochasticDepth: rate is .*; accepted: a number in \[0, 1\)"):
        StochasticDepth(rate=rate)


def test_rates_of_zero_are_one_of_the_rates_of_a_pack():
    def lanes():
        rates = (0.0, 0.5, 0.9)
        return [Lane(network(rate), seed=seed) for seed, rate in enumerate(rates)]

    packed, alone = lanes(), lanes()
    pack = Pack(packed, optimizer=partial(torch.optim.SGD, lr=0.1))
    optimizer = pack.prepare(total_steps=3)
    x, y = torch.randn(8, 1, 4, dtype=torch.float64), torch.arange(8) % 3
    for step in range(3):
        pack.gradient_step(x.expand(3, *x.shape), y.expand(3, -1), step=step)
        optimizer.step()
        for lane in alone:
            descend(lane, x, y, step)
    for a, b in zip(packed, alone, strict=True):
        assert apart(a, b) < 1e-12
