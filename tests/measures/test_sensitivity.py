"""Sensitivity to the input against dense Jacobians, and switches of units against exact crossings."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, jacobian_norm, linear_region_transitions
from genbench.measures.perturbations import generator_of
from tests.helpers.networks import NETS, build

NORMS = ("jacobian_norm", "jacobian_norm_probabilities")


def frobenius(function, x):
    """‖∂f/∂x‖_F of each example, by torch's own Jacobian."""
    rows = [torch.autograd.functional.jacobian(lambda v: function(v[None])[0], each) for each in x]
    return torch.stack([j.flatten().norm() for j in rows])


@pytest.mark.oracle("jacobian_norm")
@pytest.mark.parametrize("name", NETS)
def test_against_the_dense_jacobian(name):
    net, x, y = build(name, n=9)
    net.eval()
    found = jacobian_norm(Snapshot(net, F.cross_entropy, [(x[:4], y[:4]), (x[4:], y[4:])]))
    assert tuple(found) == NORMS
    for key, function in zip(NORMS, (net, lambda v: net(v).softmax(1)), strict=True):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            norms = frobenius(function, x)
        assert found[key].value == pytest.approx(float(norms.mean()), rel=1e-9)
        assert found[key].stderr == pytest.approx(float(norms.std()) / 3, rel=1e-9)


def test_a_linear_model_has_the_norm_of_its_weights():
    net, x = nn.Linear(5, 3).double(), torch.randn(7, 5, dtype=torch.float64)
    found = jacobian_norm(Snapshot(net, F.cross_entropy, [(x, torch.arange(7) % 3)]))
    assert found["jacobian_norm"].value == pytest.approx(float(net.weight.detach().norm()), rel=1e-12)
    assert found["jacobian_norm"].stderr == pytest.approx(0, abs=1e-12)
    # twice the logits, twice the norm; the probabilities of a network that is certain do not move
    with torch.no_grad():
        net.weight.mul_(1e4)
    certain = jacobian_norm(Snapshot(net, F.cross_entropy, [(x, torch.arange(7) % 3)]))
    assert certain["jacobian_norm"].value == pytest.approx(1e4 * found["jacobian_norm"].value)
    assert certain["jacobian_norm_probabilities"].value < 1e-6


@pytest.mark.oracle("jacobian_norm")
def test_one_logit_is_two_classes():
    net, x = nn.Linear(5, 1).double(), torch.randn(7, 5, dtype=torch.float64)
    y = torch.arange(7).double()[:, None] % 2
    found = jacobian_norm(Snapshot(net, F.binary_cross_entropy_with_logits, [(x, y)]))
    p = net(x).sigmoid().detach()
    assert found["jacobian_norm"].value == pytest.approx(float(net.weight.detach().norm()), rel=1e-12)
    expected = float((2**0.5 * p * (1 - p)).mean() * net.weight.detach().norm())
    assert found["jacobian_norm_probabilities"].value == pytest.approx(expected, rel=1e-9)


def test_several_answers_an_example_and_time_first():
    torch.manual_seed(0)
    net = nn.Conv1d(2, 3, 3, padding=1).double()
    x, y = torch.randn(4, 2, 6, dtype=torch.float64), torch.randint(3, (4, 6))
    found = jacobian_norm(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert found["jacobian_norm"].value == pytest.approx(float(frobenius(net, x).mean()), rel=1e-9)
    probabilities = frobenius(lambda v: net(v).softmax(1), x)
    assert found["jacobian_norm_probabilities"].value == pytest.approx(float(probabilities.mean()), rel=1e-9)

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(2, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.gru(x)[0])  # [T, B, 3]

    net = TimeFirst().double()
    x, y = torch.randn(6, 5, 2, dtype=torch.float64), torch.randint(3, (6, 5))
    snapshot = Snapshot(net, lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten()), [(x, y)])
    found = jacobian_norm(snapshot)
    norms = frobenius(lambda v: net(v.movedim(0, 1)).movedim(1, 0), x.movedim(1, 0))
    assert found["jacobian_norm"].value == pytest.approx(float(norms.mean()), rel=1e-9)
    assert found["jacobian_norm"].stderr == pytest.approx(float(norms.std()) / math.sqrt(5), rel=1e-9)


