"""Sharpness against quadratic losses, and its invariances."""

import itertools
import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from genbench.measures import (
    Snapshot,
    adaptive_average_sharpness,
    adaptive_sharpness,
    average_sharpness,
    hessian_trace,
    keskar_sharpness,
    low_pass_filter_sharpness,
    m_sharpness,
    sam_sharpness,
)
from genbench.measures.operators import CurvatureOperator
from genbench.measures.perturbations import generator_of
from genbench.measures.sharpness_ascent import Ball, Climb, directions, highest
from tests.helpers.networks import NETS, build, quadratic


def spectrum(*eigenvalues: float) -> torch.Tensor:
    d = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    q = torch.linalg.qr(torch.randn(len(d), len(d), generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    return q @ d @ q.T


@pytest.mark.oracle("sam_sharpness")
def test_sam_at_a_minimum_is_half_rho_squared_lambda():
    found = sam_sharpness(Snapshot(*quadratic(spectrum(5, 2, 1, 0.5))), rho=0.3, steps=50, tolerance=1e-8)
    assert found.value == pytest.approx(0.5 * 0.3**2 * 5, rel=1e-7)
    assert found.converged
    assert found.residual <= 1e-8


@pytest.mark.oracle("sam_sharpness")
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


class Logistic(nn.Module):
    """One logit an example, bᵢ + aᵢ·w, at w = 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x):
        return x[:, 0] + x[:, 1:] @ self.w


def logistic(*examples):
    """Margins and slopes (b, a₁, a₂) of examples whose loss is log(1 + exp −(b + a·w))."""
    x = torch.tensor(examples, dtype=torch.float64)
    return Snapshot(Logistic(), F.binary_cross_entropy_with_logits, [(x, torch.ones(len(x), dtype=torch.float64))])


def highest_on_the_circle(snapshot, rho):
    """max L(δ) − L(0) over ‖δ‖ = ρ, by trying every tenth of a degree; L is convex: none inside is higher."""
    x = snapshot.batches[0][0]
    angle = torch.arange(3600, dtype=torch.float64) * math.pi / 1800
    delta = rho * torch.stack([angle.cos(), angle.sin()])
    rise = F.softplus(-(x[:, :1] + x[:, 1:] @ delta)).mean(0) - F.softplus(-x[:, 0]).mean()
    return float(rise.max())


def test_the_gradient_leads_to_a_local_maximum_and_other_starts_to_thehighest():
    # many examples fall a little to one side; one that is well fitted falls far to the other
    many = [(2.0, 1.0 + 0.1 * i, 0.2 * i) for i in range(6)]
    snapshot = logistic(*many, (6.0, -12.0, 3.0), (7.0, -12.0, 2.0))
    exact = highest_on_the_circle(snapshot, 1.0)
    alone = sam_sharpness(snapshot, rho=1.0, starts=1)
    assert alone.value < 0.5 * exact  # stationary all the same
    assert alone.residual <= 1e-3
    assert (alone.converged, alone.note) == (False, "one start: nothing says that it is more than a local maximum")
    found = sam_sharpness(snapshot, rho=1.0)
    assert found.value == pytest.approx(exact, rel=1e-3)
    assert found.converged
    starts, reached = found.note.split(", ")[:2]
    assert starts == "search: 8 starts"
    assert 2 <= int(reached.split()[0]) < 8
    assert f"the lowest {alone.value:.3g}" in found.note


def test_a_mirror_image_is_no_second_start():
    mirrored = highest([Climb(0, 1.0, 0.0), Climb(0, 1.0, 0.0), Climb(1, 0.5, 0.0)], 1e-3)
    assert (mirrored.value, mirrored.converged) == (1.0, False)
    assert mirrored.note == "search: 3 starts, 2 reached it, the lowest 0.5"
    assert highest([Climb(0, 1.0, 0.0), Climb(1, 0.9995, 0.0)], 1e-3).converged
    assert not highest([Climb(0, 1.0, 0.0), Climb(1, 0.998, 0.0)], 1e-3).converged
    assert not highest([Climb(0, 1.0, 0.1), Climb(1, 1.0, 0.1)], 1e-3).converged  # nowhere stationary


def test_no_start_twice_and_mirror_images_on_one_line():
    snapshot = logistic((1.0, 1.0, 0.0), (1.0, 1.0, 0.0))  # two equal examples: their gradients and the mean are one
    ball = Ball(torch.ones(2, dtype=torch.float64), 1.0, "l2")
    lines = directions(snapshot, ball, starts=8, seed=0)
    assert sum(line == 0 for line, _ in lines) == 2  # the gradient and, from the eigenvector along it, its mirror image
    for (i, u), (j, v) in itertools.combinations(lines, 2):
        cosine = float(u @ v)
        assert cosine < 1 - 1e-9
        assert (cosine < -1 + 1e-9) == (i == j)


def highest_of_many(net, x, y, rho, *, starts):
    """max L(w + δ) − L(w) of so many ascents from random directions: SAM's step again and again, all at once."""
    names = [(name, p.shape) for name, p in net.named_parameters()]
    w = torch.cat([p.detach().reshape(-1) for p in net.parameters()])

    def value(delta):
        pieces = (w + delta).split([shape.numel() for _, shape in names])
        p = {name: piece.view(shape) for (name, shape), piece in zip(names, pieces, strict=True)}
        return F.cross_entropy(functional_call(net, p, (x,)), y)

    slopes = torch.func.vmap(torch.func.grad_and_value(value))
    delta = torch.randn(starts, len(w), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = torch.zeros(starts, dtype=torch.float64)
    for _ in range(25):
        gradient, loss = slopes(rho * delta / delta.norm(dim=1, keepdim=True))
        best, delta = torch.maximum(best, loss), gradient
    return float(best.max() - value(torch.zeros_like(w)))


def test_of_fitted_networks_twelve_starts_find_what_two_hundred_ascents_find():
    alone, several, agreed = [], [], []
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        x, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(3, (40,))
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        for _ in range(600):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
        exact = highest_of_many(net, x, y, 0.1, starts=200)
        alone.append(sam_sharpness(snapshot, rho=0.1, starts=1).value / exact)
        found = sam_sharpness(snapshot, rho=0.1, starts=12)
        several.append(found.value / exact)
        agreed.append(found.converged)
    assert sum(alone) / 4 < 0.5
    assert min(several) > 0.999
    assert any(agreed)


def test_a_fitted_network_starts_along_the_curvature_that_the_trace_has_found(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(30, 4)
    y = model(x).argmax(1).detach()
    with torch.no_grad():
        model[2].weight.mul_(600)
        model[2].bias.mul_(600)
    products: list[int] = []
    own = CurvatureOperator.matvec
    monkeypatch.setattr(CurvatureOperator, "matvec", lambda self, v: products.append(1) or own(self, v))
    snapshot = Snapshot(model, F.cross_entropy, [(x, y)])
    assert 1e-4 < snapshot.mean_loss < 1e-2  # the curvature is taken in float32, the rise in float64
    alone = sam_sharpness(snapshot).value
    assert len(products) == 12
    shared = Snapshot(model, F.cross_entropy, [(x, y)])
    hessian_trace(shared)
    products.clear()
    assert sam_sharpness(shared).value == alone
    assert not products
    exact = Snapshot(deepcopy(model).double(), F.cross_entropy, [(x.double(), y)])
    assert alone == pytest.approx(sam_sharpness(exact).value, rel=1e-4)


def test_starts_without_a_loss_of_single_examples():
    # the spread of a batch: no example has a loss of its own, and the other starts remain
    net, x, y = build("mlp")
    snapshot = Snapshot(net, lambda out, y: F.cross_entropy(out, y) + (out - out.mean(0)).square().mean(), [(x, y)])
    assert sam_sharpness(snapshot, rho=0.1).note.startswith("search: 8 starts, ")


def test_sam_reports_a_bound_that_was_hit():
    net, x, y = build("mlp")
    found = sam_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), rho=0.5, steps=1, tolerance=1e-12)
    assert found.converged is False
    assert found.residual > 1e-12


@pytest.mark.oracle("average_sharpness")
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


@pytest.mark.oracle("adaptive_sharpness")
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


def centred(h, w):
    """A snapshot at the minimum w of ½(v − w)ᵀH(v − w)."""
    model, _, batches = quadratic(h, w)
    return Snapshot(model, lambda out, _: 0.5 * (((out - w) @ h) * (out - w)).sum(1).mean(), batches)


def highest_corner(h, w, sides):
    """max ½vᵀHv over the corners w ± sides: all of them are tried."""
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=len(w))), dtype=torch.float64) * sides + w
    return float((0.5 * (corners @ h) * corners).sum(1).max())


