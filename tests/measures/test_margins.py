"""Margins by hand, against naive oracles, and where they are undefined."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import (
    Snapshot,
    input_margin,
    inverse_margin,
    margin,
    margin_quantiles,
    negative_entropy,
    normalized_margin,
    normalized_margin_quantiles,
)
from genbench.measures.margins import margin_percentile
from genbench.models import Ensemble
from tests.helpers.networks import NETS, Tied, build

QUICK = settings(max_examples=20, deadline=None)
ALL = [
    margin, margin_quantiles, inverse_margin, normalized_margin, normalized_margin_quantiles, input_margin,
    negative_entropy,
]  # fmt: skip


class Table(nn.Module):
    """The input is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


def table(logits, labels, loss=F.cross_entropy) -> Snapshot:
    return Snapshot(Table(), loss, [(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels))])


def values(result) -> dict[str, float | None]:
    found = result if isinstance(result, dict) else {"value": result}
    return {name: estimate.value for name, estimate in found.items()}


def close(a: dict[str, float | None], b: dict[str, float | None]) -> bool:
    defined = {k: v for k, v in b.items() if v is not None}
    return a.keys() == b.keys() and {k: v for k, v in a.items() if v is not None} == pytest.approx(defined, rel=1e-9)


def naive_margins(z: torch.Tensor, y: torch.Tensor) -> list[float]:
    return [float(row[k] - max(row[j] for j in range(len(row)) if j != k)) for row, k in zip(z, y, strict=True)]


@pytest.mark.oracle("margin", "inverse_margin")
def test_by_hand():
    # margins 2, −3, 1, 0.5
    snapshot = table([[3.0, 1, 0], [5, 2, 1], [0, 1, 2], [1, 1.5, 0]], [0, 1, 2, 1])
    assert margin(snapshot, percentile=0).value == -3
    assert margin(snapshot, percentile=100).value == 2
    assert margin(snapshot, percentile=50).value == 0.75
    # three tenths of the way from −3 to 0.5
    assert margin(snapshot).value == pytest.approx(-3 + 0.3 * 3.5, rel=1e-12)
    assert margin_percentile(snapshot) == margin(snapshot).value
    assert inverse_margin(snapshot, percentile=50).value == pytest.approx(16 / 9, rel=1e-12)


def test_a_margin_that_is_not_positive_is_told_and_not_squared():
    lost = inverse_margin(table([[3.0, 1], [5, 2]], [1, 1]))
    assert lost.value is None
    assert "-2.9" in lost.note
    even = inverse_margin(table([[1.0, 1]], [0]))
    assert even.value is None
    assert "the margin is 0" in even.note


@pytest.mark.oracle("margin", "margin_quantiles")
@pytest.mark.parametrize("n", [1, 2, 5, 24])
@pytest.mark.parametrize("name", NETS)
def test_percentiles_are_numpys(name, n):
    net, x, y = build(name, n=n)
    net.eval()
    expected = naive_margins(net(x).detach(), y)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert margin(snapshot).value == pytest.approx(np.percentile(expected, 10), rel=1e-9)
    for q, found in zip((10, 25, 50, 75, 90), margin_quantiles(snapshot).items(), strict=True):
        assert found[0] == f"margin_q{q}"
        assert found[1].value == pytest.approx(np.percentile(expected, q), rel=1e-9)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_one_logit(shape):
    torch.manual_seed(0)
    z, y = torch.randn(shape, dtype=torch.float64), torch.randint(2, shape).double()
    snapshot = Snapshot(Table(), F.binary_cross_entropy_with_logits, [(z[:4], y[:4]), (z[4:], y[4:])])
    expected = [float(a if b else -a) for a, b in zip(z.flatten(), y.flatten(), strict=True)]
    assert margin(snapshot).value == pytest.approx(np.percentile(expected, 10), rel=1e-12)
    # two logits (0, z) are the same classifier
    two = Snapshot(Table(), F.cross_entropy, [(F.pad(z.reshape(-1, 1), (1, 0)), y.reshape(-1).long())])
    assert margin(two).value == pytest.approx(margin(snapshot).value, rel=1e-12)
    assert negative_entropy(two).value == pytest.approx(negative_entropy(snapshot).value, rel=1e-12)
    # the gradient of ± z is ± 1; for logits (0, z) too, in the two inputs √2
    assert input_margin(snapshot).value == pytest.approx(margin(snapshot).value, rel=1e-12)
    assert input_margin(two).value == pytest.approx(margin(snapshot).value / math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("function", ALL)
def test_regression_has_no_margin(function):
    # for squares the boundary is not at 0, though the targets are 0 and 1 and the outputs might be probabilities
    p, y = torch.full((6, 1), 0.3, dtype=torch.float64), torch.tensor([[0.0], [1], [1], [0], [1], [0]]).double()
    assert set(values(function(Snapshot(Table(), F.mse_loss, [(p, y)]))).values()) == {None}
    real = Snapshot(Table(), F.mse_loss, [(p, 3 * y)])
    found = function(real)
    for estimate in found.values() if isinstance(found, dict) else [found]:
        assert estimate.value is None
        assert "undefined" in estimate.note


def test_per_token_positions_are_examples():
    torch.manual_seed(0)
    z, y = torch.randn(4, 3, 5, dtype=torch.float64), torch.randint(3, (4, 5))
    tokens = Snapshot(Table(), F.cross_entropy, [(z, y)])
    flat = Snapshot(Table(), F.cross_entropy, [(z.movedim(1, 2).reshape(-1, 3), y.reshape(-1))])
    for function in (margin, negative_entropy, input_margin):
        assert function(tokens).value == pytest.approx(function(flat).value, rel=1e-12)


# -- normalized


def linear_chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))).double()


