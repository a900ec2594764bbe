"""Temperature scaling, in closed form and by a grid."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, calibrated_cross_entropy, cross_entropy
from genbench.measures.temperature import cross_calibrated, temperature
from genbench.models import Ensemble
from tests.helpers.networks import Vector, build


def logits(n=60, k=4, sure=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = sure * torch.randn((n, k), generator=generator, dtype=torch.float64)
    y = (z + 4 * torch.randn(z.shape, generator=generator, dtype=torch.float64)).argmax(1)
    return z, y


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_of_two_classes_in_closed_form(true):
    """Probabilities q of the first class, right in a share r of the examples: (q / (1 − q))^(1/T) = r / (1 − r)."""
    r = 0.8
    odds = (r / (1 - r)) ** true
    log_p = torch.tensor([[odds / (1 + odds), 1 / (1 + odds)]] * 10, dtype=torch.float64).log()
    assert temperature(log_p, torch.tensor([0] * 8 + [1] * 2)) == pytest.approx(true, rel=1e-6)


def test_no_temperature_of_a_grid_is_better():
    z, y = logits()
    best = temperature(z.log_softmax(1), y)
    least = F.cross_entropy(z / best, y)
    assert all(F.cross_entropy(z / t, y) >= least for t in torch.logspace(-2, 2, 401, dtype=torch.float64))
    assert F.cross_entropy(z / (1.01 * best), y) > least < F.cross_entropy(z / (best / 1.01), y)


def test_a_scale_of_the_logits_is_taken_out():
    z, y = logits()
    t = temperature(z.log_softmax(1), y)
    assert temperature((5 * z).log_softmax(1), y) == pytest.approx(5 * t, rel=1e-6)
    both = [cross_calibrated((scale * z).log_softmax(1), y) for scale in (1, 5)]
    torch.testing.assert_close(*both, rtol=1e-6, atol=1e-9)


def test_the_ends_of_the_range():
    z = torch.tensor([[2.0, 0.0], [0.0, 2.0]], dtype=torch.float64).log_softmax(1)
    assert temperature(z, torch.tensor([0, 1])) == 0.01  # all right: the surer the better
    assert temperature(z, torch.tensor([1, 0])) == 100.0


def test_a_class_of_probability_zero_changes_nothing():
    log_p = torch.tensor([[0.9, 0.1, 0.0]] * 4, dtype=torch.float64).log()
    assert temperature(log_p, torch.tensor([0, 0, 0, 1])) == pytest.approx(2.0)


@pytest.mark.oracle("calibrated_cross_entropy")
def test_each_half_has_the_temperature_of_the_other():
    net, x, y = build("mlp")
    batches = [(x[:9], y[:9]), (x[9:], y[9:])]
    found = calibrated_cross_entropy(Snapshot(net, F.cross_entropy, batches))
    with torch.no_grad():
        z = net.eval()(x).double()
    grid = torch.logspace(-2, 2, 20001, dtype=torch.float64)
    costs = []
    for i in range(len(y)):
        other = torch.arange(len(y)) % 2 != i % 2
        cost = torch.stack([F.cross_entropy(z[other] / t, y[other]) for t in grid])
        costs.append(float(F.cross_entropy(z[i] / grid[cost.argmin()], y[i])))
    assert found.value == pytest.approx(sum(costs) / len(costs), rel=1e-4)
    assert found.stderr == pytest.approx(float(torch.tensor(costs).std()) / math.sqrt(len(costs)), rel=1e-3)


def test_of_an_ensemble_it_scales_the_mean_of_the_probabilities():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    members = [nn.Linear(4, 3) for _ in range(3)]
    found = calibrated_cross_entropy(Snapshot(Ensemble(members), F.cross_entropy, [(x, y)]))
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(0).log()
    assert found.value == pytest.approx(float(cross_calibrated(mean.detach(), y).mean()), rel=1e-6)


def test_an_overconfident_network_gains():
    z, y = logits(n=400, sure=3.0)
    net = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(6 * torch.eye(4))
    snapshot = Snapshot(net, F.cross_entropy, [(z, y)])
    assert calibrated_cross_entropy(snapshot).value < 0.5 * cross_entropy(snapshot).value


def test_undefined():
    z = torch.randn(4, 1)
    assert calibrated_cross_entropy(Snapshot(Vector(torch.ones(1)), F.mse_loss, [(z, z)])).value is None
    net, x, y = build("mlp")
    one = calibrated_cross_entropy(Snapshot(net, F.cross_entropy, [(x[:1], y[:1])]))
    assert one.note == "undefined: one example"