@pytest.mark.oracle("sam_sharpness", "adaptive_sharpness")
@pytest.mark.parametrize("rho", [0.01, 0.1, 3.0])
def test_linf_is_the_highest_corner_of_the_box(rho):
    h, w = spectrum(5, 3, 1, 0.5, 2), torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0], dtype=torch.float64)
    if rho > 1:  # a large box has other local maxima, unless all slopes keep their sign
        h = h.abs() * w.sign()[:, None] * w.sign()
    base = 0.5 * float(w @ h @ w)
    found = sam_sharpness(Snapshot(*quadratic(h, w)), rho=rho, norm="linf", steps=50, tolerance=1e-12)
    assert found.value == pytest.approx(highest_corner(h, w, torch.full_like(w, rho)) - base, rel=1e-12)
    assert found.converged
    adaptive = adaptive_sharpness(
        Snapshot(*quadratic(h, w)), rho=rho, norm="linf", normalize_logits=False, tolerance=1e-12
    )
    assert adaptive.value == pytest.approx(highest_corner(h, w, rho * w.abs()) - base, rel=1e-12)


def test_linf_holds_l2_of_its_radius_and_lies_in_l2_of_its_diagonal():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    inner = sam_sharpness(snapshot, rho=0.02, steps=100)
    box = sam_sharpness(snapshot, rho=0.02, norm="linf", steps=100)
    outer = sam_sharpness(snapshot, rho=0.02 * math.sqrt(snapshot.size), steps=100)
    assert inner.value < box.value < outer.value


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["l2", "linf"]), adaptive=st.booleans())
@settings(max_examples=20, deadline=None)
def test_monotone_in_rho(seed, norm, adaptive):
    net, x, y = build("mlp", seed=seed)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    function = adaptive_sharpness if adaptive else sam_sharpness
    found = [function(snapshot, rho=rho, norm=norm) for rho in (0.002, 0.005, 0.01)]
    values = [e.value for e in found]
    assume(all(e.converged for e in found))
    assert values == sorted(values)


