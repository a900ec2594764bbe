"""The Fisher matrix against dense float64 ones and closed forms."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import (
    Snapshot,
    empirical_fisher_trace,
    fisher_rao_norm,
    fisher_trace,
    gradient_norm,
    gradient_variance,
)
from tests.helpers.measured import one_by_one
from tests.helpers.networks import NETS, build


def every_label(net: nn.Module, x: torch.Tensor) -> float:
    """1/N Σᵢ Σ_k p_k ‖∇ log p_k‖² by a loop over examples and classes."""
    p = net.eval()(x).softmax(1).detach()
    squares = [
        one_by_one(net, x, torch.full((len(x),), k, dtype=torch.long)).square().sum(1) for k in range(p.shape[1])
    ]
    return float((p * torch.stack(squares, 1)).sum(1).mean())


@pytest.mark.oracle("fisher_trace", "empirical_fisher_trace", "fisher_rao_norm")
@pytest.mark.parametrize("name", NETS)
def test_against_loops_over_examples_and_classes(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])])
    found = fisher_trace(snapshot)
    assert found.value == pytest.approx(every_label(net, x), rel=1e-9)
    assert found.stderr == 0
    g = one_by_one(net, x, y)
    assert empirical_fisher_trace(snapshot).value == pytest.approx(float(g.square().sum(1).mean()), rel=1e-9)
    w = torch.cat([p.detach().reshape(-1) for p in net.parameters() if p.requires_grad])
    matrix = g.T @ g / len(g)
    assert fisher_rao_norm(snapshot).value == pytest.approx(math.sqrt(float(w @ matrix @ w)), rel=1e-9)


def softmax_regression(classes: int) -> tuple[Snapshot, float]:
    """Logits Wx: ∇ log p_k = (e_k − p)xᵀ, so tr F = mean (1 − ‖p‖²)‖x‖²."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, classes, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, 3, generator=generator, dtype=torch.float64))
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    p = (x @ model.weight.detach().T).softmax(1)
    expected = float(((1 - p.square().sum(1)) * x.square().sum(1)).mean())
    return Snapshot(model, F.cross_entropy, [(x, torch.zeros(40).long())]), expected


@pytest.mark.oracle("fisher_trace")
@pytest.mark.parametrize("classes", [2, 5, 10])
def test_softmax_regression(classes):
    snapshot, expected = softmax_regression(classes)
    assert fisher_trace(snapshot).value == pytest.approx(expected, rel=1e-12)


def test_labels_drawn_from_the_network_cover_the_truth():
    snapshot, expected = softmax_regression(12)
    inside, deviations, errors = 0, [], []
    for seed in range(200):
        found = fisher_trace(snapshot, seed=seed, passes=3)
        inside += abs(found.value - expected) <= 2 * found.stderr
        deviations.append(found.value - expected)
        errors.append(found.stderr)
    assert 180 <= inside <= 198
    # the standard error is that of the draws, not the spread of the examples
    spread = math.sqrt(sum(d**2 for d in deviations) / 200)
    assert sum(errors) / 200 == pytest.approx(spread, rel=0.15)


def test_more_passes_come_nearer():
    snapshot, expected = softmax_regression(12)
    few, many = (fisher_trace(snapshot, passes=passes) for passes in (2, 11))
    assert many.stderr < few.stderr
    assert abs(fisher_trace(snapshot, passes=12).value - expected) < 1e-12