@pytest.mark.oracle("normalized_margin")
def test_normalized_by_hand():
    # W₁ = diag(3, 4), W₂ = diag(2, 1): ‖·‖₂ 4 and 2, ‖·‖_F 5 and √5, rows 3 + 4 and 2 + 1
    net = linear_chain(2, 2, 2)
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([3.0, 4])))
        net[1].weight.copy_(torch.diag(torch.tensor([2.0, 1])))
    x = torch.tensor([[1.0, 0], [2, 2], [0, 1]], dtype=torch.float64)
    # outputs (6, 0), (12, 8), (0, 4): margins 6, 4, 4
    found = normalized_margin(Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 1]))]), percentile=0)
    assert found["margin_over_spectral"].value == pytest.approx(4 / 8, rel=1e-12)
    assert found["margin_over_frobenius"].value == pytest.approx(4 / (5 * math.sqrt(5)), rel=1e-12)
    complexity = 8 * ((7 / 4) ** (2 / 3) + (3 / 2) ** (2 / 3)) ** 1.5
    size = math.sqrt(1 + 8 + 1) / 3
    assert found["normalized_margin"].value == pytest.approx(4 / (complexity * size), rel=1e-12)


@pytest.mark.oracle("normalized_margin_quantiles")
def test_normalized_quantiles_by_hand():
    # W₁ = diag(3, 4), W₂ = diag(2, 1): ‖·‖₂ 4 and 2, rows 3 + 4 and 2 + 1; margins 6, 4, −4
    net = linear_chain(2, 2, 2)
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([3.0, 4])))
        net[1].weight.copy_(torch.diag(torch.tensor([2.0, 1])))
    x = torch.tensor([[1.0, 0], [2, 2], [0, 1]], dtype=torch.float64)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 0]))])
    found = values(normalized_margin_quantiles(snapshot, percentiles=[0, 25, 50, 100]))
    unit = 8 * ((7 / 4) ** (2 / 3) + (3 / 2) ** (2 / 3)) ** 1.5 * math.sqrt(1 + 8 + 1) / 3
    expected = {"q0": -4 / unit, "q25": 0.0, "q50": 4 / unit, "q100": 6 / unit}
    assert found == pytest.approx({f"normalized_margin_{q}": value for q, value in expected.items()}, rel=1e-12)


@pytest.mark.oracle("normalized_margin_quantiles")
@pytest.mark.parametrize("name", NETS)
def test_normalized_quantiles_are_percentiles_over_the_size_of_the_network(name):
    net, x, y = build(name)
    net.eval()
    found = values(normalized_margin_quantiles(Snapshot(net, F.cross_entropy, [(x, y)]), percentiles=[2.5, 50, 97.5]))
    assert list(found) == ["normalized_margin_q2.5", "normalized_margin_q50", "normalized_margin_q97.5"]
    matrices = [p.detach().reshape(len(p), -1).numpy() for p in net.parameters() if p.ndim >= 2]
    if isinstance(net, Tied):
        matrices.append(net.first.weight.detach().numpy())  # used twice
    spectral = [np.linalg.svd(w)[1].max() for w in matrices]
    rows = [sum(np.sqrt((row**2).sum()) for row in w) for w in matrices]
    complexity = np.prod(spectral) * sum((r / s) ** (2 / 3) for r, s in zip(rows, spectral, strict=True)) ** 1.5
    margins = np.array(naive_margins(net(x).detach(), y)) / (complexity * float(x.square().sum()) ** 0.5 / len(x))
    assert list(found.values()) == pytest.approx(np.percentile(margins, [2.5, 50, 97.5]), rel=1e-9)