@pytest.mark.oracle("average_sharpness")
@pytest.mark.parametrize(("norm", "variance"), [("linf", 1 / 3), ("gaussian", 1.0)])
def test_average_of_independent_noise_is_the_trace_of_a_quadratic(norm, variance):
    snapshot = Snapshot(*quadratic(spectrum(*range(1, 21))))
    found = average_sharpness(snapshot, rho=0.4, norm=norm, pairs=2000)
    exact = 0.5 * 0.4**2 * variance * sum(range(1, 21))
    assert abs(found.value - exact) < 3 * found.stderr
    assert found.stderr < 0.03 * exact


@pytest.mark.oracle("adaptive_average_sharpness")
@pytest.mark.parametrize(("norm", "variance"), [("l2", 1.0), ("linf", 1 / 3)])
def test_average_adaptive_weighs_the_trace_by_the_weights(norm, variance):
    h = spectrum(*range(1, 11))
    w = torch.linspace(-2, 3, 10, dtype=torch.float64)
    exact = 0.5 * 0.3**2 * variance * float((h.diag() * w**2).sum())
    found = adaptive_average_sharpness(centred(h, w), rho=0.3, norm=norm, pairs=1000, normalize_logits=False)
    assert abs(found.value - exact) < 3 * found.stderr
    assert found.stderr < 0.05 * exact
    assert abs(exact - 0.5 * 0.3**2 * variance * float(h.trace())) > 5 * found.stderr  # the plain one is another