def test_the_same_seed_draws_the_same_labels():
    snapshot, _ = softmax_regression(12)
    values = [fisher_trace(snapshot, passes=3, seed=seed).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_it_neither_asks_for_the_loss_nor_for_the_labels():
    net, x, y = build("mlp")
    smoothed = Snapshot(net, nn.CrossEntropyLoss(label_smoothing=0.3), [(x, torch.zeros_like(y))])
    assert fisher_trace(smoothed).value == fisher_trace(Snapshot(net, F.cross_entropy, [(x, y)])).value


class Tagger(nn.Module):
    """Logits [N, K, T] of every position."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).movedim(-1, 1)


def test_of_several_labels_an_example_it_is_the_mean_over_positions():
    """Each position is softmax regression on its own, and the loss their mean: the matrix is Jᵀ(∇²ℓ)J of that loss."""
    torch.manual_seed(0)
    model, x = Tagger().double(), torch.randn(15, 5, 3, dtype=torch.float64)
    p = (x @ model.layer.weight.detach().T).softmax(-1)
    expected = float(((1 - p.square().sum(-1)) * x.square().sum(-1)).mean())
    snapshot = Snapshot(model, F.cross_entropy, [(x, torch.zeros(15, 5).long())])
    inside = 0
    for seed in range(100):
        found = fisher_trace(snapshot, seed=seed, passes=4)
        inside += abs(found.value - expected) <= 2 * found.stderr
    assert 90 <= inside <= 99
    dense = [snapshot.gauss_newton.matvec(e)[i] for i, e in enumerate(torch.eye(12, dtype=torch.float64))]
    assert float(sum(dense)) == pytest.approx(expected, rel=1e-9)


def test_the_empirical_one_is_mean_and_variance_of_the_gradients():
    net, x, y = build("attention")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = gradient_norm(snapshot).value ** 2 + gradient_variance(snapshot).value
    assert empirical_fisher_trace(snapshot).value == pytest.approx(parts, rel=1e-9)


@pytest.mark.oracle("fisher_rao_norm")
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_fisher_rao_of_linear_networks(depth):
    """⟨w, ∇ℓᵢ⟩ = d ⟨∂ℓᵢ/∂fᵢ, fᵢ⟩ for d matrices without biases; of ½(f − y)² in one dimension d (f − y)f."""
    torch.manual_seed(depth)
    sizes = [3, *[4] * (depth - 1), 1]
    net = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))).double()
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    product = torch.eye(3, dtype=torch.float64)
    for layer in net:
        product = layer.weight.detach() @ product
    f = x @ product.T
    expected = depth * math.sqrt(float(((f - y) * f).square().mean()))
    snapshot = Snapshot(net, lambda out, y: 0.5 * F.mse_loss(out, y), [(x, y)])
    assert fisher_rao_norm(snapshot).value == pytest.approx(expected, rel=1e-9)


def relu_net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(5, 3, bias=False)).double()


@given(st.floats(0.2, 5), st.sampled_from([(0, 2), (2, 4), (0, 4)]), st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_rescaled_layers_and_permuted_units(scale, pair, order):
    """The norm knows the function alone; traces change when layers are rescaled."""
    _, x, y = build("mlp")
    net, other = relu_net(), relu_net()
    with torch.no_grad():
        other[pair[0]].weight.mul_(scale)
        other[pair[1]].weight.div_(scale)
        other[0].weight.copy_(other[0].weight[order])
        other[2].weight.copy_(other[2].weight[:, order])
    a, b = (Snapshot(each, F.cross_entropy, [(x, y)]) for each in (net, other))
    assert fisher_rao_norm(b).value == pytest.approx(fisher_rao_norm(a).value, rel=1e-9)
    for trace in (fisher_trace, empirical_fisher_trace):
        same = trace(b).value == pytest.approx(trace(a).value, rel=1e-9)
        assert same == (scale == pytest.approx(1, abs=1e-6))


@given(st.lists(st.integers(1, 23), unique=True, max_size=5))
@settings(max_examples=10, deadline=None)
def test_batches_do_not_matter(cuts):
    net, x, y = build("mlp")
    ends = [0, *sorted(cuts), 24]
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    split = Snapshot(net, F.cross_entropy, [(x[a:b], y[a:b]) for a, b in pairwise(ends)])
    for measure in (fisher_trace, empirical_fisher_trace, fisher_rao_norm):
        assert measure(split).value == pytest.approx(measure(whole).value, rel=1e-9), measure.__name__
    drawn = [fisher_trace(each, passes=2, seed=3) for each in (whole, split)]
    assert drawn[0].value == pytest.approx(drawn[1].value, rel=1e-9)
    assert drawn[0].stderr == pytest.approx(drawn[1].stderr, rel=1e-9)


def test_undefined_where_there_are_no_classes():
    net, x, _ = build("mlp")
    snapshot = Snapshot(net, F.mse_loss, [(x, torch.zeros(len(x), 3, dtype=torch.float64))])
    found = fisher_trace(snapshot)
    assert found.value is None
    assert found.note.startswith("undefined: the targets are no class labels")
    assert empirical_fisher_trace(snapshot).value > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [({"passes": 1}, "passes is 1; accepted: an integer of at least 2"), ({"seed": -1}, "seed is -1; accepted")],
)
def test_settings(given, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        fisher_trace(Snapshot(net, F.cross_entropy, [(x, y)]), **given)
