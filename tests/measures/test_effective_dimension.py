"""The effective dimension against dense spectra and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, effective_dimension
from tests.helpers.networks import NETS, build, dense_gauss_newton, quadratic


def of_spectrum(values: torch.Tensor, alpha: float) -> float:
    return math.fsum(v / (v + alpha) for v in values.tolist())


@pytest.mark.oracle("effective_dimension")
@pytest.mark.parametrize("name", NETS)
def test_small_networks_are_exact(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x[:9], y[:9]), (x[9:], y[9:])])
    values = torch.linalg.eigvalsh(dense_gauss_newton(net, x, y)).clamp_min(0)
    for alpha in (1e-3, 1e-1, 10.0):
        found = effective_dimension(snapshot, alpha=alpha)
        assert found.value == pytest.approx(of_spectrum(values, alpha), rel=1e-9)
        assert found.stderr == 0
        assert found.note is None


@pytest.mark.oracle("effective_dimension")
def test_least_squares_by_hand():
    """L = mean (xᵀw − y)², whose curvature is 2 mean xxᵀ = diag(2, 8), seen through a prior of precision 2."""
    x = torch.tensor([[2.0**0.5, 0.0], [0.0, 8.0**0.5]], dtype=torch.float64)
    snapshot = Snapshot(nn.Linear(2, 1, bias=False).double(), F.mse_loss, [(x, torch.ones(2, 1).double())])
    assert effective_dimension(snapshot, alpha=2.0).value == pytest.approx(2 / 4 + 8 / 10, rel=1e-12)


def test_between_nothing_and_the_rank_and_falling_with_alpha():
    """Five examples of a linear map to three classes determine 5·2 directions: softmax ignores a constant."""
    torch.manual_seed(0)
    x, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5) % 3
    snapshot = Snapshot(nn.Linear(7, 3).double(), F.cross_entropy, [(x, y)])
    found = [effective_dimension(snapshot, alpha=10.0**k).value for k in range(-9, 9, 2)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(10, abs=1e-4)
    assert found[-1] == pytest.approx(0, abs=1e-5)


def test_the_quadrature_covers_the_exact_value():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    values = torch.linalg.eigvalsh(dense_gauss_newton(net, x, y)).clamp_min(0)
    exact = of_spectrum(values, 0.1)
    found = [effective_dimension(snapshot, alpha=0.1, runs=4, steps=20, seed=s) for s in range(40)]
    assert all(e.stderr > 0 for e in found)
    assert sum(abs(e.value - exact) <= 3.2 * e.stderr for e in found) >= 36  # t of 3 degrees of freedom: 95 %
    spread = torch.tensor([e.value for e in found])
    assert abs(float(spread.mean()) - exact) < 4 * float(spread.std()) / math.sqrt(len(found))


def test_few_steps_say_that_the_quadrature_may_be_wrong():
    net, x, y = build("mlp")
    found = effective_dimension(Snapshot(net, F.cross_entropy, [(x, y)]), alpha=1e-6, runs=2, steps=4)
    values = torch.linalg.eigvalsh(dense_gauss_newton(net, x, y)).clamp_min(0)
    low, high = found.interval
    assert low <= of_spectrum(values, 1e-6) <= high
    assert "of it may lie below alpha: more steps tell" in found.note
    found = effective_dimension(Snapshot(net, F.cross_entropy, [(x, y)]), alpha=1e-3, runs=2, steps=12)
    low, high = found.interval
    assert low <= of_spectrum(values, 1e-3) <= high
    assert "the quadrature itself may be wrong" in found.note


@pytest.mark.parametrize("steps", [3, 100])
def test_negative_eigenvalues_of_a_loss_that_is_not_convex_are_counted(steps):
    """Outputs are the weights, so that the Gauss–Newton matrix is the Hessian of the loss: diag(3, 1, −1, −2)."""
    snapshot = Snapshot(*quadratic(torch.diag(torch.tensor([3.0, 1.0, -1.0, -2.0], dtype=torch.float64))))
    found = effective_dimension(snapshot, alpha=1.0, runs=2, steps=steps)
    assert "negative eigenvalues count as 0: the loss is not convex in the outputs" in found.note
    if steps == 100:
        assert found.value == pytest.approx(3 / 4 + 1 / 2, rel=1e-12)
        assert found.note.startswith("about 2 negative")


@pytest.mark.parametrize(("runs", "steps"), [(5, 80), (3, 10)])
def test_neither_splits_nor_the_order_of_examples_matter(runs, steps):
    net, x, y = build("conv")
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    batches = ([(x, y)], [(x[order][:5], y[order][:5]), (x[order][5:], y[order][5:])])
    a, b = (effective_dimension(Snapshot(net, F.cross_entropy, each), runs=runs, steps=steps).value for each in batches)
    assert a == pytest.approx(b, rel=1e-7)


def test_a_permutation_of_units_leaves_it():
    net, x, y = build("mlp")
    before = effective_dimension(Snapshot(net, F.cross_entropy, [(x, y)])).value
    order = torch.randperm(6)
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    assert effective_dimension(Snapshot(net, F.cross_entropy, [(x, y)])).value == pytest.approx(before, rel=1e-9)


def test_language_models_and_regression():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    tokens = torch.randint(5, (6, 7))
    spoken = Snapshot(net, lambda out, y: F.cross_entropy(out.movedim(2, 1), y), [(tokens, tokens.roll(-1, 1))])
    assert 0 < effective_dimension(spoken).value < 45
    x = torch.randn(8, 3, dtype=torch.float64)
    fitted = Snapshot(nn.Linear(3, 1).double(), F.mse_loss, [(x, x.sum(1, keepdim=True))])
    assert 0 < effective_dimension(fitted).value < 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": 0}, r"alpha is 0; accepted: a number in \(0, inf\)"),
        ({"runs": 1}, "runs is 1; accepted: an integer of at least 2"),
        ({"steps": 0}, "steps is 0; accepted: an integer of at least 1"),
        ({"seed": -1}, "seed is -1; accepted: an integer of at least 0"),
    ],
)
def test_settings(setting, message):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match=message):
        effective_dimension(Snapshot(net, F.cross_entropy, [(x, y)]), **setting)
