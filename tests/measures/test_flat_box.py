import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genbench.measures import Snapshot, flat_box_volume, sensitive_weights
from genbench.models import MLP
from tests.helpers.networks import build


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
        j = torch.where(j.abs() < floor, floor, j.abs())
        squares = j.square().sum(0)
        both = (j / squares.sqrt()).sum(1).square().sum()
        found.append(float((2 * math.sqrt(epsilon) / (squares.sqrt() * both.sqrt())).log().sum()))
    return sum(found) / len(found)


@pytest.mark.oracle("flat_box_volume")
@pytest.mark.parametrize("floor", [1e-20, 1e-5, 0.3])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_volume_of_the_box_by_its_edges(frozen, floor):
    torch.manual_seed(0)
    net, x = MLP(input_shape=(1, 4), classes=3, width=6), torch.randn(7, 1, 4)
    net.head.bias.requires_grad_(not frozen)
    found = flat_box_volume(snapshot_of(net, x), epsilon=0.3, floor=floor)
    assert found.value == pytest.approx(dense(net, x, 0.3, floor), rel=1e-6)


@pytest.mark.oracle("flat_box_volume")
@pytest.mark.parametrize("name", ["tied", "gru", "attention"])
def test_it_is_that_of_any_network_that_computes_examples_alone(name):
    net, x, _ = build(name, n=4)
    found = flat_box_volume(snapshot_of(net, x), epsilon=0.3)
    with sdpa_kernel(SDPBackend.MATH):
        assert found.value == pytest.approx(dense(net, x, 0.3, 1e-3), rel=1e-9)


@pytest.mark.oracle("flat_box_volume")
def test_batches_of_another_form_and_networks_of_one_precision():
    torch.manual_seed(0)
    net, x = MLP(input_shape=(4,), classes=3, width=6), torch.randn(7, 4)
    batches = [{"x": part, "y": torch.arange(len(part)) % 3} for part in x.split(3)]
    dicts = Snapshot(net, F.cross_entropy, batches, forward=lambda m, b: (m(b["x"]), b["y"]))
    pairs = snapshot_of(net, x)
    assert flat_box_volume(dicts).value == flat_box_volume(pairs).value is not None
    assert sensitive_weights(dicts).value == sensitive_weights(pairs).value

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3).bfloat16()

        def forward(self, x):
            return self.head(self.first(x).tanh().bfloat16()).float()

    narrow = snapshot_of(Narrow(), x)
    for function in (flat_box_volume, sensitive_weights):
        assert function(narrow).note.startswith("undefined: the network cannot be computed in float64")


@pytest.mark.oracle("flat_box_volume")
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
    before = flat_box_volume(snapshot_of(net, x), floor=1e-12).value
    on = float((F.linear(x, net[0].weight) > 0).double().sum(1).mean())
    with torch.no_grad():
        net[0].weight *= 4
        net[2].weight /= 4
    after = flat_box_volume(snapshot_of(net, x), floor=1e-12).value
    assert after - before == pytest.approx((4 - 3) * on * math.log(4), rel=1e-6)


def test_a_weight_without_effect_has_the_edge_of_the_floor():
    """o = w·x with x₃ = 0: Σ |∂o/∂wᵢ|/√sᵢ = 3, and Δwᵢ = 1/(3 |xᵢ|) with |x₃| the floor."""
    net, x = nn.Linear(3, 1, bias=False), torch.tensor([[2.0, -0.5, 0.0]])
    snapshot = Snapshot(net, F.binary_cross_entropy_with_logits, [(x, torch.ones(1, 1))])
    for floor in (1e-3, 1e-20):
        expected = 3 * math.log(2 / 3) - math.log(floor)
        assert flat_box_volume(snapshot, floor=floor).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.oracle("sensitive_weights")
@pytest.mark.parametrize("factor", [2.0, 20.0, 1e3])
def test_sensitive_weights_are_those_by_hand(factor):
    torch.manual_seed(0)
    net, x = MLP(input_shape=(1, 4), classes=3, width=6), torch.randn(7, 1, 4)
    with torch.no_grad():
        net.layers[1][0].weight[2] *= 0.01
        net.head.weight[:, 2] *= 0.01
    found = sensitive_weights(snapshot_of(net, x), factor=factor)
    weights = list(net.double().parameters())
    squares = torch.zeros(sum(p.numel() for p in weights)).double()
    for one in x.double():
        for o in net(one[None]).flatten():
            squares += torch.cat([g.flatten() for g in torch.autograd.grad(o, weights, retain_graph=True)]).square()
    length = (squares / len(x)).sqrt()
    expected = int((length >= length.max() / factor).sum())
    assert 0 < expected < len(length)
    assert found.value == expected


def test_sensitive_weights_do_not_depend_on_confidence():
    """Of o = w·x alone: ∂o/∂w is x whatever w is, and of the four weights the one of the small input is pruned."""
    x = torch.tensor([[1.0, 5e-3], [-2.0, 1e-3]])
    for size in (0.1, 100.0):
        net = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            net.weight.copy_(size * torch.eye(2))
        assert sensitive_weights(snapshot_of(net, x)).value == 2


def test_no_weight_counts_where_none_has_an_effect():
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()
        net[2].weight.zero_()
    assert sensitive_weights(snapshot_of(net, torch.randn(7, 4))).value == 0


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), "batch normalization computes no example alone"),
        (nn.Sequential(nn.Linear(4, 5000), nn.Linear(5000, 700)), "2,467,990,000 derivatives of an example"),
    ],
)
def test_it_is_undefined(net, reason):
    for measure in (flat_box_volume, sensitive_weights):
        found = measure(snapshot_of(net, torch.randn(7, 4)))
        assert found.value is None
        assert found.note.startswith(f"undefined: {reason}")


@pytest.mark.parametrize("name", ["epsilon", "floor"])
def test_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} is 0"):
        flat_box_volume(snapshot_of(nn.Linear(4, 2), torch.randn(7, 4)), **{name: 0})


@pytest.mark.parametrize("factor", [1, 0, -2])
def test_the_factor_is_above_one(factor):
    with pytest.raises(ValueError, match=r"^factor is "):
        sensitive_weights(snapshot_of(nn.Linear(4, 2), torch.randn(7, 4)), factor=factor)
