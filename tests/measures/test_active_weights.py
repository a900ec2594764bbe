import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, active_inputs, active_weights
from genbench.models import MLP
from tests.helpers.networks import build


def snapshot_of(net, x):
    return Snapshot(net, F.cross_entropy, [(part, torch.zeros(len(part)).long()) for part in x.split(3)])


def linear(weight):
    """Logits (0, w·x): the second class has the probability σ(w·x)."""
    net = nn.Linear(len(weight), 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0] * len(weight), weight]))
    return net


@pytest.mark.oracle("active_weights")
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


@pytest.mark.oracle("active_weights")
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
    for measure in (active_weights, active_inputs):
        with pytest.raises(ValueError, match=r"^threshold is "):
            measure(snapshot_of(nn.Linear(4, 2), torch.randn(7, 4)), threshold=threshold)


@pytest.mark.oracle("active_inputs")
def test_active_inputs_are_those_by_hand():
    """The first layer sees 4 inputs, the head 5 units: each is set to zero in turn."""
    torch.manual_seed(0)
    net, x = MLP(input_shape=(1, 4), classes=3, width=5, depth=1, activation="tanh"), torch.randn(7, 1, 4)
    with torch.no_grad():
        net.layers[0][0].weight[:, 1] = 0  # an input that is off
        net.head.weight[:, 2] *= 1e-3  # a unit that is not heard
    before, counts = net(x).detach().double().softmax(1), []
    for shape, run in ((4, net), (5, net.head)):
        given = x.flatten(1) if run is net else net.features(x).detach()
        moved = []
        for index in range(shape):
            off = given.clone()
            off[:, index] = 0
            after = run(off[:, None] if run is net else off).detach().double().softmax(1)
            moved.append(float((after - before).abs().sum(1).mean() / 2))
        counts.append(sum(each > 0.005 for each in moved))
    found = active_inputs(snapshot_of(net, x), threshold=0.005)
    assert {key: each.value for key, each in found.items()} == {
        "active_inputs.layers.0.0": counts[0],
        "active_inputs.head": counts[1],
    }
    assert counts == [3, 4]


def test_permuting_units_and_batches_leaves_active_inputs():
    torch.manual_seed(1)
    net, x = MLP(input_shape=(1, 4), classes=3, width=9, depth=2), torch.randn(30, 1, 4)
    before = active_inputs(snapshot_of(net, x), threshold=0.01)
    order = torch.randperm(9)
    with torch.no_grad():
        first, second = net.layers[0][0], net.layers[1][0]
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight[:, order])
    one = Snapshot(net, F.cross_entropy, [(x.flip(0), torch.zeros(30).long())])
    assert {k: e.value for k, e in active_inputs(one, threshold=0.01).items()} == {
        k: e.value for k, e in before.items()
    }
    assert 0 < before["active_inputs.layers.1.0"].value < 9


def test_a_weight_that_two_layers_share_is_that_of_the_first():
    net, x, _ = build("tied", n=6)
    found = active_inputs(snapshot_of(net, x))
    assert found.keys() == {"active_inputs.first", "active_inputs.second", "active_inputs.head"}
    assert found["active_inputs.second"].note == "undefined: the weight is no trainable parameter of its own"
    assert all(found[f"active_inputs.{name}"].value > 0 for name in ("first", "head"))


@pytest.mark.parametrize(
    ("net", "key", "reason"),
    [
        (nn.Linear(5000, 2), "active_inputs.", "10,002 weights are more than 4,096"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), "active_inputs.", "the weight is no trainable"),
        (nn.Sequential(nn.Conv1d(1, 2, 4), nn.Flatten()), "active_inputs", "the network has no linear layer"),
    ],
)
def test_active_inputs_are_undefined(net, key, reason):
    x = torch.randn(3, 5000 if isinstance(net, nn.Linear) and net.in_features == 5000 else 4)
    x = x[:, None] if isinstance(net, nn.Sequential) else x
    (found,) = active_inputs(snapshot_of(net, x)).items()
    assert found[0] == key
    assert found[1].value is None
    assert found[1].note.startswith(f"undefined: {reason}")
