import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, flat_box_volume
from genbench.models import MLP


def snapshot_of(net, x, **settings):
    with torch.no_grad():
        classes = net.eval()(x).shape[1]
    batches = list(zip(x.split(3), (torch.arange(len(x)) % classes).split(3), strict=True))
    return Snapshot(net, F.cross_entropy, batches, **settings)


def dense(net, x, epsilon, floor):
    """The mean of Σᵢ log 2Δwᵢ, with the edges by name as in the paper's derivation."""
    net, weights = net.double(), [p for p in net.parameters() if p.requires_grad]
    found = []
    for one in x.double():
        rows = [torch.autograd.grad(o, weights, retain_graph=True) for o in net(one[None]).flatten()]
        j = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        squares = j.square().sum(0) + floor
        both = (j.abs() / squares.sqrt()).sum(1).square().sum() + floor
        found.append(float((2 * math.sqrt(epsilon) / (squares.sqrt() * both.sqrt())).log().sum()))
    return sum(found) / len(found)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_volume_of_the_box_by_its_edges(frozen):
    torch.manual_seed(0)
    net, x = MLP(input_shape=(1, 4), classes=3, width=6), torch.randn(7, 1, 4)
    net.head.bias.requires_grad_(not frozen)
    found = flat_box_volume(snapshot_of(net, x), epsilon=0.3, floor=1e-5)
    assert found.value == pytest.approx(dense(net, x, 0.3, 1e-5), rel=1e-6)


def test_a_linear_map_by_hand():
    """o = w·x, ε = 4: the edge along wᵢ is 2 · 2 / (3 |xᵢ|)."""
    net, x = nn.Linear(3, 1, bias=False), torch.tensor([[2.0, -1.0, 0.5]])
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, torch.ones(1, 1))])
    expected = 3 * math.log(4 / 3)  # Σ log |xᵢ| = 0
    assert flat_box_volume(snapshot, epsilon=4.0, floor=1e-12).value == pytest.approx(expected, abs=1e-9)


def test_rescaling_changes_it_by_the_numbers_of_weights():
    """W₁ → 4W₁, W₂ → W₂/4: each edge along W₁ grows by 4, each along W₂ shrinks by 4. Units that are off have none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    x = torch.randn(7, 4)
    before = flat_box_volume(snapshot_of(net, x), floor=1e-24).value
    on = float((F.linear(x, net[0].weight) > 0).double().sum(1).mean())
    with torch.no_grad():
        net[0].weight *= 4
        net[2].weight /= 4
    after = flat_box_volume(snapshot_of(net, x), floor=1e-24).value
    assert after - before == pytest.approx((4 - 3) * on * math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), "batch normalization computes no example alone"),
        (nn.Sequential(nn.Linear(4, 5000), nn.Linear(5000, 700)), "2,467,990,000 derivatives of an example"),
    ],
)
def test_it_is_undefined(net, reason):
    found = flat_box_volume(snapshot_of(net, torch.randn(7, 4)))
    assert found.value is None
    assert found.note.startswith(f"undefined: {reason}")


@pytest.mark.parametrize("name", ["epsilon", "floor"])
def test_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} is 0"):
        flat_box_volume(snapshot_of(nn.Linear(4, 2), torch.randn(7, 4)), **{name: 0})