@pytest.mark.oracle("low_pass_filter_sharpness")
def test_low_pass_filter_is_the_loss_plus_half_the_trace():
    eigenvalues = [1 + i / 60 for i in range(60)]
    h, w = spectrum(*eigenvalues), torch.ones(60, dtype=torch.float64)
    exact = 0.5 * float(w @ h @ w) + 0.5 * 0.1**2 * sum(eigenvalues)
    found = [low_pass_filter_sharpness(Snapshot(*quadratic(h, w)), sigma=0.1, pairs=15, seed=s) for s in range(200)]
    covered = sum(abs(e.value - exact) <= 2 * e.stderr for e in found)
    assert 0.90 <= covered / 200 <= 0.99
    mean = sum(e.value for e in found) / 200
    assert abs(mean - exact) < 3 * math.sqrt(sum(e.stderr**2 for e in found)) / 200


@pytest.mark.oracle("m_sharpness")
def test_m_sharpness_of_a_linear_loss():
    """L = mean xᵢ·w of a batch rises by at most ρ times the length of the mean of its xᵢ."""
    x = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-5.0, 12.0], [8.0, 6.0]], dtype=torch.float64)
    snapshot = Snapshot(nn.Linear(2, 1, bias=False).double(), lambda out, _: out.mean(), [(x, torch.zeros(4))])
    assert m_sharpness(snapshot, rho=0.1, m=1).value == pytest.approx(0.1 * (5 + 1 + 13 + 10) / 4, rel=1e-9)
    found = m_sharpness(snapshot, rho=0.1, m=2).value  # of the three ways to make two pairs
    pairs = [float((x[0] + x[i]).norm() + (x.sum(0) - x[0] - x[i]).norm()) / 2 for i in (1, 2, 3)]
    assert min(abs(found - 0.1 * each / 2) for each in pairs) < 1e-9


@pytest.mark.oracle("m_sharpness")
@pytest.mark.parametrize("name", NETS)
def test_m_sharpness_of_single_examples(name):
    net, x, y = build(name, n=6)
    each = [sam_sharpness(Snapshot(net, F.cross_entropy, [(x[i : i + 1], y[i : i + 1])])).value for i in range(6)]
    found = m_sharpness(Snapshot(net, F.cross_entropy, [(x[:4], y[:4]), (x[4:], y[4:])]), m=1, batches=6)
    assert found.value == pytest.approx(sum(each) / 6, rel=1e-9)
    spread = torch.tensor(each, dtype=torch.float64).std()
    assert found.stderr == pytest.approx(float(spread) / math.sqrt(6), rel=1e-7)


def test_m_sharpness_of_all_examples_is_sam_sharpness():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    whole = sam_sharpness(snapshot, rho=0.1)
    found = m_sharpness(snapshot, m=24, rho=0.1)
    assert found.value == pytest.approx(whole.value, rel=1e-9)
    assert (found.stderr, found.converged) == (None, whole.converged)
    assert m_sharpness(snapshot, m=12, rho=0.1).value > whole.value  # the mean of maxima is above the maximum of a mean
    assert m_sharpness(snapshot, m=25).value is None


