import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from genbench.models import MLP, Dropout, Normalization, use_draw
from genbench.rng import StepRandom


def test_masks_are_those_of_the_draw_at_the_slots_site():
    net = nn.Sequential(Dropout(0.3), nn.Identity(), Dropout(0.6))
    use_draw(net, draw := StepRandom(5, 9))
    x = torch.ones(4, 7)
    first = (draw.uniform("dropout.0", 4, 7) >= 0.3) / 0.7
    second = (draw.uniform("dropout.1", 4, 7) >= 0.6) / 0.4
    assert torch.allclose(net(x), first * second)
    assert torch.equal(net(x), net(x))  # the second pass of one step keeps its masks
    before = net(x)
    use_draw(net, StepRandom(5, 10))
    assert not torch.equal(net(x), before)


def test_share_and_mean():
    slot = Dropout(0.25)
    use_draw(slot, StepRandom(0, 0))
    out = slot(torch.ones(400, 400))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75) ** 0.5 / 400)
    assert out.mean().item() == pytest.approx(1, abs=0.01)


def test_global_generator_is_untouched_with_a_draw_and_used_without():
    slot, x = Dropout(0.5), torch.ones(50)
    use_draw(slot, StepRandom(0, 0))
    state = torch.get_rng_state()
    slot(x)
    assert torch.equal(torch.get_rng_state(), state)
    use_draw(slot, None)
    dropped = slot(x)
    assert not torch.equal(torch.get_rng_state(), state)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("slot", [Dropout(0.0), Dropout(0.5).eval()])
def test_nothing_is_dropped_at_zero_or_in_evaluation(slot):
    x = torch.randn(5)
    use_draw(slot, StepRandom(0, 0))
    assert slot(x) is x


def test_probability_can_be_set_and_is_checked():
    slot = Dropout()
    slot.set(0.5)
    use_draw(slot, StepRandom(0, 0))
    assert (slot(torch.ones(100)) == 0).any()
    slot.set(0)
    assert (slot(torch.ones(100)) == 1).all()
    for p in (-0.1, 1.0, float("nan"), "half", True):
        with pytest.raises(ValueError, match="accepted: a number in"):
            slot.set(p)


def test_a_copy_has_slots_of_its_own():
    net = MLP(input_shape=(1, 4), classes=2, dropout=0.5)
    use_draw(net, None)
    copied = copy.deepcopy(net)
    use_draw(copied, StepRandom(0, 0))
    assert [m.draw for m in net.modules() if isinstance(m, Dropout)] == [None, None]
    assert all(m.draw is not None for m in copied.modules() if isinstance(m, Dropout))


def test_lanes_of_a_stack_drop_what_the_separate_networks_drop():
    """Masks drawn outside vmap and handed in; each lane has its own probability."""
    rates = (0.0, 0.2, 0.7)
    nets = [MLP(input_shape=(1, 4), classes=3, dropout=rate) for rate in (0.1, *rates[1:])]
    nets[0].layers[0][3].p.zero_(), nets[0].layers[1][3].p.zero_()  # a lane at zero beside others
    x = torch.randn(3, 6, 1, 4)
    draws = [StepRandom(seed, 2) for seed in range(3)]
    uniform = {site: torch.stack([d.uniform(site, 6, 100) for d in draws]) for site in ("dropout.0", "dropout.1")}

    class Given:
        def __init__(self, uniform):
            self.uniform = lambda site, *shape: uniform[site]

    base = copy.deepcopy(nets[0])

    def forward(params, buffers, uniform, x):
        use_draw(base, Given(uniform))
        return functional_call(base, (params, buffers), (x,))

    stacked = vmap(forward)(*stack_module_state(nets), uniform, x)
    for lane, net in enumerate(nets):
        use_draw(net, draws[lane])
        assert torch.allclose(stacked[lane], net(x[lane]), atol=1e-6)


@pytest.mark.parametrize(("dims", "shape", "kind"), [
    (0, (8, 5), nn.BatchNorm1d), (1, (8, 5, 7), nn.BatchNorm1d), (2, (8, 5, 7, 3), nn.BatchNorm2d),
])  # fmt: skip
def test_normalization_is_the_identity_until_it_is_filled(dims, shape, kind):
    slot, x = Normalization(5, dims), torch.randn(*shape)
    assert slot(x) is x
    filled = slot.batch_norm()
    assert type(filled) is kind
    out = filled(x)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    assert torch.allclose(out.mean(axes), torch.zeros(5), atol=1e-5)
    assert torch.allclose(out.var(axes, unbiased=False), torch.ones(5), atol=1e-3)