def test_regression_and_what_has_no_jacobian():
    net, x, _ = build("mlp")
    fitted = jacobian_norm(Snapshot(net, F.mse_loss, [(x, torch.zeros(24, 3).double())]))
    assert fitted["jacobian_norm"].value == pytest.approx(float(frobenius(net, x).mean()), rel=1e-9)
    assert fitted["jacobian_norm_probabilities"].note.startswith("undefined: the targets are no class labels")
    spoken = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    tokens = torch.randint(5, (6, 7))
    loss = lambda out, y: F.cross_entropy(out.movedim(2, 1), y)  # noqa: E731
    snapshot = Snapshot(spoken, loss, [(tokens, tokens.roll(-1, 1))])
    assert {e.note for e in jacobian_norm(snapshot).values()} == {"undefined: the input has no real numbers"}
    assert linear_region_transitions(snapshot).note == "undefined: the input has no real numbers"


def test_outputs_that_do_not_depend_on_the_input():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, x):
            return self.b.expand(len(x), 3)

    x, y = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
    found = jacobian_norm(Snapshot(Constant(), F.cross_entropy, [(x, y)]))
    assert [e.value for e in found.values()] == [0, 0]


def test_rescaling_of_units_leaves_both_and_scaling_of_inputs_divides():
    net, x, y = build("mlp")
    before = (jacobian_norm(snapshot := Snapshot(net, F.cross_entropy, [(x, y)])), linear_region_transitions(snapshot))
    with torch.no_grad():
        factors = torch.rand(6, dtype=torch.float64) + 0.1
        net[0].weight.mul_(factors[:, None])
        net[0].bias.mul_(factors)
        net[2].weight.div_(factors)
    after = jacobian_norm(snapshot := Snapshot(net, F.cross_entropy, [(x, y)])), linear_region_transitions(snapshot)
    for key in NORMS:
        assert after[0][key].value == pytest.approx(before[0][key].value, rel=1e-9)
    assert after[1].value == before[1].value
    with torch.no_grad():
        net[0].weight.div_(10)
    scaled = jacobian_norm(Snapshot(net, F.cross_entropy, [(10 * x, y)]))
    assert scaled["jacobian_norm"].value == pytest.approx(before[0]["jacobian_norm"].value / 10, rel=1e-9)


def test_neither_batches_nor_fewer_examples_out_of_place():
    net, x, y = build("conv")
    whole = jacobian_norm(Snapshot(net, F.cross_entropy, [(x, y)]), examples=6)
    split = jacobian_norm(Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True))), examples=6)
    rows = torch.arange(0, 24, 4)
    some = jacobian_norm(Snapshot(net, F.cross_entropy, [(x[rows], y[rows])]))
    for key in NORMS:
        assert split[key].value == pytest.approx(whole[key].value, rel=1e-12)
        assert some[key].value == pytest.approx(whole[key].value, rel=1e-12)


# -- linear regions


def paths_of(x, seed, paths):
    """Centre and half axes of the ellipses, in the order in which they are drawn."""
    generator = generator_of(seed, "linear_region_transitions")
    found = []
    for _ in range(paths):
        a, b, c = x[torch.randperm(len(x), generator=generator)[:3]]
        centre = (a + b + c) / 3
        found.append((centre, a - centre, (b - c) / math.sqrt(3)))
    return found


def crossings(net, centre, u, v):
    """Where the ellipse crosses the planes of the units of one hidden layer: h + p cos θ + q sin θ = 0, two solutions
    or none for each."""
    w, b = net[0].weight, net[0].bias
    h, p, q = w @ centre + b, w @ u, w @ v
    return 2 * int((p.square() + q.square() > h.square()).sum())


@pytest.mark.oracle("linear_region_transitions")
def test_one_hidden_layer_is_crossed_where_the_ellipse_meets_its_planes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3)).double()
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(3, (40,))
    found = linear_region_transitions(Snapshot(net, F.cross_entropy, [(x, y)]), paths=8, points=4096)
    exact = torch.tensor([crossings(net, *path) for path in paths_of(x, 0, 8)], dtype=torch.float64)
    assert found.value == pytest.approx(float(exact.mean()))
    assert found.stderr == pytest.approx(float(exact.std()) / 8**0.5)
    assert found.converged
    assert found.note is None


