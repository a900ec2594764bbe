import math

import pytest
import torch
from torch import nn

from genbench.models import MLP, use_draw
from genbench.models.flat_box import flat_box_information
from genbench.regularization.flat_minimum_search import FlatMinimumSearch
from genbench.rng import StepRandom
from tests.helpers.networks import build


def network(**settings):
    torch.manual_seed(0)
    return MLP(input_shape=(1, 4), classes=3, width=5, **settings).double()


def naive(net, weights, x, floor):
    """B of each example by loops over outputs, differentiable."""
    found = []
    for one in x:
        outputs = net(one[None]).flatten()
        rows = [torch.autograd.grad(o, weights, create_graph=True, allow_unused=True) for o in outputs]
        j = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        j = torch.where(j.abs() < floor, torch.full_like(j, floor), j.abs())
        count = j.shape[1]
        first = sum(torch.log((j[:, i] ** 2).sum()) for i in range(count))
        second = sum(sum(j[k, i] / torch.sqrt((j[:, i] ** 2).sum()) for i in range(count)) ** 2 for k in range(len(j)))
        found.append((first + count * torch.log(second)) / 2)
    return torch.stack(found)


@pytest.mark.parametrize("floor", [1e-20, 1e-3, 0.3])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_value_and_gradient_are_those_of_the_naive_formula(activation, floor):
    net, x = network(activation=activation), torch.randn(3, 1, 4, dtype=torch.float64)
    params = list(net.parameters())
    expected = 0.3 * naive(net, params, x, floor).mean()
    method = FlatMinimumSearch(strength=0.3, floor=floor)
    value = method.penalty(method.build(net), x, torch.zeros(3).long(), net(x), StepRandom(0, 0))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    ours = torch.autograd.grad(value, params, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(expected, params, allow_unused=True, materialize_grads=True)
    assert max(float(g.abs().max()) for g in ours) > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_recurrent_layers_of_torch_train_with_it():
    net, x, y = build("gru", n=3)
    params = list(net.parameters())
    method = FlatMinimumSearch(strength=0.3, floor=1e-3)
    value = method.penalty(method.build(net), x, y, net(x), StepRandom(0, 0))
    ours = torch.autograd.grad(value, params, allow_unused=True, materialize_grads=True)
    expected = 0.3 * naive(net, params, x, 1e-3).mean()
    theirs = torch.autograd.grad(expected, params, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_a_linear_output_by_hand():
    """o = w·x: Δwᵢ = 1 / (L |xᵢ|), so that the outputs change by at most Σ |xᵢ| Δwᵢ = 1."""
    net, x = nn.Linear(3, 1, bias=False).double(), torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    found = flat_box_information(net, dict(net.named_parameters()), x, floor=0.0)
    torch.testing.assert_close(found, x.abs().log().sum(1) + 3 * math.log(3))


@pytest.mark.parametrize("k", [1, 2])
def test_a_unit_by_hand(k):
    """o_k = v_k tanh(wx + b) + c_k, with h = tanh(wx + b): ∂o_k/∂w = v_k (1 − h²) x, ∂o_k/∂b = v_k (1 − h²),
    ∂o_k/∂v_k = h and ∂o_k/∂c_k = 1. The sums over k of their squares are |v|² (1 − h²)² x², |v|² (1 − h²)², h² and 1,
    so that output k has Σᵢ |∂o_k/∂wᵢ| / √sᵢ = 2 |v_k| / |v| + 2. With one output B is Σᵢ log |∂o/∂wᵢ| + 4 log 4."""
    w, b, x, v = 0.7, -0.2, 1.5, [1.3, -0.4][:k]
    unit = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, k)).double()
    with torch.no_grad():
        unit[0].weight.fill_(w)
        unit[0].bias.fill_(b)
        unit[2].weight.copy_(torch.tensor(v)[:, None])
    h, length = math.tanh(w * x + b), math.hypot(*v)
    slope = length * (1 - h * h)
    logs = math.log(slope * x) + math.log(slope) + k * math.log(h)  # of √sᵢ, those of the c_k are 0
    reach = sum((2 * abs(each) / length + 2) ** 2 for each in v)
    expected = logs + (2 + 2 * k) / 2 * math.log(reach)
    found = flat_box_information(unit, dict(unit.named_parameters()), torch.tensor([[x]]).double(), floor=0.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    if k == 1:
        assert found.item() == pytest.approx(math.log(slope**2 * x * h) + 4 * math.log(4), rel=1e-6)
        (by_v,) = torch.autograd.grad(found.sum(), unit[2].weight)
        assert float(by_v) == pytest.approx(2 / v[0], rel=1e-6)


def test_the_floor_of_the_paper_is_one_in_single_precision():
    """Its square is no number of float32. The two weights of an input of zero are without effect, so that √sᵢ is
    √2 · 1e-20; those of the others are √sᵢ = |xᵢ|, and each output has Σᵢ |∂o_k/∂wᵢ| / √sᵢ = 2 + 2/√2."""
    net, x = nn.Linear(3, 2, bias=False), torch.tensor([[2.0, -0.5, 0.0]])
    found = flat_box_information(net, dict(net.named_parameters()), x, floor=1e-20)
    expected = 2 * math.log(2 * 0.5 * math.sqrt(2) * 1e-20) + 3 * math.log(2 * (2 + math.sqrt(2)) ** 2)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_weight_below_the_floor_gets_no_gradient_of_its_own():
    """o = v tanh(w x) at v = 1e-30: v alone moves the output, and less of it widens no box."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.fill_(0.5)
        net[2].weight.fill_(1e-30)
    found = flat_box_information(net, dict(net.named_parameters()), torch.ones(1, 1).double(), floor=1e-20)
    by_w, by_v = torch.autograd.grad(found.sum(), list(net.parameters()))
    h = math.tanh(0.5)
    assert float(by_v) == 0
    assert float(by_w) == pytest.approx((1 - h * h) / h)  # of log |∂o/∂v| = log h


def test_the_outputs_stay_within_the_tolerance_in_the_box():
    net, x = network(activation="tanh"), torch.randn(1, 1, 4, dtype=torch.float64)
    params = dict(net.named_parameters())
    tolerance, floor = 1e-8, 1e-12  # so little that the outputs are linear
    rows = [torch.autograd.grad(o, list(params.values()), retain_graph=True) for o in net(x).flatten()]
    j = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    j = j.abs().clamp_min(floor)
    squares = j.square().sum(0)
    reach = (j / squares.sqrt()).sum(1).square().sum().sqrt()
    half = math.sqrt(tolerance) / (squares.sqrt() * reach)
    torch.testing.assert_close(
        half.log().sum(), len(half) * math.log(tolerance) / 2 - flat_box_information(net, params, x, floor=floor)[0]
    )
    before = net(x)
    for signs in torch.randn(20, len(half), dtype=torch.float64).sign():
        move = torch.cat([p.flatten() for p in params.values()]).detach() + signs * half
        shaped, start = {}, 0
        for name, p in params.items():
            shaped[name] = move[start : start + p.numel()].view_as(p)
            start += p.numel()
        moved = torch.func.functional_call(net, shaped, (x,))
        assert float((moved - before).detach().square().sum()) <= tolerance * 1.001


def test_frozen_weights_have_no_edge_and_dropout_is_that_of_the_step():
    net = network(dropout=0.5)
    net.head.bias.requires_grad_(False)
    x = torch.randn(2, 1, 4, dtype=torch.float64)
    method = FlatMinimumSearch(strength=1.0, floor=1e-3)
    use_draw(method.build(net), draw := StepRandom(1, 2))
    weights = [p for p in net.parameters() if p.requires_grad]
    value = method.penalty(net, x, torch.zeros(2).long(), net(x), draw)
    torch.testing.assert_close(value, naive(net, weights, x, 1e-3).mean())


def test_batch_normalization_is_refused():
    with pytest.raises(ValueError, match="FlatMinimumSearch: computes each example alone"):
        FlatMinimumSearch(strength=1, floor=1).build(network(normalization="batch_norm"))


@pytest.mark.parametrize(("strength", "floor", "name"), [(-1, 1, "strength"), (1, 0, "floor"), ("x", 1, "strength")])
def test_bad_settings_are_named(strength, floor, name):
    with pytest.raises(ValueError, match=f"FlatMinimumSearch: {name} is "):
        FlatMinimumSearch(strength=strength, floor=floor)