@pytest.mark.parametrize("percentiles", [[], "10", 10, [101], [-1], [math.nan], ["low"], [50, 50]])
def test_percentiles_of_normalized_margins(percentiles):
    with pytest.raises(ValueError, match="percentiles"):
        normalized_margin_quantiles(table([[3.0, 1]], [0]), percentiles=percentiles)


@pytest.mark.oracle("normalized_margin")
@pytest.mark.parametrize("name", NETS)
def test_normalized_against_a_naive_oracle(name):
    net, x, y = build(name)
    net.eval()
    gamma = np.percentile(naive_margins(net(x).detach(), y), 10)
    matrices = [p.detach().reshape(len(p), -1).numpy() for p in net.parameters() if p.ndim >= 2]
    if isinstance(net, Tied):
        matrices.append(net.first.weight.detach().numpy())  # used twice
    assert len(matrices) >= 2
    found = values(normalized_margin(Snapshot(net, F.cross_entropy, [(x, y)])))
    spectral = [np.linalg.svd(w)[1].max() for w in matrices]
    rows = [sum(np.sqrt((row**2).sum()) for row in w) for w in matrices]
    complexity = np.prod(spectral) * sum((r / s) ** (2 / 3) for r, s in zip(rows, spectral, strict=True)) ** 1.5
    assert found["margin_over_spectral"] == pytest.approx(gamma / np.prod(spectral), rel=1e-9)
    assert found["margin_over_frobenius"] == pytest.approx(
        gamma / np.prod([np.sqrt((w**2).sum()) for w in matrices]), rel=1e-9
    )
    data = float(x.square().sum()) ** 0.5 / len(x)
    assert found["normalized_margin"] == pytest.approx(gamma / complexity / data, rel=1e-9)


@QUICK
@given(st.integers(0, 2), st.floats(0.1, 10), st.integers(0, 1000))
def test_normalized_does_not_change_when_a_layer_or_the_data_are_scaled(layer, factor, seed):
    net = linear_chain(4, 5, 6, 3, seed=seed)
    x, y = torch.randn(10, 4, dtype=torch.float64), torch.randint(3, (10,))
    before = values(normalized_margin(Snapshot(net, F.cross_entropy, [(x, y)])))
    quantiles = values(normalized_margin_quantiles(Snapshot(net, F.cross_entropy, [(x, y)])))
    plain = margin(Snapshot(net, F.cross_entropy, [(x, y)])).value
    scaled = values(normalized_margin(Snapshot(net, F.cross_entropy, [(factor * x, y)])))
    assert scaled["normalized_margin"] == pytest.approx(before["normalized_margin"], rel=1e-9)
    assert scaled["margin_over_spectral"] == pytest.approx(factor * before["margin_over_spectral"], rel=1e-9)
    with torch.no_grad():
        net[layer].weight *= factor
    assert values(normalized_margin(Snapshot(net, F.cross_entropy, [(x, y)]))) == pytest.approx(before, rel=1e-9)
    assert margin(Snapshot(net, F.cross_entropy, [(x, y)])).value == pytest.approx(factor * plain, rel=1e-9)
    both = Snapshot(net, F.cross_entropy, [(factor * x, y)])
    assert values(normalized_margin_quantiles(both)) == pytest.approx(quantiles, rel=1e-9)


def test_a_product_beyond_floating_point():
    net = linear_chain(*[3] * 101)
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(1e4 * torch.eye(3))
    x = 1e-300 * torch.eye(3, dtype=torch.float64)
    found = normalized_margin(Snapshot(net, F.cross_entropy, [(x, torch.arange(3))]), percentile=0)
    # outputs of 1e100 under a product of 1e400
    assert found["margin_over_spectral"].value == pytest.approx(1e-300, rel=1e-9, abs=0)


