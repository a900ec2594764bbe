"""Eigenvalues and trace against closed forms and dense float64 oracles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import nn

from genbench.measures import (
    Snapshot,
    gauss_newton_eigenvalues,
    gauss_newton_frobenius_norm,
    gauss_newton_trace,
    hessian_eigenvalues,
    hessian_frobenius_norm,
    hessian_trace,
    layer_curvature,
)
from genbench.measures.curvature import hessian_eigenvectors
from genbench.measures.lanczos import Lanczos
from genbench.measures.operators import CurvatureOperator
from genbench.measures.spectral_density import spectral_density
from tests.helpers.networks import NETS, build, dense_gauss_newton, dense_hessian, quadratic


def symmetric(n: int, seed: int = 0) -> torch.Tensor:
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (a + a.T) / 2


def values(estimates):
    return [e.value for e in estimates.values()]


def test_quadratic_loss_has_its_own_hessian():
    h = symmetric(30)
    snapshot = Snapshot(*quadratic(h))
    exact = torch.linalg.eigvalsh(h).flip(0)
    top = hessian_eigenvalues(snapshot, k=5, tolerance=1e-8)
    assert list(top) == [f"lambda_{i}" for i in range(1, 6)]
    assert values(top) == pytest.approx(exact[:5].tolist(), rel=1e-10)
    assert hessian_trace(snapshot, deflation=30).value == pytest.approx(float(h.trace()), abs=1e-10)


def test_linear_regression():
    # L = mean over n of (xᵀw + b − y)²; ∇²L = 2/n X̃ᵀX̃ with a column of ones for the bias
    torch.manual_seed(0)
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 1, dtype=torch.float64)
    snapshot = Snapshot(nn.Linear(4, 1).double(), F.mse_loss, [(x, y)])
    design = torch.cat([x, torch.ones(50, 1)], 1)
    exact = 2 / 50 * design.T @ design
    assert values(hessian_eigenvalues(snapshot, k=5)) == pytest.approx(torch.linalg.eigvalsh(exact).flip(0).tolist())
    estimate = hessian_trace(snapshot, deflation=5)
    assert estimate.value == pytest.approx(float(exact.trace()))
    assert estimate.stderr == 0


@pytest.mark.oracle("hessian_trace")
def test_softmax_regression():
    # ∇²L = 1/n Σ (diag p − ppᵀ) ⊗ x̃x̃ᵀ
    torch.manual_seed(0)
    net = nn.Linear(3, 4, bias=False).double()
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randint(4, (40,))
    p = net(x).softmax(1).detach()
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    exact = torch.einsum("nij,nk,nl->ikjl", inner, x, x).reshape(12, 12) / 40
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert hessian_trace(snapshot, deflation=12).value == pytest.approx(float(exact.trace()))
    top = hessian_eigenvalues(snapshot, k=3, tolerance=1e-9)
    assert values(top) == pytest.approx(torch.linalg.eigvalsh(exact).flip(0)[:3].tolist())


@pytest.mark.oracle("hessian_eigenvalues", "hessian_trace")
@pytest.mark.parametrize("name", NETS)
def test_dense_oracle(name):
    net, x, y = build(name)
    h = dense_hessian(net, x, y)
    exact = torch.linalg.eigvalsh(h).flip(0)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])
    assert snapshot.size == len(h)
    v = torch.randn(len(h), dtype=torch.float64)
    torch.testing.assert_close(snapshot.hessian.matvec(v), h @ v, rtol=1e-9, atol=1e-12)
    top = hessian_eigenvalues(snapshot, k=3, tolerance=1e-6)
    assert all(e.converged for e in top.values())
    assert values(top) == pytest.approx(exact[:3].tolist(), rel=1e-9)
    trace = hessian_trace(snapshot, deflation=len(h))
    assert trace.value == pytest.approx(float(h.trace()), rel=1e-9)


@pytest.mark.parametrize("name", ["mlp", "conv", "gru"])
def test_float32_is_right_to_1e_4(name):
    net, x, y = build(name)
    exact = torch.linalg.eigvalsh(dense_hessian(net, x, y)).flip(0)
    snapshot = Snapshot(net.float(), F.cross_entropy, [(x.float(), y)])
    assert values(hessian_eigenvalues(snapshot, k=3)) == pytest.approx(exact[:3].tolist(), rel=1e-4)


@pytest.mark.parametrize("split", [[24], [1] * 24, [5, 19], [7, 7, 7, 3]])
def test_batch_splits_agree(split):
    net, x, y = build("conv")
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(split), y.split(split), strict=True)))
    assert parts.examples == 24
    assert parts.mean_loss == pytest.approx(whole.mean_loss, rel=1e-9)
    assert values(hessian_eigenvalues(parts, k=3)) == pytest.approx(values(hessian_eigenvalues(whole, k=3)), rel=1e-9)
    assert hessian_trace(parts).value == pytest.approx(hessian_trace(whole).value, rel=1e-9)
    assert hessian_trace(parts).stderr == pytest.approx(hessian_trace(whole).stderr, rel=1e-6)


def test_permuting_units_changes_nothing():
    net, x, y = build("mlp")
    before = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]), tolerance=1e-9)["lambda_1"].value
    order = torch.randperm(6)
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    after = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]), tolerance=1e-9)["lambda_1"].value
    assert after == pytest.approx(before, rel=1e-10)


def test_relu_rescaling_changes_the_eigenvalue():
    net, x, y = build("mlp")
    before = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]))["lambda_1"].value
    with torch.no_grad():
        net[0].weight *= 8
        net[0].bias *= 8
        net[2].weight /= 8
    after = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]))["lambda_1"].value
    assert after > 5 * before


def test_unconverged_says_so_and_its_residual_is_true():
    d = torch.linspace(0, 1, 400, dtype=torch.float64)
    snapshot = Snapshot(*quadratic(torch.diag(d)))
    rough = hessian_eigenvalues(snapshot, max_steps=5)["lambda_1"]
    assert rough.converged is False
    assert rough.residual > 1e-3
    # a diagonal matrix: some eigenvalue lies within the residual
    assert abs(d - rough.value).min() <= rough.residual * rough.value
    assert abs(1 - rough.value) > 1e-3
    fine = hessian_eigenvalues(snapshot, max_steps=400, tolerance=1e-6)["lambda_1"]
    assert fine.converged is True
    assert fine.value == pytest.approx(1, rel=1e-6)


def test_residual_is_that_of_the_ritz_vector():
    h = symmetric(60)
    lanczos = Lanczos(lambda v: h @ v, 60, seed=0, device=torch.device("cpu"))
    lanczos.extend(12)
    q = lanczos.basis(12)
    torch.testing.assert_close(q @ q.T, torch.eye(12, dtype=torch.float64), atol=1e-13, rtol=0)
    theta, s = torch.linalg.eigh(q @ h @ q.T)
    exact = (h @ (q.T @ s) - (q.T @ s) * theta).norm(dim=0).flip(0)
    values, residuals = lanczos.ritz(12)
    assert values.tolist() == pytest.approx(theta.flip(0).tolist())
    assert residuals.tolist() == pytest.approx(exact.tolist(), rel=1e-8)


def test_rank_one_plus_diagonal_and_a_multiple_eigenvalue():
    # 2 on a 40-dimensional space but for one direction: the Krylov space ends after two steps and must be left
    u = torch.ones(40, dtype=torch.float64) / math.sqrt(40)
    snapshot = Snapshot(*quadratic(2 * torch.eye(40, dtype=torch.float64) + 5 * torch.outer(u, u)))
    top = hessian_eigenvalues(snapshot, k=3)
    assert values(top) == pytest.approx([7, 2, 2])
    assert all(e.converged for e in top.values())


def test_multiplicities_of_a_head_that_starts_at_zero():
    """A linear classifier of 5 classes at zero weights: H = (I/5 − 11ᵀ/25) ⊗ XᵀX/N, each eigenvalue four times."""
    torch.manual_seed(0)
    net = nn.Linear(8, 5, bias=False).double()
    nn.init.zeros_(net.weight)
    x, y = torch.randn(200, 8).double() * torch.linspace(0.5, 2, 8), torch.randint(5, (200,))
    exact = torch.linalg.eigvalsh(x.T @ x / 200).flip(0) / 5
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    for function in (hessian_eigenvalues, gauss_newton_eigenvalues):
        found = function(snapshot, k=6)
        assert values(found) == pytest.approx([float(exact[0])] * 4 + [float(exact[1])] * 2, rel=1e-5)
        assert all(e.converged for e in found.values())
    estimates, vectors = hessian_eigenvectors(snapshot, k=4, tolerance=1e-6)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    for e, v in zip(estimates.values(), vectors, strict=True):
        assert float((snapshot.hessian.matvec(v) - e.value * v).norm()) <= 1e-5 * e.value


@pytest.mark.parametrize(("name", "seed"), [("frozen", 4), ("tied", 3), ("conv", 5)])
def test_what_one_start_misses_a_second_one_finds(name, seed):
    """Trained networks of which one run of Lanczos missed one of the five largest, by 11 to 13 % of the value."""
    net, x, y = build(name, seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    exact = torch.linalg.eigvalsh(dense_hessian(net, x, y)).flip(0)[:5]
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = hessian_eigenvalues(snapshot, k=5, tolerance=3e-2)
    assert values(found) == pytest.approx(exact.tolist(), rel=3e-3)
    assert all(e.converged for e in found.values())


def test_a_repeated_eigenvalue_at_the_lower_end():
    d = torch.cat([torch.tensor([-2.0, -2.0, -2.0, -1.0]), torch.linspace(0, 1, 40)]).double()
    q = torch.linalg.qr(symmetric(44))[0]
    found = hessian_eigenvalues(Snapshot(*quadratic(q @ torch.diag(d) @ q.T)), k=1, bottom=4, tolerance=1e-6)
    assert values(found) == pytest.approx([1, -2, -2, -2, -1], rel=1e-6)
    assert all(e.converged for e in found.values())


def test_beyond_the_first_nothing_converges_without_a_second_start():
    # twelve products tell 3 and 2 from the rest, but not which is the largest of five hundred that lie close together
    d = torch.cat([torch.tensor([3.0, 2.0]), torch.linspace(0.999, 1, 500)]).double()
    snapshot = Snapshot(*quadratic(torch.diag(d)))
    found = hessian_eigenvalues(snapshot, k=2, tolerance=1e-6, max_steps=12)
    assert values(found) == pytest.approx([3, 2], rel=1e-6)
    assert [e.converged for e in found.values()] == [True, False]
    assert found["lambda_1"].note is None
    assert found["lambda_2"].note == "eigenvalues may be missing before it: no second start has converged"


def crowded():
    """A spectrum that no few nodes resolve: most of it close around 0, on both sides; and its eigenvalues."""
    exact = torch.cat([torch.linspace(-2e-2, -1e-4, 70), torch.linspace(1e-4, 3e-2, 90), torch.linspace(0.1, 2, 40)])
    q = torch.linalg.qr(symmetric(200))[0]
    return Snapshot(*quadratic(q @ torch.diag(exact.double()) @ q.T)), exact.double().numpy()


@pytest.mark.parametrize(("runs", "steps", "most", "hidden"), [(10, 60, 0.2, False), (40, 15, 0.6, True)])
def test_a_share_of_eigenvalues_lies_within_the_error_that_counts_the_quadrature(runs, steps, most, hidden):
    snapshot, exact = crowded()
    density = spectral_density(snapshot, runs=runs, steps=steps)
    negative = density.mean(lambda t: (t < 0).astype(float))
    values = [float(w @ (t < 0)) for t, w in zip(density.nodes, density.weights, strict=True)]
    spread = float(np.std(values, ddof=1)) / math.sqrt(runs)
    assert (abs(negative.value - 0.35) > 4 * spread) == hidden  # what the spread alone does not say
    assert abs(negative.value - 0.35) <= negative.stderr <= most
    assert negative.interval[0] <= 0.35 <= negative.interval[1]
    assert negative.note.startswith("the quadrature itself may be wrong by ")
    # what it integrates without error has none, and a smooth function none that counts
    for function in (lambda t: t**2, lambda t: np.exp(-((t / 2) ** 2))):
        found = density.mean(function)
        assert abs(found.value - float(np.mean(function(exact)))) <= 4 * found.stderr
        assert found.note is None


def test_a_quadrature_of_all_dimensions_is_exact():
    exact = torch.linspace(-1, 1, 30, dtype=torch.float64)
    snapshot = Snapshot(*quadratic(torch.diag(exact)))
    found = spectral_density(snapshot, runs=3, steps=30).mean(lambda t: (t < 0.1).astype(float))
    assert found.note is None
    assert abs(found.value - float((exact < 0.1).double().mean())) <= 4 * found.stderr + 1e-12


def test_largest_is_algebraic():
    snapshot = Snapshot(*quadratic(torch.diag(torch.tensor([-9.0, 1.0, 0.5], dtype=torch.float64))))
    assert values(hessian_eigenvalues(snapshot, k=3)) == pytest.approx([1, 0.5, -9])


def test_a_loss_without_curvature():
    batches = [(torch.ones(3, 4), torch.zeros(3))]
    snapshot = Snapshot(nn.Linear(4, 2), lambda out, _: out.mean(), batches)
    assert values(hessian_eigenvalues(snapshot, k=2)) == [0, 0]
    assert hessian_trace(snapshot, deflation=2).value == 0


@pytest.mark.oracle("hessian_trace")
@pytest.mark.parametrize("deflation", [0, 5, 20])
def test_trace_coverage(deflation):
    h = symmetric(60, seed=3)
    h = h @ h
    exact = float(h.trace())
    batches = quadratic(h)
    covered, estimates = 0, []
    for seed in range(200):
        estimate = hessian_trace(Snapshot(*batches), deflation=deflation, probes=20, seed=seed)
        covered += abs(estimate.value - exact) <= 2 * estimate.stderr
        estimates.append(estimate)
    assert 0.90 <= covered / 200 <= 0.99
    # the standard error is the spread of the estimates
    spread = torch.tensor([e.value for e in estimates]).std()
    assert torch.tensor([e.stderr for e in estimates]).mean() == pytest.approx(float(spread), rel=0.15)


def test_deflation_pays():
    h = torch.diag(0.8 ** torch.arange(60, dtype=torch.float64))
    q = torch.linalg.qr(symmetric(60))[0]
    snapshot = Snapshot(*quadratic(q @ h @ q.T))
    assert hessian_trace(snapshot, deflation=20).stderr < 0.1 * hessian_trace(snapshot, deflation=0).stderr


def test_same_whatever_was_measured_before_and_one_lanczos_run_for_both(monkeypatch):
    net, x, y = build("mlp")
    alone = hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)]), deflation=10)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    hessian_eigenvalues(snapshot, k=5, tolerance=1e-8)
    calls = []
    product = CurvatureOperator.matvec
    monkeypatch.setattr(CurvatureOperator, "matvec", lambda self, v: calls.append(1) or product(self, v))
    after = hessian_trace(snapshot, deflation=10, probes=7)
    assert len(calls) == 7
    again = hessian_trace(snapshot, deflation=10)
    assert (again.value, again.stderr) == (alone.value, alone.stderr)
    assert after.value == pytest.approx(alone.value, abs=4 * after.stderr)


def test_seed():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    a, b, c = (hessian_trace(snapshot, deflation=5, seed=seed) for seed in (0, 0, 1))
    assert a.value == b.value != c.value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 10_000, "max_steps": 10_000}, "k is 10000"),
        ({"k": 5, "max_steps": 4}, "max_steps is 4"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings(settings, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]), **settings)


def test_trace_settings():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    with pytest.raises(ValueError, match="probes is 1"):
        hessian_trace(snapshot, probes=1)
    with pytest.raises(ValueError, match="deflation is -1"):
        hessian_trace(snapshot, deflation=-1)


@pytest.mark.parametrize("name", ["attention", "gru", "conv"])
def test_products_against_finite_differences(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    v = torch.randn(snapshot.size, dtype=torch.float64)
    ahead, behind = (snapshot.gradient_at(snapshot.vector + step * v)[1] for step in (1e-6, -1e-6))
    torch.testing.assert_close(snapshot.hessian.matvec(v), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [F.cross_entropy, lambda f, y: f.square().mean(0).square().sum()])
def test_large_batches(loss):
    # sliced where the loss is a mean over examples, whole where it is not (the second one)
    net, x, y = build("mlp", n=2500)
    snapshot = Snapshot(net, loss, [(x, y)])
    v = torch.randn(snapshot.size, dtype=torch.float64)
    h = dense_hessian(net, x, y, loss)
    torch.testing.assert_close(snapshot.hessian.matvec(v), h @ v, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(snapshot.hessian.matvec(v), h @ v, rtol=1e-9, atol=1e-12)


# -- the smallest eigenvalues, eigenvectors


def test_both_ends_of_a_spectrum():
    d = torch.tensor([-5.0, -1.0, *[0.01 * i for i in range(40)], 3.0, 8.0], dtype=torch.float64)
    found = hessian_eigenvalues(Snapshot(*quadratic(torch.diag(d))), k=2, bottom=2, tolerance=1e-8)
    assert list(found) == ["lambda_1", "lambda_2", "lambda_min_1", "lambda_min_2"]
    assert values(found) == pytest.approx([8, 3, -5, -1], rel=1e-10)
    assert all(e.converged for e in found.values())


@pytest.mark.oracle("hessian_eigenvalues")
@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_all_eigenvalues(name):
    net, x, y = build(name)
    exact = torch.linalg.eigvalsh(dense_hessian(net, x, y))
    n = len(exact)
    found = hessian_eigenvalues(Snapshot(net, F.cross_entropy, [(x, y)]), k=n, bottom=n, max_steps=n)
    assert values(found)[:n] == pytest.approx(exact.flip(0).tolist(), abs=1e-10)
    assert values(found)[n:] == pytest.approx(exact.tolist(), abs=1e-10)
    assert all(e.converged for e in found.values())


def test_eigenvectors():
    net, x, y = build("mlp")
    h = dense_hessian(net, x, y)
    estimates, vectors = hessian_eigenvectors(Snapshot(net, F.cross_entropy, [(x, y)]), k=3, tolerance=1e-8)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    exact = torch.linalg.eigh(h)[1].flip(1)[:, :3]
    assert (vectors @ exact).diagonal().abs().tolist() == pytest.approx([1, 1, 1], abs=1e-10)
    torch.testing.assert_close(h @ vectors[0], values(estimates)[0] * vectors[0], atol=1e-7, rtol=0)


# -- the Gauss–Newton matrix


@pytest.mark.oracle("gauss_newton_eigenvalues", "gauss_newton_trace", "gauss_newton_frobenius_norm")
@pytest.mark.parametrize("name", NETS)
def test_gauss_newton_oracle(name):
    net, x, y = build(name)
    g = dense_gauss_newton(net, x, y)
    exact = torch.linalg.eigvalsh(g).flip(0)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])
    top = gauss_newton_eigenvalues(snapshot, k=3, tolerance=1e-6)
    assert list(top) == ["ggn_lambda_1", "ggn_lambda_2", "ggn_lambda_3"]
    assert values(top) == pytest.approx(exact[:3].tolist(), rel=1e-9)
    everything = len(g)
    assert gauss_newton_trace(snapshot, deflation=everything).value == pytest.approx(float(g.trace()), rel=1e-9)
    assert gauss_newton_frobenius_norm(snapshot, deflation=everything).value == pytest.approx(float(g.norm()), rel=1e-9)


def test_the_two_matrices_have_one_trace_where_units_are_piecewise_linear():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    n = snapshot.size
    assert hessian_trace(snapshot, deflation=n).value == pytest.approx(gauss_newton_trace(snapshot, deflation=n).value)
    top, ggn = hessian_eigenvalues(snapshot)["lambda_1"], gauss_newton_eigenvalues(snapshot)["ggn_lambda_1"]
    assert abs(top.value / ggn.value - 1) > 0.01  # the matrices themselves differ


def test_linear_models_have_one_curvature():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,))
    snapshot = Snapshot(nn.Linear(4, 3).double(), F.cross_entropy, [(x, y)])
    v = torch.randn(15, dtype=torch.float64)
    torch.testing.assert_close(snapshot.hessian.matvec(v), snapshot.gauss_newton.matvec(v))
    one, other = spectral_density(snapshot), spectral_density(snapshot, matrix="gauss_newton")
    assert one.mean(lambda t: t).value == pytest.approx(other.mean(lambda t: t).value)


# -- Frobenius norm


@pytest.mark.oracle("hessian_frobenius_norm")
@pytest.mark.parametrize("name", NETS)
def test_frobenius_oracle(name):
    net, x, y = build(name)
    h = dense_hessian(net, x, y)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    exact = hessian_frobenius_norm(snapshot, deflation=len(h))
    assert (exact.value, exact.stderr) == (pytest.approx(float(h.norm()), rel=1e-9), 0)
    rough = hessian_frobenius_norm(snapshot, deflation=5, probes=50)
    assert abs(rough.value - float(h.norm())) < 5 * rough.stderr


@pytest.mark.parametrize("deflation", [0, 10])
def test_frobenius_coverage(deflation):
    h = symmetric(60, seed=3)
    batches = quadratic(h)
    covered = 0
    for seed in range(200):
        estimate = hessian_frobenius_norm(Snapshot(*batches), deflation=deflation, probes=20, seed=seed)
        covered += abs(estimate.value - float(h.norm())) <= 2 * estimate.stderr
    assert 0.90 <= covered / 200 <= 0.99


def test_trace_and_frobenius_norm_share_their_products(monkeypatch):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    calls = []
    product = CurvatureOperator.matvec
    monkeypatch.setattr(CurvatureOperator, "matvec", lambda self, v: calls.append(1) or product(self, v))
    hessian_trace(snapshot, deflation=10, probes=7)
    assert len(calls) == 17
    hessian_frobenius_norm(snapshot, deflation=10, probes=7)
    assert len(calls) == 17
    spectral_density(snapshot, runs=7, steps=5)
    assert len(calls) == 17 + 7 * 4
    spectral_density(snapshot, runs=7, steps=5)
    assert len(calls) == 17 + 7 * 4


# -- spectral density


def test_density_of_known_moments():
    # Gauss quadrature of m nodes is exact for polynomials of degree 2m − 1 along its start vector
    h = symmetric(50, seed=1)
    density = spectral_density(Snapshot(*quadratic(h)), runs=20, steps=5)
    assert density.size == 50
    assert [len(t) for t in density.nodes] == [5] * 20
    for power in range(1, 6):
        exact = float(torch.linalg.matrix_power(h, power).trace()) / 50
        found = density.mean(lambda t, power=power: t**power)
        assert abs(found.value - exact) <= 4 * found.stderr
        assert found.stderr > 0
    assert density.mean(np.ones_like).value == pytest.approx(1)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_density_coverage(power):
    h = symmetric(40, seed=2)
    exact = float(torch.linalg.matrix_power(h, power).trace()) / 40
    batches = quadratic(h)
    covered = 0
    for seed in range(200):
        found = spectral_density(Snapshot(*batches), runs=20, steps=4, seed=seed).mean(lambda t: t**power)
        covered += abs(found.value - exact) <= 2 * found.stderr
    assert 0.90 <= covered / 200 <= 0.99


def test_density_is_the_dense_one():
    net, x, y = build("mlp", n=200)
    exact = torch.linalg.eigvalsh(dense_hessian(net, x, y)).numpy()
    density = spectral_density(Snapshot(net, F.cross_entropy, [(x, y)]), runs=40, steps=40)
    grid, values, error = density.curve(points=400, width=0.05)
    smooth = np.exp(-(((grid[:, None] - exact) / 0.05) ** 2) / 2).mean(1) / (0.05 * math.sqrt(2 * math.pi))
    assert np.trapezoid(values, grid) == pytest.approx(1, abs=1e-3)
    assert (np.abs(values - smooth) <= 4 * error + 1e-3).mean() > 0.98
    assert error.max() < 0.2 * smooth.max()


@pytest.mark.oracle("hessian_eigenvalues")
def test_density_of_diagonal_plus_rank_one():
    # the eigenvalues of D + uuᵀ solve Σ uᵢ²/(λ − dᵢ) = 1, one above each dᵢ: from the secular equation, not from eigh
    d = torch.linspace(0, 1, 30, dtype=torch.float64)
    u = torch.full((30,), 0.4, dtype=torch.float64)

    def secular(t: float) -> float:
        return float((u**2 / (t - d)).sum()) - 1

    ends = [*d.tolist()[1:], 1 + float(u @ u)]
    roots = [
        brentq(secular, a + 1e-12, b - (1e-12 if b <= 1 else -1e-9)) for a, b in zip(d.tolist(), ends, strict=True)
    ]
    snapshot = Snapshot(*quadratic(torch.diag(d) + torch.outer(u, u)))
    found = hessian_eigenvalues(snapshot, k=4, tolerance=1e-10)
    assert values(found) == pytest.approx(roots[::-1][:4], rel=1e-9)
    density = spectral_density(snapshot, runs=3, steps=30)
    for nodes in density.nodes:
        assert nodes.tolist() == pytest.approx(roots[::-1], rel=1e-8)


def test_a_single_eigenvalue():
    density = spectral_density(Snapshot(*quadratic(2 * torch.eye(6, dtype=torch.float64))), runs=2, steps=3)
    grid, values, _ = density.curve()
    assert grid[values.argmax()] == pytest.approx(2, abs=1e-3)
    assert density.mean(lambda t: t).value == pytest.approx(2)


# -- layers


@pytest.mark.oracle("layer_curvature")
@pytest.mark.parametrize("name", NETS)
def test_layers_against_dense_blocks(name):
    net, x, y = build(name)
    h = dense_hessian(net, x, y)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    exact = layer_curvature(snapshot, deflation=len(h), tolerance=1e-8)
    rough = layer_curvature(snapshot, deflation=5, probes=200, tolerance=1e-8)
    start = 0
    for key, p in snapshot.parameters.items():
        block = h[start : start + p.numel(), start : start + p.numel()]
        start += p.numel()
        assert exact[f"trace.{key}"].value == pytest.approx(float(block.trace()), rel=1e-8, abs=1e-10)
        estimate = rough[f"trace.{key}"]
        assert abs(estimate.value - float(block.trace())) <= 4.5 * estimate.stderr + 1e-12
        if p.ndim >= 2:
            top = float(torch.linalg.eigvalsh(block)[-1])
            assert exact[f"lambda_1.{key}"].value == pytest.approx(top, rel=1e-8)
        else:
            assert f"lambda_1.{key}" not in exact
    total = sum(e.value for k, e in rough.items() if k.startswith("trace"))
    assert total == pytest.approx(hessian_trace(snapshot, deflation=5, probes=200).value)


@pytest.mark.oracle("layer_curvature")
def test_gauss_newton_of_a_layer():
    net, x, y = build("conv")
    g, start = dense_gauss_newton(net, x, y), 0
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = layer_curvature(snapshot, matrix="gauss_newton", deflation=len(g), tolerance=1e-8)
    for key, p in snapshot.parameters.items():
        block = g[start : start + p.numel(), start : start + p.numel()]
        start += p.numel()
        assert found[f"ggn_trace.{key}"].value == pytest.approx(float(block.trace()), rel=1e-8)
        if p.ndim >= 2:
            top = float(torch.linalg.eigvalsh(block)[-1])
            assert found[f"ggn_lambda_1.{key}"].value == pytest.approx(top, rel=1e-8)


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (spectral_density, {"runs": 1}, "runs is 1"),
        (spectral_density, {"steps": 0}, "steps is 0"),
        (spectral_density, {"matrix": "fisher"}, "matrix is 'fisher'; accepted: hessian, gauss_newton"),
        (layer_curvature, {"matrix": "ggn"}, "matrix is 'ggn'"),
        (hessian_eigenvalues, {"bottom": -1}, "bottom is -1"),
        (hessian_eigenvalues, {"bottom": 200, "max_steps": 100}, "bottom is 200|max_steps is 100"),
        (hessian_frobenius_norm, {"probes": 1}, "probes is 1"),
    ],
)
def test_other_settings(function, settings, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **settings)
