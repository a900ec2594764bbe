import pytest
import torch

from genbench.models import CNN, GRU, MLP, Linear, use_draw
from genbench.models import Dropout as Slot
from genbench.regularization import Dropout
from genbench.rng import StepRandom


@pytest.mark.parametrize("model", [MLP, CNN, GRU])
@pytest.mark.parametrize("shape", [(1, 40), (1, 8, 8)])
def test_every_slot_drops_at_the_rate(model, shape):
    net = Dropout(rate=0.4).build(model(input_shape=shape, classes=10, depth=2))
    assert [slot.p.item() for slot in net.modules() if isinstance(slot, Slot)] == [0.4, 0.4]
    x = torch.randn(6, *shape)
    use_draw(net, StepRandom(0, 0))
    first = net(x)
    use_draw(net, StepRandom(0, 1))
    assert not torch.allclose(first, net(x))
    use_draw(net, StepRandom(0, 0))
    assert torch.equal(first, net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_mean_over_masks_is_the_network_without_where_it_is_linear():
    net = Dropout(rate=0.5).build(MLP(input_shape=(1, 4), classes=2, width=6, depth=1)).double()
    x, outputs = torch.randn(3, 1, 4, dtype=torch.float64), []
    for step in range(4000):
        use_draw(net, StepRandom(0, step))
        outputs.append(net(x).detach())
    outputs = torch.stack(outputs)
    error = (outputs.mean(0) - net.eval()(x)) / (outputs.std(0) / 4000**0.5)
    assert error.abs().max() < 4


def test_rate_zero_is_no_dropout():
    net = MLP(input_shape=(1, 4), classes=2)
    x = torch.randn(3, 1, 4)
    before = net(x)
    assert torch.equal(Dropout(rate=0).build(net)(x), before)


def test_a_network_without_slots_is_refused():
    with pytest.raises(ValueError, match=r"^regularization dropout: Linear has no dropout slots$"):
        Dropout(rate=0.1).build(Linear(input_shape=(1, 4), classes=2))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "half", True])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"regularization Dropout: rate is .*; accepted: a number in \[0, 1\)"):
        Dropout(rate=rate)
