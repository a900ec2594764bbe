"""Eigenvalues and trace against closed forms and dense float64 oracles."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace
from genbench.measures.lanczos import Lanczos
from tests.measures.nets import NETS, build, dense_hessian, quadratic


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


@pytest.mark.parametrize("name", NETS)
def test_dense_oracle(name):
    net, x, y = build(name)
    h = dense_hessian(net, x, y)
    exact = torch.linalg.eigvalsh(h).flip(0)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])
    assert snapshot.size == len(h)
    v = torch.randn(len(h), dtype=torch.float64)
    torch.testing.assert_close(snapshot.hessian_product(v), h @ v, rtol=1e-9, atol=1e-12)
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


def test_largest_is_algebraic():
    snapshot = Snapshot(*quadratic(torch.diag(torch.tensor([-9.0, 1.0, 0.5], dtype=torch.float64))))
    assert values(hessian_eigenvalues(snapshot, k=3)) == pytest.approx([1, 0.5, -9])


def test_a_loss_without_curvature():
    batches = [(torch.ones(3, 4), torch.zeros(3))]
    snapshot = Snapshot(nn.Linear(4, 2), lambda out, _: out.mean(), batches)
    assert values(hessian_eigenvalues(snapshot, k=2)) == [0, 0]
    assert hessian_trace(snapshot, deflation=2).value == 0


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


def test_same_whatever_was_measured_before_and_one_lanczos_run_for_both():
    net, x, y = build("mlp")
    alone = hessian_trace(Snapshot(net, F.cross_entropy, [(x, y)]), deflation=10)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    hessian_eigenvalues(snapshot, k=5, tolerance=1e-8)
    calls = []
    product = snapshot.hessian_product
    snapshot.hessian_product = lambda v: calls.append(1) or product(v)
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
        ({"k": 10_000}, "k is 10000"),
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
    torch.testing.assert_close(snapshot.hessian_product(v), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [F.cross_entropy, lambda f, y: f.square().mean(0).square().sum()])
def test_large_batches(loss):
    # sliced where the loss is a mean over examples, whole where it is not (the second one)
    net, x, y = build("mlp", n=2500)
    snapshot = Snapshot(net, loss, [(x, y)])
    v = torch.randn(snapshot.size, dtype=torch.float64)
    h = dense_hessian(net, x, y, loss)
    torch.testing.assert_close(snapshot.hessian_product(v), h @ v, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(snapshot.hessian_product(v), h @ v, rtol=1e-9, atol=1e-12)