def test_embeddings_are_given_one_hot_vectors():
    torch.manual_seed(0)
    words, y = torch.randint(7, (6, 4)), torch.randint(3, (6,))
    net = nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(20, 3)).double()
    found = values(normalized_margin(Snapshot(net, F.cross_entropy, [(words, y)])))
    size = math.sqrt(6 * 4) / 6
    spectral = [np.linalg.svd(w.detach().numpy())[1].max() for w in (net[0].weight, net[2].weight)]
    rows = [float(w.detach().norm(dim=1).sum()) for w in (net[0].weight, net[2].weight)]
    complexity = sum((r / s) ** (2 / 3) for r, s in zip(rows, spectral, strict=True)) ** 1.5
    assert found["normalized_margin"] == pytest.approx(found["margin_over_spectral"] / complexity / size, rel=1e-9)
    blind = input_margin(Snapshot(net, F.cross_entropy, [(words, y)]))
    assert blind.value is None
    assert "no real numbers" in blind.note


def test_weights_that_cannot_normalize():
    x, y = torch.eye(3, dtype=torch.float64), torch.arange(3)
    for function in (normalized_margin, normalized_margin_quantiles):
        for estimate in function(table(x.tolist(), y.tolist())).values():
            assert estimate.note == "undefined: the network has no weight matrices"
    net = linear_chain(3, 3)
    with torch.no_grad():
        net[0].weight.zero_()
    for function in (normalized_margin, normalized_margin_quantiles):
        for estimate in function(Snapshot(net, F.cross_entropy, [(x, y)])).values():
            assert estimate.note == "undefined: a weight matrix is zero"
    found = normalized_margin(Snapshot(linear_chain(3, 3), F.cross_entropy, [(0 * x, y)]))
    assert found["normalized_margin"].note == "undefined: the data are 0"
    assert found["margin_over_spectral"].value == 0
    for estimate in normalized_margin_quantiles(Snapshot(linear_chain(3, 3), F.cross_entropy, [(0 * x, y)])).values():
        assert estimate.note == "undefined: the data are 0"


# -- at the input


@pytest.mark.oracle("input_margin")
def test_distance_of_a_linear_classifier_is_that_of_the_planes():
    torch.manual_seed(0)
    net = nn.Linear(4, 2).double()
    x, y = torch.randn(11, 4, dtype=torch.float64), torch.randint(2, (11,))
    w = (net.weight[1] - net.weight[0]).detach().numpy()
    b = float((net.bias[1] - net.bias[0]).detach())
    expected = [(1 if k else -1) * (w @ row + b) / np.sqrt(w @ w) for row, k in zip(x.numpy(), y.numpy(), strict=True)]
    assert input_margin(Snapshot(net, F.cross_entropy, [(x, y)])).value == pytest.approx(
        np.percentile(expected, 10), rel=1e-9
    )