def test_few_points_miss_switches_and_say_so():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3)).double()
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(3, (40,))
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = [linear_region_transitions(snapshot, paths=3, points=points) for points in (8, 32, 128, 1024)]
    assert [e.value for e in found] == sorted(e.value for e in found)
    assert found[0].converged is False
    assert found[0].residual > 0.05
    assert found[-1].converged
    assert found[-1].residual < 0.01


@pytest.mark.oracle("linear_region_transitions")
def test_every_kind_of_piece_counts_once():
    """One input along a line through 0, and back: each kink of a function of it is crossed twice."""
    x = torch.tensor([[-3.0], [1.0], [2.0]], dtype=torch.float64)  # the ellipse in one dimension: from −3 to 3 and back
    kinks = {
        nn.ReLU(): 1,
        nn.ReLU(inplace=True): 1,
        nn.LeakyReLU(): 1,
        nn.PReLU(): 1,
        nn.Hardtanh(): 2,
        nn.ReLU6(): 1,  # 6 is outside
        nn.Threshold(0.5, 0.5): 1,
        nn.Softshrink(): 2,
        torch.abs: 1,
        lambda v: v.clamp(-1, 2): 2,
        lambda v: v.clamp(min=-1): 1,
        lambda v: torch.clamp_max(v, 0.5): 1,
        lambda v: torch.maximum(v, 2 * v + 1): 1,
        lambda v: torch.stack([v, -v, v + 1]).amax(0): 1,
        lambda v: torch.stack([v, -v, v + 1]).max(0)[0]: 1,
        lambda v: F.max_pool1d(torch.stack([v, -v], 2), 2)[:, :, 0]: 1,
        lambda v: F.adaptive_max_pool1d(torch.stack([v, -v], 2), 1)[:, :, 0]: 1,
        lambda v: 3 * v + 1: 0,
    }

    class Net(nn.Module):
        def __init__(self, function) -> None:
            super().__init__()
            self.function, self.scale = function, nn.Parameter(torch.ones(1, 1, dtype=torch.float64))

        def forward(self, x):
            return self.function(x @ self.scale)

    for function, number in kinks.items():
        net = Net(function).double()
        found = linear_region_transitions(Snapshot(net, F.mse_loss, [(x, x)]), paths=2, points=64)
        assert found.value == 2 * number, function
        assert found.stderr == 0


@pytest.mark.parametrize(
    "function", [torch.tanh, F.gelu, F.softplus, lambda v: v * v.relu(), lambda v: v / (1 + v.abs())]
)
def test_what_is_not_piecewise_linear_is_undefined(function):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(function(self.first(x)))

    torch.manual_seed(0)
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    found = linear_region_transitions(Snapshot(Net().double(), F.cross_entropy, [(x, y)]), paths=2, points=64)
    assert found.value is None
    assert found.note == "undefined: the network is not linear where no unit switches"


def test_residual_networks_with_batch_norm_and_pooling():
    from genbench.models.resnet18 import ResNet18

    torch.manual_seed(0)
    net = ResNet18(input_shape=(3, 8, 8), classes=4, width=2)
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    net(x)  # statistics of its own
    found = linear_region_transitions(Snapshot(net, F.cross_entropy, [(x, y)]), paths=2, points=64)
    assert found.value > 100
    assert found.note is None


def test_the_network_the_random_state_and_the_draws():
    net, x, y = build("mlp")
    net.train()
    state, weights = torch.get_rng_state(), {k: t.clone() for k, t in net.state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    a, b, c = (linear_region_transitions(snapshot, seed=seed).value for seed in (0, 0, 1))
    jacobian_norm(snapshot)
    assert a == b != c
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(t, weights[k]) for k, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_fewer_than_three_examples_and_other_batches():
    net, x, y = build("mlp")
    few = linear_region_transitions(Snapshot(net, F.cross_entropy, [(x[:2], y[:2])]))
    assert few.note == "undefined: there are fewer than three examples"


@pytest.mark.parametrize(
    ("function", "setting", "message"),
    [
        (jacobian_norm, {"examples": 0}, "examples is 0; accepted: an integer of at least 1"),
        (linear_region_transitions, {"paths": 1}, "paths is 1; accepted: an integer of at least 2"),
        (linear_region_transitions, {"points": 3}, "points is 3; accepted: an integer of at least 4"),
        (linear_region_transitions, {"tolerance": 2}, r"tolerance is 2; accepted: a number in \[0, 1\]"),
        (linear_region_transitions, {"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
    ],
)
def test_settings(function, setting, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **setting)
