"""Relative flatness against the dense Hessian, closed forms and its invariance."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import Snapshot, hessian_eigenvalues, relative_flatness
from tests.helpers.networks import NETS, build, dense_hessian


def dense(net, x, y, name):
    """Σ ⟨w_s, w_s'⟩ tr H_ss' summed index by index from the dense Hessian."""
    first = 0
    for key, p in net.named_parameters():
        if key == name:
            break
        first += p.numel() if p.requires_grad else 0
    w = p.detach().reshape(len(p), -1)
    rows, columns = w.shape
    block = dense_hessian(net, x, y)[first : first + w.numel(), first : first + w.numel()]
    total = 0.0
    for s in range(rows):
        for t in range(rows):
            inner = float((w[s] * w[t]).sum())
            trace = sum(float(block[s * columns + j, t * columns + j]) for j in range(columns))
            total += inner * trace
    return total


@pytest.mark.oracle("relative_flatness")
@pytest.mark.parametrize("name", NETS)
def test_exact_on_the_dense_hessian(name):
    net, x, y = build(name)
    found = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]))
    last = [key for key, p in net.named_parameters() if p.ndim == 2 and p.requires_grad][-1]
    assert list(found) == ["relative_flatness", f"relative_flatness.{last}"]
    assert found["relative_flatness"].value == pytest.approx(dense(net, x, y, last), rel=1e-9)
    assert found["relative_flatness"].stderr == 0


@pytest.mark.oracle("relative_flatness")
@pytest.mark.parametrize(("name", "layer", "weight"), [("mlp", "0", "0.weight"), ("conv", "3.weight", "3.weight")])
def test_any_layer(name, layer, weight):
    net, x, y = build(name)
    found = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]), layer=layer)
    assert found[f"relative_flatness.{weight}"].value == pytest.approx(dense(net, x, y, weight), rel=1e-9)


@pytest.mark.oracle("relative_flatness")
def test_least_squares_by_hand():
    # L = mean ½‖Wx − y‖²: tr H_ss' = δ_ss' mean ‖x‖², so κ = ‖W‖²_F mean ‖x‖²
    net = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]))
    x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    loss = lambda out, target: 0.5 * (out - target).square().sum(1).mean()  # noqa: E731
    found = relative_flatness(Snapshot(net, loss, [(x, torch.zeros(2, 2, dtype=torch.float64))]))
    assert found["relative_flatness"].value == pytest.approx(15 * 7, rel=1e-12)


def test_zero_weights():
    net, x, y = build("mlp")
    nn.init.zeros_(net[4].weight)
    assert relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]))["relative_flatness"].value == 0


def test_coverage():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    exact = dense(net, x, y, "2.weight")
    found = [relative_flatness(snapshot, layer="2", probes=15, seed=s)["relative_flatness"] for s in range(200)]
    covered = sum(abs(e.value - exact) <= 2 * e.stderr for e in found)
    assert 0.90 <= covered / 200 <= 0.99
    mean = sum(e.value for e in found) / 200
    assert abs(mean - exact) < 3 * math.sqrt(sum(e.stderr**2 for e in found)) / 200


@given(factor=st.floats(0.1, 10), layer=st.sampled_from(["0", "2", "4"]))
@settings(max_examples=20, deadline=None)
def test_layers_can_be_rescaled(factor, layer):
    net, x, y = build("mlp")
    before = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]), layer=layer)["relative_flatness"].value
    with torch.no_grad():
        net[0].weight *= factor
        net[0].bias *= factor
        net[2].weight /= factor**2
        net[2].bias /= factor
        net[4].weight *= factor
    after = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]), layer=layer)["relative_flatness"].value
    assert after == pytest.approx(before, rel=1e-7)


def test_the_largest_eigenvalue_can_not():
    net, x, y = build("mlp")
    before = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]).select("4"))["lambda_1"].value
    with torch.no_grad():
        net[2].weight *= 4
        net[2].bias *= 4
        net[4].weight /= 4
    after = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]).select("4"))["lambda_1"].value
    assert after > 2 * before


def test_units_can_be_permuted_and_batches_split():
    net, x, y = build("mlp")
    before = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]))["relative_flatness"].value
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    assert relative_flatness(parts)["relative_flatness"].value == pytest.approx(before, rel=1e-9)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        net[2].weight.copy_(net[2].weight[order])
        net[2].bias.copy_(net[2].bias[order])
        net[4].weight.copy_(net[4].weight[:, order])
    after = relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]))["relative_flatness"].value
    assert after == pytest.approx(before, rel=1e-9)


def test_undefined():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.w * x

    snapshot = Snapshot(Scale(), F.cross_entropy, [(torch.randn(4, 3), torch.zeros(4).long())])
    assert relative_flatness(snapshot)["relative_flatness"].value is None


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"layer": "4.wieght"}, "layer is '4.wieght'; did you mean '4.weight'"),
        ({"layer": "1"}, "layer is '1'"),
        ({"probes": 1}, "probes is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings(bad, match):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=match):
        relative_flatness(Snapshot(net, F.cross_entropy, [(x, y)]), **bad)
