import pytest
import torch

from genbench.regularization import L2, WeightElimination
from genbench.training import Lane
from tests.helpers.networks import network
from tests.helpers.runs import Blobs, gradient


def penalty(weights, **settings):
    net = torch.nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weights], dtype=torch.float64))
    method = WeightElimination(**settings)
    return float(method.penalty(method.build(net), None, None, None, None).detach())


def test_the_penalty_by_hand():
    """(w/w₀)²/(1 + (w/w₀)²) is 0, 1/5, 1/2 and 4/5 where |w| is 0, w₀/2, w₀ and 2w₀."""
    assert penalty([0.0, 0.2, -0.4, 0.8], strength=0.3, scale=0.4) == pytest.approx(0.3 * 1.5, rel=1e-12)


def test_it_counts_weights_that_are_large_for_the_scale():
    assert penalty([1.0, -7.0, 1e-4, 0.0], strength=0.3, scale=1e-2) == pytest.approx(0.3 * 2, rel=1e-3)


def test_it_is_an_l2_penalty_of_weights_that_are_small_for_the_scale():
    net = network()
    l2, method = L2(strength=3e-6), WeightElimination(strength=0.3, scale=316.22776601683796)
    expected, found = (float(m.penalty(m.build(net), None, None, None, None).detach()) for m in (l2, method))
    assert found == pytest.approx(expected, rel=1e-3)


def test_its_gradient_is_that_of_the_paper():
    """2 λ/w₀² · w / (1 + (w/w₀)²)², largest at w₀/√3."""
    x, y = Blobs().splits["train"]
    plain = gradient(Lane(network(), [], seed=0), x, y)
    lane = Lane(network(), [WeightElimination(strength=0.3, scale=0.1)], seed=0)
    for p, g, reference in zip(lane.trained, gradient(lane, x, y), plain, strict=True):
        w = p.detach()
        torch.testing.assert_close(g, reference + 60 * w / (1 + 100 * w.square()).square())


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"strength": -1, "scale": 1}, "strength"), ({"strength": 1, "scale": 0}, "scale")],
)
def test_bad_settings_are_named(settings, name):
    with pytest.raises(ValueError, match=f"WeightElimination: {name} is "):
        WeightElimination(**settings)
