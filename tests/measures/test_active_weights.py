import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, active_weights
from genbench.models import MLP


def snapshot_of(net, x):
    return Snapshot(net, F.cross_entropy, [(part, torch.zeros(len(part)).long()) for part in x.split(3)])


def linear(weight):
    """Logits (0, w·x): the second class has the probability σ(w·x)."""
    net = nn.Linear(len(weight), 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0] * len(weight), weight]))
    return net


def test_a_logistic_unit_by_hand():
    """Without w_i the probability moves from σ(w·x) to σ(w·x − w_i x_i): by .5 − σ(−1) = .231, by .1 · σ′, by 0."""
    x = torch.tensor([[1.0, 0.0, 5.0], [-1.0, 0.0, 5.0]])
    assert active_weights(snapshot_of(linear([1.0, 9.0, 0.0]), x)).value == 1  # the second sees zeros, the third is 0
    moved = 0.5 - 1 / (1 + math.e)
    assert active_weights(snapshot_of(linear([1.0, 9.0, 0.0]), x), threshold=moved - 1e-6).value == 1
    assert active_weights(snapshot_of(linear([1.0, 9.0, 0.0]), x), threshold=moved + 1e-6).value == 0


def test_the_mean_is_that_over_all_examples():
    """One example of four moves by .231: .058 in the mean, however they are batched."""
    x = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    found = snapshot_of(linear([1.0]), x)
    assert active_weights(found, threshold=0.057).value == 1
    assert active_weights(found, threshold=0.058).value == 0


def test_it_is_the_count_by_hand_of_a_network():
    torch.manual_seed(0)
    net, x = MLP(input_shape=(1, 4), classes=3, width=5, depth=1), torch.randn(7, 1, 4)
    before, count = net(x).detach().double().softmax(1), 0
    for p in net.parameters():
        for index in range(p.numel()):
            with torch.no_grad():
                kept = p.view(-1)[index].clone()
                p.view(-1)[index] = 0
                count += float((net(x).double().softmax(1) - before).abs().sum(1).mean() / 2) > 0.02
                p.view(-1)[index] = kept
    assert 0 < count < sum(p.numel() for p in net.parameters())
    assert active_weights(snapshot_of(net, x), threshold=0.02).value == count


def test_rescaling_and_silent_units_do_not_count():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    x = torch.randn(50, 4)
    before = active_weights(snapshot_of(net, x), threshold=1e-5).value
    with torch.no_grad():
        net[0].weight *= 64
        net[2].weight /= 64
    assert active_weights(snapshot_of(net, x), threshold=1e-5).value == before == 35
    with torch.no_grad():
        net[2].weight[:, 0] = 0  # the weights into and out of a unit that nobody hears
    assert active_weights(snapshot_of(net, x), threshold=1e-5).value == 28


@pytest.mark.parametrize(
    ("net", "loss", "reason"),
    [
        (nn.Linear(4, 1000), F.cross_entropy, "5,000 weights are more than 4,096"),
        (nn.Linear(4, 1), lambda output, y: (output[:, 0] - y).square().mean(), ""),
    ],
)
def test_it_is_undefined(net, loss, reason):
    found = active_weights(Snapshot(net, loss, [(torch.randn(3, 4), torch.randn(3).abs().long())]))
    assert found.value is None
    assert found.note.startswith(f"undefined: {reason}")


@pytest.mark.parametrize("threshold", [0, 1, -0.1])
def test_the_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match=r"^threshold is "):
        active_weights(snapshot_of(nn.Linear(4, 2), torch.randn(7, 4)), threshold=threshold)
