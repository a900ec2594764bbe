import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot
from genbench.measures.critical_samples import critical_sample_ratio


def snapshot(n=300):
    torch.manual_seed(0)
    net = nn.Linear(6, 2).double()
    x = torch.randn(n, 6, dtype=torch.float64)
    return net, x, Snapshot(net, F.cross_entropy, [(x, torch.zeros(n, dtype=torch.long))])


@pytest.mark.oracle("critical_sample_ratio")
@pytest.mark.parametrize("radius", [0.05, 0.2])
def test_of_a_linear_network_it_is_the_share_of_inputs_whose_margin_the_box_exceeds(radius):
    """The largest change of the difference of two logits in the box is radius · ‖w₁ − w₀‖₁, at a corner."""
    net, x, found = snapshot()
    z = net(x)
    reach = radius * (net.weight[1] - net.weight[0]).abs().sum()
    expected = float(((z[:, 1] - z[:, 0]).abs() < reach).double().mean())
    assert 0.05 < expected < 0.95
    value = critical_sample_ratio(found, radius=radius, step_size=radius)
    assert value.value == pytest.approx(expected, abs=1e-12)
    assert value.stderr == pytest.approx((expected * (1 - expected) / 299) ** 0.5, rel=1e-2)


def test_noise_stays_in_the_box_and_follows_its_seed():
    net, x, found = snapshot()
    z = net(x)
    most = float(((z[:, 1] - z[:, 0]).abs() < 0.1 * (net.weight[1] - net.weight[0]).abs().sum()).double().mean())
    values = [
        critical_sample_ratio(found, radius=0.1, step_size=0.0, noise=5.0, steps=3, seed=seed).value
        for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]
    assert 0 < max(values) <= most


def test_more_steps_never_lower_it():
    _, _, found = snapshot()
    values = [critical_sample_ratio(found, radius=0.2, step_size=0.02, steps=steps).value for steps in (1, 4, 12)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_settings_out_of_range_are_refused():
    _, _, found = snapshot(n=4)
    with pytest.raises(ValueError, match="radius is 0"):
        critical_sample_ratio(found, radius=0, step_size=0.1)
