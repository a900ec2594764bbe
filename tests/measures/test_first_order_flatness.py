"""First-order flatness against the maximum on quadratic losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import nn

from genbench.measures import Snapshot, first_order_flatness, hessian_eigenvalues, sam_sharpness
from tests.helpers.networks import NETS, build, quadratic


def matrix(*eigenvalues: float) -> torch.Tensor:
    torch.manual_seed(len(eigenvalues))
    q, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def largest_norm(hessian: torch.Tensor, w: torch.Tensor, rho: float) -> float:
    """max ‖H(w + δ)‖ over ‖δ‖ ≤ ρ: on the sphere, (μ − H²)δ = H²w with μ above the eigenvalues of H²."""
    values, vectors = torch.linalg.eigh(hessian)
    c, top = vectors.T @ w, float(values.square().max())

    def delta(mu: float) -> torch.Tensor:
        return values.square() * c / (mu - values.square())

    mu = brentq(lambda mu: float(delta(mu).norm()) - rho, top * (1 + 1e-12), top + 1e8, xtol=1e-14)
    return float((values * (c + delta(mu))).norm())


@pytest.mark.oracle("first_order_flatness")
@pytest.mark.parametrize("eigenvalues", [(4.0, 1.0, 0.5, 0.0), (2.0, 0.3, -0.2, -1.0)])
@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_at_a_stationary_point_it_is_rho_squared_times_the_largest_curvature(eigenvalues, rho):
    found = first_order_flatness(Snapshot(*quadratic(matrix(*eigenvalues))), rho=rho)
    assert found.value == pytest.approx(rho**2 * max(map(abs, eigenvalues)), rel=1e-3)
    assert found.converged


def test_twice_the_sharpness_at_a_minimum():
    snapshot = Snapshot(*quadratic(matrix(3.0, 1.0, 0.1)))
    flat, sharp = first_order_flatness(snapshot, rho=0.3), sam_sharpness(snapshot, rho=0.3)
    assert flat.value == pytest.approx(2 * sharp.value, rel=1e-3)


@pytest.mark.oracle("first_order_flatness")
@pytest.mark.parametrize("rho", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_slope_it_is_the_maximum_over_the_sphere(rho, seed):
    hessian = matrix(5.0, 2.0, 0.5, 0.1, -1.0)
    w = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = first_order_flatness(Snapshot(*quadratic(hessian, w)), rho=rho)
    exact = rho * largest_norm(hessian, w, rho)
    assert exact * (1 - 2e-3) <= found.value <= exact * (1 + 1e-9)
    assert found.converged


@pytest.mark.oracle("first_order_flatness")
def test_a_linear_loss_has_the_same_slope_everywhere():
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    net = nn.Linear(2, 1, bias=False).double()
    snapshot = Snapshot(net, lambda out, _: out.mean(), [(x, torch.zeros(1))])
    assert first_order_flatness(snapshot, rho=0.2).value == pytest.approx(0.2 * 5, rel=1e-12)


def test_a_loss_without_slope_anywhere():
    x = torch.ones(4, 2, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    nn.init.constant_(net[0].bias, -100.0)  # all units are dead
    nn.init.zeros_(net[2].bias)
    snapshot = Snapshot(net, lambda out, _: (0 * out).mean(), [(x, torch.zeros(4))])
    found = first_order_flatness(snapshot)
    assert found.value == 0
    assert found.residual is None


@pytest.mark.parametrize("name", NETS)
def test_no_point_of_the_ball_that_is_tried_has_a_larger_gradient(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:10], y[:10]), (x[10:], y[10:])])
    rho = 0.1
    found = first_order_flatness(snapshot, rho=rho, starts=4, steps=15)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        delta = torch.randn(snapshot.size, dtype=torch.float64, generator=generator)
        _, slope = snapshot.gradient_at(snapshot.vector + rho * delta / delta.norm())
        assert rho * float(slope.norm()) <= found.value
    # to first order in ρ it is ρ‖∇L‖, and never less
    assert found.value >= rho * float(snapshot.gradient_at(snapshot.vector)[1].norm())
    tiny = first_order_flatness(snapshot, rho=1e-6, starts=1, steps=2).value
    assert tiny == pytest.approx(1e-6 * float(snapshot.gradient_at(snapshot.vector)[1].norm()), rel=1e-3)


def test_it_bounds_the_largest_eigenvalue_at_a_minimum():
    net, x, y = build("mlp", n=60)
    x = torch.randn(60, 4, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def penalized(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(out, target) + 0.05 * sum(p.square().sum() for p in net.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = penalized(net(x), y)
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    snapshot = Snapshot(net, penalized, [(x, y)])
    top = hessian_eigenvalues(snapshot)["lambda_1"].value
    rho = 1e-4
    assert first_order_flatness(snapshot, rho=rho).value >= rho**2 * top * (1 - 1e-2)


def test_splits_of_the_batches_agree():
    net, x, y = build("conv")
    found = [
        first_order_flatness(Snapshot(net, F.cross_entropy, batches), starts=2, steps=5).value
        for batches in ([(x, y)], [(x[:7], y[:7]), (x[7:], y[7:])])
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-7)


def test_one_start_has_not_converged_and_says_so():
    found = first_order_flatness(Snapshot(*quadratic(matrix(2.0, 1.0))), starts=1)
    assert found.converged is False
    assert "one start" in found.note


def test_a_gradient_that_overflows_in_the_ball():
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 700.0)
    snapshot = Snapshot(net, lambda out, _: out.exp().mean(), [(torch.ones(2, 1).double(), torch.zeros(2))])
    found = first_order_flatness(snapshot, rho=50.0)
    assert found.value is None
    assert found.note == "undefined: the norm of the gradient is inf within rho = 50"


def test_the_network_is_as_it_was():
    net, x, y = build("conv")
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    first_order_flatness(Snapshot(net, F.cross_entropy, [(x, y)]), starts=2, steps=2)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rho": 0}, "rho is 0; accepted: a number > 0"),
        ({"starts": 0}, "starts is 0; accepted: an integer of at least 1"),
        ({"steps": 0}, "steps is 0; accepted: an integer of at least 1"),
        ({"tolerance": 0}, "tolerance is 0; accepted: a number > 0"),
        ({"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
    ],
)
def test_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        first_order_flatness(Snapshot(*quadratic(matrix(1.0, 2.0))), **setting)


def test_it_grows_with_the_radius():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = [first_order_flatness(snapshot, rho=rho).value / rho for rho in (0.01, 0.1, 0.5)]
    assert found == sorted(found)
    assert math.isfinite(found[-1])
