"""Mutual information: discrete distributions, the tanh unit, Gaussian clouds, and what a network's results promise."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch import nn

from genbench.measures import Snapshot, mutual_information_binned, mutual_information_kde
from genbench.measures.information import (
    _multiples,
    discrete_information,
    discretize,
    entropy,
    equal_edges,
    kernel_information,
)
from tests.helpers.networks import NETS, build

QUICK = settings(max_examples=20, deadline=None)
BOTH = [mutual_information_binned, mutual_information_kde]


def values(found) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in found.items()}


# -- discrete


def test_entropy_and_information_by_hand():
    assert entropy(torch.tensor([5, 5, 5])) == 0
    assert entropy(torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])) == pytest.approx(2, rel=1e-12)
    a = torch.tensor([0, 0, 1, 1])
    assert discrete_information(a, a) == pytest.approx(1, rel=1e-12)
    assert discrete_information(a, torch.tensor([0, 1, 0, 1])) == pytest.approx(0, abs=1e-12)  # independent
    # H(A) = 1, H(B) = h(¼) = 2 − ¾ log₂ 3, H(A, B) of ½, ¼, ¼ = 1½
    assert discrete_information(a, torch.tensor([7, 7, 7, -2])) == pytest.approx(1.5 - 0.75 * math.log2(3), rel=1e-12)
    # a binary symmetric channel that errs once in 8: 1 − h(1/8)
    sent = torch.tensor([0] * 8 + [1] * 8)
    received = sent.clone()
    received[[0, 8]] = 1 - received[[0, 8]]
    h = -(1 / 8 * math.log2(1 / 8) + 7 / 8 * math.log2(7 / 8))
    assert discrete_information(sent, received) == pytest.approx(1 - h, rel=1e-12)


@pytest.mark.oracle("mutual_information_binned")
@QUICK
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_information_is_the_divergence_from_independence(pairs):
    a, b = torch.tensor(pairs).T
    n, expected = len(pairs), 0.0
    for pair in set(pairs):
        p = pairs.count(pair) / n
        pa, pb = (sum(other[i] == pair[i] for other in pairs) / n for i in (0, 1))
        expected += p * math.log2(p / (pa * pb))
    assert discrete_information(a, b) == pytest.approx(expected, abs=1e-12)


def test_bins_by_hand():
    edges = equal_edges(-1, 1, 4)
    assert edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    x = torch.tensor([[-1.0], [-0.51], [-0.5], [0], [0.5], [1], [7], [-9]])
    found = discretize(x, edges).tolist()
    # [−1, −½) [−½, 0) [0, ½) [½, 1], and all beyond at the ends
    assert [found.index(number) for number in found] == [0, 0, 2, 3, 4, 4, 4, 0]
    rows = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.1, -0.9]])
    assert discretize(rows, edges).tolist() == [0, 0, 1]


def test_thirty_bins_have_thirty_bins():
    centres = torch.linspace(-1, 1, 6001, dtype=torch.float64)[:, None]
    assert len(discretize(centres, equal_edges(-1, 1, 30)).unique()) == 30


@QUICK
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 9))
def test_discretize_against_numpy(seed, bins, units):
    x = torch.randn(50, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    edges = equal_edges(-1.5, 1.5, bins)
    codes = np.digitize(x.numpy(), edges.numpy()[1:-1])
    expected = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    found = discretize(x, edges).numpy()
    assert (found[:, None] == found).tolist() == (expected[:, None] == expected).tolist()


# -- one tanh unit, X ~ N(0, 1)


def unit_information(w: float, bins: int) -> float:
    """I(X;T) of T = tanh(wX) in equal bins: the bins are intervals of X, whose probabilities Φ knows."""
    with np.errstate(divide="ignore"):
        p = np.diff(norm.cdf(np.arctanh(np.linspace(-1, 1, bins + 1)) / w))
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def test_golden_values_of_a_tanh_unit():
    peak = minimize_scalar(lambda w: -unit_information(w, 30), bounds=(0.3, 3), method="bounded")
    assert round(peak.x, 2) == 0.87
    assert round(-peak.fun, 3) == 4.900
    assert round(unit_information(10, 30), 3) == 2.044
    assert round(unit_information(100, 30), 3) == 1.151
    assert unit_information(1e6, 30) == pytest.approx(1, abs=1e-4)
    assert (
        round(-minimize_scalar(lambda w: -unit_information(w, 29), bounds=(0.3, 3), method="bounded").fun, 3) == 4.851
    )


@pytest.mark.oracle("mutual_information_binned")
@pytest.mark.parametrize("w", [0.1, 0.87, 10, 100])
def test_a_tanh_unit_measured_on_quantiles(w):
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        net[0].weight.fill_(w)
    n = 40_000
    x = torch.from_numpy(norm.ppf((np.arange(n) + 0.5) / n))[:, None]
    found = mutual_information_binned(Snapshot(net, F.cross_entropy, [(x, (x[:, 0] > 0).long())]))
    assert found["xt_binned"].value == pytest.approx(unit_information(w, 30), abs=2e-3)
    assert found["xt_binned.2"].value == found["xt_binned"].value
    # 0 is an edge of 30 bins, so the bin tells the label, which has one bit
    assert found["ty_binned"].value == pytest.approx(1, abs=1e-9)


# -- kernels


def test_kernel_by_hand():
    # two points at distance 2, σ² = ½: kernel e^−4; alone in their classes they have no entropy left
    x = torch.tensor([[1.0, 0], [-1, 0]])
    xt, ty = kernel_information(x, torch.tensor([3, 8]), 0.5)
    assert xt == pytest.approx(-math.log2((1 + math.exp(-4)) / 2), rel=1e-12)
    assert ty == pytest.approx(xt, rel=1e-12)
    assert kernel_information(x, None, 0.5) == (pytest.approx(xt, rel=1e-12), None)
    assert kernel_information(x, torch.tensor([1, 1]), 0.5)[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.oracle("mutual_information_kde")
@QUICK
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_kernel_against_a_naive_sum(seed, variance):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(23, 3, generator=g).double(), torch.randint(3, (23,), generator=g)

    def bound(rows) -> float:
        total = 0.0
        for a in rows:
            total -= math.log2(sum(math.exp(-float((a - b).square().sum()) / 2 / variance) for b in rows) / len(rows))
        return total / len(rows)

    classes = sum(float((y == k).double().mean()) * bound(x[y == k]) for k in y.unique())
    xt, ty = kernel_information(x, y, variance)
    assert xt == pytest.approx(bound(x), abs=1e-9)
    assert ty == pytest.approx(bound(x) - classes, abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_kernel_survives_an_offset(offset):
    x = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64) + offset
    assert kernel_information(x, None, 0.5)[0] == pytest.approx(-math.log2((1 + math.exp(-4)) / 2), rel=1e-9)


def test_blocks_of_kernels_agree(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 3, generator=g), torch.randint(3, (50,), generator=g)
    whole = kernel_information(x, y, 0.1)
    monkeypatch.setattr("genbench.measures.information._ENTRIES", 7 * 50)
    assert kernel_information(x, y, 0.1) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("distance", [0.5, 1, 2, 4])
def test_kernel_bounds_the_information_of_a_mixture_of_two_gaussians(distance):
    # T = ± distance/2, ε ~ N(0, σ²): the true I is h(mixture) − h(ε), by quadrature
    variance = 0.3
    sd = math.sqrt(variance)
    points = [-distance / 2, distance / 2]

    def density(t: float) -> float:
        return sum(norm.pdf(t, p, sd) for p in points) / 2

    span = distance / 2 + 12 * sd
    true = quad(lambda t: -density(t) * math.log2(density(t)), -span, span, limit=200)[0]
    true -= 0.5 * math.log2(2 * math.pi * math.e * variance)
    x = torch.tensor(points * 6, dtype=torch.float64)[:, None]
    upper, label = kernel_information(x, torch.tensor([0, 1] * 6), variance)
    lower, _ = kernel_information(x, None, 4 * variance)  # Bhattacharyya's distance is a quarter of Kullback's
    assert lower < true < upper <= 1
    assert label == pytest.approx(upper, rel=1e-12)


@pytest.mark.oracle("mutual_information_kde")
@pytest.mark.parametrize("s", [0.1, 0.5, 2.0])
def test_kernel_of_a_gaussian_cloud(s):
    # E −log E exp(−d²/2σ²) = ½ log(1 + s²/σ²) + s² / 2(s² + σ²), above the true ½ log(1 + s²/σ²)
    variance, n = 0.1, 4000
    x = torch.from_numpy(s * norm.ppf((np.arange(n) + 0.5) / n))[:, None]
    found, _ = kernel_information(x, None, variance)
    true = 0.5 * math.log2(1 + s**2 / variance)
    assert found == pytest.approx(true + s**2 / (2 * (s**2 + variance)) / math.log(2), rel=2e-3)
    assert found > true


# -- of a network


def activations(*columns, activation: type[nn.Module] = nn.Identity) -> tuple[nn.Module, torch.Tensor]:
    """A network whose hidden layer is activation(x)."""
    x = torch.stack([torch.as_tensor(c, dtype=torch.float64) for c in columns], 1)
    net = nn.Sequential(nn.Linear(x.shape[1], x.shape[1], bias=False), activation(), nn.Linear(x.shape[1], 2)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(x.shape[1]))
    return net, x


@pytest.mark.oracle("mutual_information_kde")
def test_kernel_of_a_layer_by_hand():
    # two rows twice, at distance 2, σ² = ½: kernel e^−4; one class has three of the four
    net, x = activations([1.0, 1, -1, -1])
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 0, 1]))])
    found = values(mutual_information_kde(snapshot, variance=0.5))
    e = math.exp(-4)
    xt = -math.log2((1 + e) / 2)
    ty = xt - 3 / 4 * -(2 * math.log2((2 + e) / 3) + math.log2((1 + 2 * e) / 3)) / 3
    assert found["xt_kde"] == found["xt_kde.2"] == pytest.approx(xt, rel=1e-12)
    assert found["ty_kde"] == found["ty_kde.2"] == pytest.approx(ty, rel=1e-12)


@pytest.mark.oracle("mutual_information_binned")
def test_bins_know_the_activation():
    column = torch.tensor([0.01, 0.02, 0.03, 0.04])
    y = torch.tensor([0, 0, 1, 1])
    expected = {
        nn.Identity: 2,
        nn.ReLU: 2,
        nn.Tanh: 0,
        nn.Sigmoid: 0,
    }  # bits: 10 bins on [.01, .04], on a bounded range
    for activation, bits in expected.items():
        net, x = activations(column, activation=activation)
        found = mutual_information_binned(Snapshot(net, F.cross_entropy, [(x, y)]), bins=10)
        assert found["xt_binned"].value == pytest.approx(bits, abs=1e-12)
        assert found["ty_binned"].value == pytest.approx(bits / 2, abs=1e-12)
    net, x = activations(100 * column, activation=nn.ReLU)  # the range follows the values
    assert mutual_information_binned(Snapshot(net, F.cross_entropy, [(x, y)]), bins=10)["xt_binned"].value == 2


def test_a_recurrent_layer_is_bounded():
    net, x, y = build("gru")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    state = snapshot.representations["head"]
    assert float(state.max() - state.min()) < 1.8
    expected = entropy(discretize(state, equal_edges(-1, 1, 5)))
    assert expected < entropy(discretize(state, equal_edges(float(state.min()), float(state.max()), 5)))
    assert mutual_information_binned(snapshot, bins=5)["xt_binned"].value == pytest.approx(expected, rel=1e-12)


def test_unbounded_bins_are_global_over_the_layer():
    # the second unit's values are together in one of the bins that the first unit's range makes
    net, x = activations([0.0, 10, 0, 10], [0.0, 0.1, 0.2, 0.3])
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1]))])
    assert mutual_information_binned(snapshot)["xt_binned"].value == 1
    assert mutual_information_binned(snapshot, bins=100)["xt_binned"].value == 2


def test_edges_of_ones_own():
    net, x = activations([0.95, 0.97, 0.99999999, 1 - 1e-12], activation=nn.Hardtanh)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1]))])
    assert mutual_information_binned(snapshot)["xt_binned"].value == 0
    fine = torch.linspace(-50, 50, 101).double().tanh().tolist()  # in float64 many of them are ± 1
    assert mutual_information_binned(snapshot, edges=fine)["xt_binned"].value == 2
    assert mutual_information_binned(snapshot, edges=[-1, 1])["xt_binned"].value == 0
    for wrong in ([0.0], [1.0, 0.0], [0.0, math.nan], [0.0, math.inf], ["a", "b"], 3, []):
        with pytest.raises(ValueError, match="edges is"):
            mutual_information_binned(snapshot, edges=wrong)


def test_bins_of_one_width_do_not_move():
    net, x = activations([0.0, 0.4, 0.6, 10.0], activation=nn.Identity)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1]))])
    found = mutual_information_binned(snapshot, width=0.5, name="half")
    assert found["xt_half"].value == 1.5  # [0, 0.5) holds two values
    assert found["ty_half"].value == 1
    assert {name.partition(".")[0] for name in found} == {"xt_half", "ty_half"}
    assert mutual_information_binned(snapshot, width=0.25)["xt_binned"].value == 2
    below, x = activations([-0.1, 0.1, 0.2, 0.6], activation=nn.Identity)
    snapshot = Snapshot(below, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1]))])
    assert mutual_information_binned(snapshot, width=0.5)["xt_binned"].value == 1.5
    # of a tanh whose values are within (-1, 1) the multiples of 1/15 are the 30 equal bins
    tanh, x = activations([-0.99, -0.95, 0.01, 0.06, 0.07, 0.93], activation=nn.Tanh)
    snapshot = Snapshot(tanh, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1, 0, 1]))])
    assert values(mutual_information_binned(snapshot, width=1 / 15)) == values(mutual_information_binned(snapshot))
    with pytest.raises(ValueError, match=r"width is 0.5 with edges; accepted: one of the two"):
        mutual_information_binned(snapshot, width=0.5, edges=[-1, 1])


def test_narrow_bins_take_no_memory_and_hold_what_multiples_of_the_width_say():
    x = torch.randint(-1000, 1000, (1, 400), generator=torch.manual_seed(0)).double().mul(0.1).T
    k = _multiples(x, 0.1)
    assert ((k * 0.1 <= x) & (x < (k + 1) * 0.1)).all()
    assert not torch.signbit(_multiples(torch.tensor([[-0.0]]), 0.1)).any()
    net, x = activations([0.0, 1.0, 1.0 + 2e-6, 50.0], activation=nn.Identity)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0, 0, 1, 1]))])
    assert mutual_information_binned(snapshot, width=1e-9)["xt_binned"].value == 2  # 5 · 10¹⁰ bins
    with pytest.raises(ValueError, match=r"width is 1e-30, of values up to 50; accepted: at least 5.55e-15"):
        mutual_information_binned(snapshot, width=1e-30)


@pytest.mark.parametrize("name", NETS)
def test_names_and_bounds(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    layers = [*snapshot.representations][1:]
    for function, suffix in zip(BOTH, ("binned", "kde"), strict=True):
        found = values(function(snapshot))
        assert [*found] == [f"{k}_{suffix}{e}" for k in ("xt", "ty") for e in ["", *(f".{layer}" for layer in layers)]]
        for layer in layers:
            assert 0 <= found[f"ty_{suffix}.{layer}"] <= found[f"xt_{suffix}.{layer}"] + 1e-9
            assert found[f"xt_{suffix}.{layer}"] <= math.log2(len(x)) + 1e-9
            assert found[f"ty_{suffix}.{layer}"] <= entropy(y) + 1e-9
        last = layers[-2]  # what the layer called last is given
        assert found[f"xt_{suffix}"] == found[f"xt_{suffix}.{last}"]
        assert found[f"ty_{suffix}"] == found[f"ty_{suffix}.{last}"]


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("name", ["mlp", "conv", "gru"])
def test_batch_splits_and_order_agree(function, name):
    net, x, y = build(name)
    whole = values(function(Snapshot(net, F.cross_entropy, [(x, y)])))
    parts = list(zip(x.flip(0).split(7), y.flip(0).split(7), strict=True))
    assert values(function(Snapshot(net, F.cross_entropy, parts))) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("function", BOTH)
def test_units_permuted(function):
    net, x, y = build("mlp")
    before = values(function(Snapshot(net, F.cross_entropy, [(x, y)])))
    order = [3, 1, 5, 0, 4, 2]
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    assert values(function(Snapshot(net, F.cross_entropy, [(x, y)]))) == pytest.approx(before, rel=1e-9)


def test_a_rescaled_layer_has_the_same_bins_but_other_noise():
    net, x, y = build("mlp")
    before = [values(f(Snapshot(net, F.cross_entropy, [(x, y)]))) for f in BOTH]
    with torch.no_grad():
        net[0].weight *= 4
        net[0].bias *= 4
        net[2].weight /= 4
    after = [values(f(Snapshot(net, F.cross_entropy, [(x, y)]))) for f in BOTH]
    assert after[0] == before[0]
    assert after[1]["xt_kde.2"] > before[1]["xt_kde.2"] + 0.1
    assert after[1]["xt_kde.4"] == pytest.approx(before[1]["xt_kde.4"], rel=1e-9)


def test_without_classes_only_the_input_is_informed():
    net, x, _ = build("mlp")
    snapshot = Snapshot(net, F.mse_loss, [(x, torch.randn(24, 3, dtype=torch.float64))])
    for function in BOTH:
        found = function(snapshot)
        for name, estimate in found.items():
            assert (estimate.value is None) == name.startswith("ty_")
            if estimate.value is None:
                assert "not one class an example" in estimate.note


def test_binary_labels_of_any_type():
    net, x, y = build("mlp")
    expected = values(mutual_information_kde(Snapshot(net, F.cross_entropy, [(x, y % 2)])))
    for targets in ((y % 2).double(), (y % 2).bool(), (y % 2).double()[:, None]):
        loss = lambda output, target: output.square().mean()  # noqa: E731
        assert values(mutual_information_kde(Snapshot(net, loss, [(x, targets)]))) == pytest.approx(expected, rel=1e-12)


def test_a_network_without_hidden_layers():
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    for function, suffix in zip(BOTH, ("binned", "kde"), strict=True):
        found = function(Snapshot(nn.Linear(4, 3), F.cross_entropy, [(x, y)]))
        assert [*found] == [f"{k}_{suffix}{e}" for k in ("xt", "ty") for e in ("", ".output")]
        assert found[f"xt_{suffix}"].note == "undefined: the network has no hidden layer"
        assert found[f"xt_{suffix}.output"].value > 0


def test_saturation_is_told():
    net, x = activations(torch.arange(64) / 64)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.arange(64) % 2)])
    found = mutual_information_binned(snapshot, bins=64)["xt_binned"]
    assert found.value == pytest.approx(6, rel=1e-12)
    assert "saturated" in found.note
    assert mutual_information_binned(snapshot, bins=32)["xt_binned"].note is None
    assert "log2 N = 6" in mutual_information_kde(snapshot, variance=1e-8)["xt_kde"].note
    assert mutual_information_kde(snapshot)["xt_kde"].note is None


def test_a_layer_that_is_constant_knows_nothing():
    net, x = activations([0.1] * 7, [0.7] * 7)
    snapshot = Snapshot(net, F.cross_entropy, [(x, torch.arange(7) % 2)])
    for function in BOTH:
        assert set(values(function(snapshot)).values()) == {0.0}


def test_some_examples_evenly_spaced():
    net, x, y = build("mlp")
    found = mutual_information_kde(Snapshot(net, F.cross_entropy, [(x, y)]), examples=8)
    part = mutual_information_kde(Snapshot(net, F.cross_entropy, [(x[::3], y[::3])]))
    assert values(found) == pytest.approx(values(part), rel=1e-9)
    assert found["xt_kde"].note == "8 of 24 examples"
    assert part["xt_kde"].note is None


@pytest.mark.parametrize(
    ("function", "setting"),
    [
        (mutual_information_binned, {"bins": 0}),
        (mutual_information_binned, {"bins": 2.5}),
        (mutual_information_binned, {"width": 0}),
        (mutual_information_kde, {"variance": 0}),
        (mutual_information_kde, {"variance": math.nan}),
        (mutual_information_kde, {"examples": 1}),
    ],
)
def test_settings(function, setting):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **setting)