@pytest.mark.oracle("m_sharpness")
def test_adaptive_m_sharpness_of_a_linear_loss():
    """L = mean xᵢ·w of a batch rises by at most ρ‖x̄ ∘ |w|‖ in the ellipsoid, and by ρ Σ |x̄ⱼwⱼ| in the box."""
    x = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-5.0, 12.0], [8.0, 6.0]], dtype=torch.float64)
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0, -0.5]]))
    snapshot = Snapshot(net, lambda out, _: out.mean(), [(x, torch.zeros(4))])
    steepness = x * net.weight.detach().abs()
    for norm, p in (("l2", 2), ("linf", 1)):
        found = m_sharpness(snapshot, rho=0.1, m=1, norm=norm, adaptive=True).value
        assert found == pytest.approx(0.1 * float(steepness.norm(p, dim=1).mean()), rel=1e-9)


def test_adaptive_m_sharpness_of_all_examples_is_adaptive_sharpness():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    whole = adaptive_sharpness(snapshot, rho=0.1, starts=8)
    found = m_sharpness(snapshot, m=24, rho=0.1, adaptive=True, normalize_logits=True)
    assert found.value == pytest.approx(whole.value, rel=1e-9)


def test_m_sharpness_of_dictionary_batches():
    net, x, y = build("mlp")
    batches = [{"x": a, "y": b, "name": "part"} for a, b in zip(x.split(7), y.split(7), strict=True)]
    named = Snapshot(net, F.cross_entropy, batches, forward=lambda model, batch: (model(batch["x"]), batch["y"]))
    expected = m_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), m=5, batches=4)
    assert m_sharpness(named, m=5, batches=4).value == pytest.approx(expected.value, rel=1e-9)


def test_m_sharpness_of_other_batches_is_another_number():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert m_sharpness(snapshot, m=5, batches=2).value == m_sharpness(snapshot, m=5, batches=2).value
    assert m_sharpness(snapshot, m=5, batches=2).value != m_sharpness(snapshot, m=5, batches=2, seed=1).value


@pytest.mark.oracle("keskar_sharpness")
def test_keskar_of_a_quadratic_is_its_highest_corner():
    h, w = spectrum(5, 3, 1, 0.5, 2), torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0], dtype=torch.float64)
    base = 0.5 * float(w @ h @ w)
    found = keskar_sharpness(Snapshot(*quadratic(h, w)), epsilon=1e-2)
    rise = highest_corner(h, w, 1e-2 * (w.abs() + 1)) - base
    assert found.value == pytest.approx(100 * rise / (1 + base), rel=1e-9)
    assert found.residual < 1e-9
    assert (found.converged, found.note) == (False, "one start: nothing says that it is more than a local maximum")
    several = keskar_sharpness(Snapshot(*quadratic(h, w)), epsilon=1e-2, starts=8)
    assert several.value == pytest.approx(found.value, rel=1e-9)
    assert several.converged


@pytest.mark.oracle("keskar_sharpness")
def test_keskar_leaves_a_stationary_point():
    h = torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    w = torch.tensor([1.0, 0.0, -4.0], dtype=torch.float64)
    found = keskar_sharpness(centred(h, w), epsilon=0.1, steps=50)
    assert found.value == pytest.approx(100 * 0.5 * 0.01 * (3 * 4 + 1 * 1 + 2 * 25), rel=1e-9)
    flat = keskar_sharpness(centred(-h, w))
    assert flat.value == 0  # no point of the box is higher


@pytest.mark.oracle("keskar_sharpness")
def test_keskar_in_a_subspace_is_the_highest_corner_of_its_box():
    h, w = spectrum(5, 3, 1, 0.5, 2), torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0], dtype=torch.float64)
    base = 0.5 * float(w @ h @ w)
    values = []
    for seed in (0, 1):
        a = torch.randn(5, 3, generator=generator_of(seed, "keskar_sharpness"), dtype=torch.float64)
        box = 1e-2 * ((torch.linalg.inv(a.T @ a) @ a.T @ w).abs() + 1)
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3) * box
        rise = max(0.5 * float((w + a @ y) @ h @ (w + a @ y)) for y in corners) - base
        found = keskar_sharpness(Snapshot(*quadratic(h, w)), epsilon=1e-2, dimensions=3, starts=8, seed=seed)
        assert found.value == pytest.approx(100 * rise / (1 + base), rel=1e-9)
        assert found.converged
        values.append(found.value)
    assert values[0] != values[1]


