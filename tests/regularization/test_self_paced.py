import pytest
import torch
import torch.nn.functional as F

from genbench.models import MLP
from genbench.regularization import BatchNorm
from genbench.regularization.self_paced import SelfPaced
from genbench.rng import StepRandom


def network(**settings):
    torch.manual_seed(0)
    return MLP(input_shape=(1, 6), classes=3, width=7, **settings).double()


X = torch.randn(10, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.arange(10) % 3


@pytest.mark.parametrize(("progress", "count"), [(0.0, 2), (0.25, 6), (0.5, 10), (0.9, 10)])
def test_the_loss_is_the_mean_over_the_easiest(progress, count):
    """A share of 0.2, 0.6 and 1.0 of ten examples, at no, half and all of the way to the end."""
    net, method = network(), SelfPaced(start=0.2, end=0.5)
    method.after_step([], progress)
    x, y = method.transform(net, X, Y, StepRandom(0, 0))
    losses = F.cross_entropy(net(X), Y, reduction="none").detach()
    assert float(F.cross_entropy(net(x), y)) == pytest.approx(float(losses.sort().values[:count].mean()))
    assert torch.equal(y.sum(1) > 0, losses <= losses.sort().values[count - 1])
    y = torch.full((10, 3), 1 / 3, dtype=torch.float64)
    _, soft = method.transform(net, X, y, StepRandom(0, 0))
    assert int((soft.sum(1) > 0).sum()) == count


def test_judging_leaves_the_network_as_it_is():
    net = BatchNorm().build(network(dropout=0.5))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    SelfPaced(start=0.2, end=0.5).transform(net, X, Y, StepRandom(0, 0))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.5, "end": 1}, r"start is 1.5; accepted: a number in \[0, 1\]"),
        ({"start": 0.5, "end": 0}, "end is 0; accepted: a number in \\(0, 1\\]"),
    ],
)
def test_shares_of_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SelfPaced(**settings)


def test_networks_without_classes_are_refused():
    with pytest.raises(ValueError, match="Linear does not say how many classes"):
        SelfPaced(start=0.2, end=0.5).build(torch.nn.Linear(3, 2))