@pytest.mark.oracle("input_margin")
@pytest.mark.parametrize("name", NETS)
def test_distance_against_finite_differences(name):
    net, x, y = build(name, n=6)
    net.eval()

    def margins(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.tensor(naive_margins(net(x), y), dtype=torch.float64)

    squares, step = torch.zeros(6, dtype=torch.float64), 1e-5
    for index in np.ndindex(*x.shape[1:]):
        moved = torch.zeros_like(x)
        moved[(slice(None), *index)] = step
        squares += ((margins(x + moved) - margins(x - moved)) / (2 * step)).square()
    expected = margins(x) / squares.sqrt()
    found = input_margin(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert found.value == pytest.approx(np.percentile(expected.numpy(), 10), rel=1e-6)


@QUICK
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_distance_does_not_change_with_the_scale_of_the_logits(factor, seed):
    net, x, y = build("mlp", seed=seed)
    before = values(input_margin(Snapshot(net, F.cross_entropy, [(x, y)])))
    with torch.no_grad():
        net[4].weight *= factor
        net[4].bias *= factor
    assert close(values(input_margin(Snapshot(net, F.cross_entropy, [(x, y)]))), before)


def test_an_input_that_does_not_matter():
    net, x, y = build("mlp")
    with torch.no_grad():
        net[0].weight.zero_()
    found = input_margin(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert found.value is None
    assert "do not depend on the input" in found.note


def test_several_inputs_and_a_forward_of_ones_own():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2).double()

        def forward(self, a, b):
            return self.head(a + 2 * b)

    torch.manual_seed(0)
    net, a, b, y = Sum(), *torch.randn(2, 5, 2, dtype=torch.float64), torch.randint(2, (5,))
    batch = {"a": a, "b": b, "y": y, "ids": torch.arange(5)}
    forward = lambda net, batch: (net(batch["a"], batch["b"]), batch["y"])  # noqa: E731
    both = input_margin(Snapshot(net, F.cross_entropy, [batch], forward=forward)).value
    alone = input_margin(Snapshot(net.head, F.cross_entropy, [(a + 2 * b, y)])).value
    assert both == pytest.approx(alone / math.sqrt(1 + 4), rel=1e-9)  # ‖(g, 2g)‖ = √5 ‖g‖


# -- entropy


@pytest.mark.oracle("negative_entropy")
def test_negative_entropy_by_hand():
    ln3 = math.log(3)
    snapshot = table([[0.0, ln3], [0, 0], [-2000, 2000]], [1, 0, 1])
    # p = (¼, ¾), (½, ½), (0, 1)
    expected = (0.25 * math.log(0.25) + 0.75 * math.log(0.75) + math.log(0.5) + 0) / 3
    assert negative_entropy(snapshot).value == pytest.approx(expected, rel=1e-12)
    uniform = negative_entropy(table([[2.0] * 7] * 3, [0, 1, 2])).value
    assert uniform == pytest.approx(-math.log(7), rel=1e-12)


# -- what all keep


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("name", ["conv", "gru", "attention"])
def test_batch_splits_and_order_agree(function, name):
    net, x, y = build(name)
    with torch.no_grad():  # every margin positive, so that inverse_margin is a number
        y = net.eval()(x).argmax(1)
    whole = values(function(Snapshot(net, F.cross_entropy, [(x, y)])))
    assert None not in whole.values()
    parts = list(zip(x.flip(0).split(7), y.flip(0).split(7), strict=True))
    assert values(function(Snapshot(net, F.cross_entropy, parts))) == pytest.approx(whole, rel=1e-9)


@QUICK
@given(st.permutations(range(6)), st.integers(0, 1000))
def test_permuted_units_and_rescaled_layers(order, seed):
    net, x, y = build("mlp", seed=seed)
    # a dead example may undefine the third
    functions = (margin, negative_entropy, input_margin, normalized_margin, normalized_margin_quantiles)
    before = [values(f(Snapshot(net, F.cross_entropy, [(x, y)]))) for f in functions]
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[list(order)])
        net[0].bias.copy_(net[0].bias[list(order)])
        net[2].weight.copy_(net[2].weight[:, list(order)])
    for f, value in zip(functions, before, strict=True):
        assert close(values(f(Snapshot(net, F.cross_entropy, [(x, y)]))), value)
    with torch.no_grad():  # one unit: the function stays, the norms do not
        net[0].weight[2] *= 5
        net[0].bias[2] *= 5
        net[2].weight[:, 2] /= 5
    for f, value in zip(functions[:3], before, strict=False):
        assert close(values(f(Snapshot(net, F.cross_entropy, [(x, y)]))), value)
    after = values(normalized_margin(Snapshot(net, F.cross_entropy, [(x, y)])))
    assert abs(after["margin_over_frobenius"] / before[3]["margin_over_frobenius"] - 1) > 1e-3


def test_an_ensemble_has_its_own_margin():
    first, x, y = build("mlp", seed=1)
    second = build("mlp", seed=2)[0]
    ensemble = Snapshot(Ensemble([first, second]), F.cross_entropy, [(x, y)])
    p = (first(x).softmax(1) + second(x).softmax(1)).detach() / 2
    assert margin(ensemble).value == pytest.approx(np.percentile(naive_margins(p.log(), y), 10), rel=1e-9)
    mean = normalized_margin(ensemble)["margin_over_spectral"]
    each = [normalized_margin(Snapshot(net, F.cross_entropy, [(x, y)])) for net in (first, second)]
    assert mean.value == pytest.approx(sum(e["margin_over_spectral"].value for e in each) / 2, rel=1e-12)
    assert mean.note == "mean of 2 members"


@pytest.mark.parametrize("function", [margin, inverse_margin, normalized_margin, input_margin])
@pytest.mark.parametrize("percentile", [-1, 101, math.nan, "low", True])
def test_percentile(function, percentile):
    with pytest.raises(ValueError, match="percentile is"):
        function(table([[3.0, 1]], [0]), percentile=percentile)


def test_a_list_of_inputs_has_no_gradient_by_one_tensor():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, clouds: list[torch.Tensor]) -> torch.Tensor:
            return self.layer(torch.stack([cloud.mean(0) for cloud in clouds]))

    torch.manual_seed(0)
    clouds = [torch.randn(2 + i, 4) for i in range(6)]
    found = input_margin(Snapshot(Mean(), F.cross_entropy, [(clouds, torch.randint(3, (6,)))]))
    assert found.value is None
    assert found.note.startswith("undefined: the input is a list with an entry for each example")