@pytest.mark.parametrize("dimensions", [1, 2])
def test_starts_in_one_corner_are_one_start(dimensions):
    """Along a line the loss rises more slowly to the end that is higher: half of all directions lead to the other."""
    w = torch.zeros(6, dtype=torch.float64)
    for seed in range(6):
        a = torch.randn(6, dimensions, generator=generator_of(seed, "keskar_sharpness"), dtype=torch.float64)
        along = a @ torch.tensor([1.0, 1e-3], dtype=torch.float64)[:dimensions]
        along = along / (along @ a[:, 0])

        def loss(output, _, along=along):
            t = output @ along
            return (0.1 * t + t**2 - 0.5 * t**3).mean() + 5

        model, _, batches = quadratic(torch.eye(6).double(), w)
        found = keskar_sharpness(
            Snapshot(model, loss, batches), epsilon=1.0, dimensions=dimensions, starts=2 * dimensions, seed=seed
        )
        y = torch.cartesian_prod(*[torch.linspace(-1, 1, 201, dtype=torch.float64)] * dimensions).reshape(
            -1, dimensions
        )
        best = max(float(loss(point[None], None)) for point in y @ a.T)
        highest = 100 * (best - 5) / 6
        assert found.value >= highest * (1 - 1e-3) or not found.converged
        if dimensions == 1:
            assert found.note.startswith("search: 2 starts, 1 reached it")
            assert found.value == pytest.approx(highest, rel=1e-6)


def test_keskar_in_a_subspace_needs_as_many_weights():
    found = keskar_sharpness(Snapshot(*quadratic(spectrum(5, 3, 1))), dimensions=4)
    assert (found.value, found.note) == (None, "undefined: 4 directions, and 3 weights")


