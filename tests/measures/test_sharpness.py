"""Sharpness against quadratic losses, and its invariances."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, adaptive_sharpness, average_sharpness, hessian_trace, sam_sharpness
from tests.measures.nets import build, quadratic


def spectrum(*eigenvalues: float) -> torch.Tensor:
    d = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    q = torch.linalg.qr(torch.randn(len(d), len(d), generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    return q @ d @ q.T


def test_sam_at_a_minimum_is_half_rho_squared_lambda():
    found = sam_sharpness(Snapshot(*quadratic(spectrum(5, 2, 1, 0.5))), rho=0.3, steps=50, tolerance=1e-8)
    assert found.value == pytest.approx(0.5 * 0.3**2 * 5, rel=1e-7)
    assert found.converged
    assert found.residual <= 1e-8


def test_sam_with_a_slope_is_the_maximum_over_the_sphere():
    h, w = spectrum(3, 2, 1), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = sam_sharpness(Snapshot(*quadratic(h, w)), rho=0.7, steps=100, tolerance=1e-9).value
    # brute force: Lagrange multiplier μ > λ₁ with ‖(μ − H)⁻¹ g‖ = ρ
    g = h @ w
    low, high = 3.0, 1e3
    for _ in range(200):
        mu = (low + high) / 2
        delta = torch.linalg.solve(mu * torch.eye(3, dtype=torch.float64) - h, g)
        low, high = (mu, high) if delta.norm() > 0.7 else (low, mu)
    assert found == pytest.approx(float(g @ delta + 0.5 * delta @ h @ delta), rel=1e-6)


def test_sam_at_a_saddle_and_at_a_maximum():
    saddle = sam_sharpness(Snapshot(*quadratic(spectrum(2, -30, 1))), rho=0.1, steps=100, tolerance=1e-9)
    assert saddle.value == pytest.approx(0.5 * 0.01 * 2, rel=1e-3)
    top = sam_sharpness(Snapshot(*quadratic(spectrum(-1, -2))), rho=0.1)
    assert top.value == 0  # staying is allowed: the ball holds its centre


def test_sam_beats_random_search_and_grows_with_rho():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    values = [sam_sharpness(snapshot, rho=rho).value for rho in (0.01, 0.1, 0.5, 1.0)]
    assert values == sorted(values)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        delta = torch.randn(snapshot.size, generator=generator, dtype=torch.float64)
        assert snapshot.loss_at(snapshot.vector + delta / delta.norm()) - snapshot.mean_loss < values[-1]


def test_sam_reports_a_bound_that_was_hit():
    net, x, y = build("mlp")
    found = sam_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), rho=0.5, steps=1, tolerance=1e-12)
    assert found.converged is False
    assert found.residual > 1e-12


def test_average_is_the_trace_of_a_quadratic():
    snapshot = Snapshot(*quadratic(spectrum(*range(1, 21))))
    found = average_sharpness(snapshot, rho=0.4, pairs=400)
    exact = 0.5 * 0.4**2 * sum(range(1, 21)) / 20
    assert abs(found.value - exact) < 3 * found.stderr
    assert found.stderr < 0.03 * exact


def test_average_coverage():
    exact = 0.5 * 0.4**2 * sum(range(1, 21)) / 20
    problem = quadratic(spectrum(*range(1, 21)), torch.ones(20, dtype=torch.float64))
    found = [average_sharpness(Snapshot(*problem), rho=0.4, pairs=15, seed=seed) for seed in range(200)]
    covered = sum(abs(e.value - exact) <= 2 * e.stderr for e in found)
    assert 0.90 <= covered / 200 <= 0.99


def test_average_lies_below_the_worst_and_follows_the_trace():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    average = average_sharpness(snapshot, rho=0.01, pairs=200)
    assert average.value < sam_sharpness(snapshot, rho=0.01).value
    expected = 0.5 * 0.01**2 * hessian_trace(snapshot, deflation=snapshot.size).value / snapshot.size
    assert average.value == pytest.approx(expected, abs=3 * average.stderr + 1e-3 * abs(expected))


def test_adaptive_of_a_quadratic():
    # in u = δ/|w| the Hessian is |w| H |w|; at slope zero its largest eigenvalue decides
    h = spectrum(4, 1, 2)
    w = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)
    model, _, batches = quadratic(h, w)
    snapshot = Snapshot(model, lambda out, _: 0.5 * (((out - w) @ h) * (out - w)).sum(1).mean(), batches)
    found = adaptive_sharpness(snapshot, rho=0.2, steps=200, tolerance=1e-9, normalize_logits=False)
    top = torch.linalg.eigvalsh(w.abs()[:, None] * h * w.abs()).max()
    assert found.value == pytest.approx(0.5 * 0.04 * float(top), rel=1e-6)


def rescale_layers(net, factor):
    with torch.no_grad():
        net[0].weight *= factor
        net[0].bias *= factor
        net[2].weight /= factor


def rescale_unit(net, factor):
    with torch.no_grad():
        net[0].weight[2] *= factor
        net[0].bias[2] *= factor
        net[2].weight[:, 2] /= factor


def rescale_last(net, factor):
    with torch.no_grad():
        net[4].weight *= factor
        net[4].bias *= factor


@pytest.mark.parametrize("rescale", [rescale_layers, rescale_unit, rescale_last])
@pytest.mark.parametrize(("factor", "tolerance"), [(4.0, 0), (0.125, 0), (3.7, 1e-8)])
def test_adaptive_normalized_survives_rescaling(rescale, factor, tolerance):
    # powers of two are exact in floating point, so the value may not change by a bit
    net, x, y = build("mlp")
    before = adaptive_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]))
    plain = sam_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value
    assert before.value > 0.01
    rescale(net, factor)
    after = adaptive_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert after.value == pytest.approx(before.value, rel=tolerance, abs=0)
    assert abs(sam_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value / plain - 1) > 0.01


def test_without_normalization_the_last_layer_matters():
    net, x, y = build("mlp")
    before = adaptive_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), normalize_logits=False).value
    rescale_layers(net, 4.0)
    assert adaptive_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), normalize_logits=False).value == before
    rescale_last(net, 4.0)
    after = adaptive_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), normalize_logits=False).value
    assert abs(after / before - 1) > 0.1


def test_batch_splits_agree():
    net, x, y = build("conv")
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    for function in (sam_sharpness, average_sharpness, adaptive_sharpness):
        assert function(parts).value == pytest.approx(function(whole).value, rel=1e-9)


def test_undefined():
    x, y = torch.randn(8, 4), torch.randn(8, 1)
    regression = Snapshot(nn.Linear(4, 1), F.mse_loss, [(x, y)])
    assert adaptive_sharpness(regression).value is None
    assert "not logits" in adaptive_sharpness(regression).note
    assert adaptive_sharpness(regression, normalize_logits=False).value > 0


def test_a_loss_that_overflows_in_the_ball():
    model, _, batches = quadratic(torch.eye(2))
    steep = Snapshot(model, lambda out, _: torch.exp(1e4 * out.square().sum(1)).mean(), batches)
    found = sam_sharpness(steep, rho=1.0)
    assert found.value is None
    assert "inf" in found.note


@pytest.mark.parametrize("function", [sam_sharpness, average_sharpness, adaptive_sharpness])
@pytest.mark.parametrize("rho", [0, -1.0, math.nan, math.inf, "big"])
def test_rho(function, rho):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match="rho is"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), rho=rho)