@pytest.mark.parametrize("name", NETS)
def test_keskar_beats_random_corners(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    found = keskar_sharpness(snapshot)
    generator = torch.Generator().manual_seed(0)
    box = 1e-3 * (snapshot.vector.abs() + 1)
    for _ in range(20):
        sign = torch.randint(2, (snapshot.size,), generator=generator).double() * 2 - 1
        rise = snapshot.loss_at(snapshot.vector + box * sign) - snapshot.mean_loss
        assert 100 * rise / (1 + snapshot.mean_loss) < found.value
    linear = float((snapshot.gradient_at(snapshot.vector)[1].abs() * box).sum())
    assert found.value == pytest.approx(100 * linear / (1 + snapshot.mean_loss), rel=0.05)  # a small box: a linear rise
    more = keskar_sharpness(snapshot, epsilon=2e-3)
    assert more.value > found.value


@pytest.mark.parametrize(
    "function",
    [
        sam_sharpness,
        average_sharpness,
        adaptive_sharpness,
        adaptive_average_sharpness,
        low_pass_filter_sharpness,
        lambda s: m_sharpness(s, m=5, batches=4),
        lambda s: sam_sharpness(s, norm="linf", rho=0.01, normalize_logits=True),
        keskar_sharpness,
    ],
)
def test_batch_splits_agree(function):
    net, x, y = build("conv")
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    assert function(parts).value == pytest.approx(function(whole).value, rel=1e-9)


@pytest.mark.parametrize("factor", [4.0, 0.125])
def test_average_adaptive_normalized_survives_rescaling(factor):
    net, x, y = build("mlp")
    before = adaptive_average_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value
    plain = average_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value
    rescale_layers(net, factor)
    rescale_last(net, factor)
    assert adaptive_average_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value == before
    assert abs(average_sharpness(Snapshot(net, F.cross_entropy, [(x, y)])).value / plain - 1) > 0.01


@pytest.mark.parametrize("function", [sam_sharpness, average_sharpness, m_sharpness])
def test_normalized_logits_have_no_scale(function):
    chosen = {"m": 8} if function is m_sharpness else {}
    net, x, y = build("mlp")
    hidden = Snapshot(net, F.cross_entropy, [(x, y)]).select("0", "2")
    before = function(hidden, normalize_logits=True, **chosen).value
    plain = function(hidden, **chosen).value
    rescale_last(net, 4.0)
    hidden = Snapshot(net, F.cross_entropy, [(x, y)]).select("0", "2")
    assert function(hidden, normalize_logits=True, **chosen).value == before
    assert abs(function(hidden, **chosen).value / plain - 1) > 0.1
    regression = Snapshot(nn.Linear(4, 1), F.mse_loss, [(torch.randn(8, 4), torch.randn(8, 1))])
    assert function(regression, normalize_logits=True, **chosen).value is None


def test_undefined():
    x, y = torch.randn(8, 4), torch.randn(8, 1)
    regression = Snapshot(nn.Linear(4, 1), F.mse_loss, [(x, y)])
    for function in (adaptive_sharpness, adaptive_average_sharpness):
        assert function(regression).value is None
        assert "no logits" in function(regression).note
        assert function(regression, normalize_logits=False).value > 0


def test_a_loss_that_overflows_in_the_ball():
    model, _, batches = quadratic(torch.eye(2))
    steep = Snapshot(model, lambda out, _: torch.exp(1e4 * out.square().sum(1)).mean(), batches)
    found = sam_sharpness(steep, rho=1.0)
    assert found.value is None
    assert "inf" in found.note


def test_keskar_of_a_loss_that_overflows_in_the_box():
    model, _, batches = quadratic(torch.eye(2))
    steep = Snapshot(model, lambda out, _: torch.exp(1e9 * out.square().sum(1)).mean(), batches)
    found = keskar_sharpness(steep)
    assert found.value is None
    assert "inf" in found.note


BALLS = [sam_sharpness, average_sharpness, adaptive_sharpness, adaptive_average_sharpness, m_sharpness]


@pytest.mark.parametrize(
    ("function", "name"),
    [*((f, "rho") for f in BALLS), (low_pass_filter_sharpness, "sigma"), (keskar_sharpness, "epsilon")],
)
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "big"])
def test_radius(function, name, value):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=f"{name} is"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), **{name: value})


@pytest.mark.parametrize("function", BALLS)
def test_norm(function):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match="norm is 'l1'; accepted: l2, linf"):
        function(Snapshot(net, F.cross_entropy, [(x, y)]), norm="l1")


@pytest.mark.parametrize("setting", ["m", "batches", "steps"])
def test_counts(setting):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=f"{setting} is 0"):
        m_sharpness(Snapshot(net, F.cross_entropy, [(x, y)]), **{"m": 8, setting: 0})


def test_nothing_that_rises_has_no_relative_gap():
    model = nn.Linear(4, 3).double()
    flat = Snapshot(
        model, lambda out, _: 0 * out.sum(), [(torch.randn(5, 4, dtype=torch.float64), torch.zeros(5).long())]
    )
    found = sam_sharpness(flat)
    assert (found.value, found.residual, found.converged) == (0, None, True)


@pytest.mark.parametrize("function", [adaptive_sharpness, sam_sharpness])
def test_outputs_of_a_regression_are_no_logits(function):
    snapshot = Snapshot(nn.Linear(4, 2), F.mse_loss, [(torch.randn(8, 4), torch.randn(8, 2))])
    assert "no logits" in function(snapshot, normalize_logits=True).note
    assert function(snapshot, normalize_logits=False).value > 0
