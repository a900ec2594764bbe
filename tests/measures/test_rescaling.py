from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Estimate, Snapshot, keskar_sharpness, rescaled, rescaling
from genbench.measures.perturbations import generator_of
from genbench.models import MLP
from tests.helpers.networks import build


def network(activation="relu", **settings):
    torch.manual_seed(0)
    return MLP(input_shape=(1, 4), classes=3, width=6, depth=1, activation=activation, **settings)


def snapshot_of(net):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 1, 4, generator=generator)
    return Snapshot(net, F.cross_entropy, [(x, torch.arange(9) % 3)])


def dense(net, x, y, weights):
    """The Hessian by a tensor in place of some weights."""
    own = dict(net.named_parameters())
    flat = torch.cat([own[name].detach().flatten() for name in weights])

    def loss(vector):
        placed, start = {}, 0
        for name in weights:
            placed[name] = vector[start : start + own[name].numel()].view_as(own[name])
            start += own[name].numel()
        return F.cross_entropy(torch.func.functional_call(net, placed, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.oracle("rescaling")
@pytest.mark.parametrize("alpha", [0.25, 3.0])
def test_outputs_stay_and_blocks_scale(alpha):
    found = rescaling(snapshot_of(network()), alpha=alpha)
    assert list(found) == ["rescaling_output", "rescaling_first", "rescaling_second"]
    for estimate in found.values():
        assert estimate.value < 1e-13


def test_the_blocks_are_those_of_the_dense_hessian():
    net = network().double()
    x, y = torch.randn(9, 1, 4, dtype=torch.float64), torch.arange(9) % 3
    first, second = ["layers.0.0.weight", "layers.0.0.bias"], ["head.weight"]
    before = [dense(net, x, y, names) for names in (first, second)]
    with torch.no_grad():
        net.layers[0][0].weight *= 3
        net.layers[0][0].bias *= 3
        net.head.weight /= 3
    after = [dense(net, x, y, names) for names in (first, second)]
    torch.testing.assert_close(9 * after[0], before[0])
    torch.testing.assert_close(after[1] / 9, before[1])


def test_it_shows_where_the_units_are_no_relu():
    found = rescaling(snapshot_of(network("tanh")), alpha=3.0)
    assert all(estimate.value > 0.01 for estimate in found.values())


@pytest.mark.oracle("rescaling")
def test_of_a_block_it_is_the_largest_relative_error():
    net = network("tanh")
    found = rescaling(snapshot_of(net), alpha=2.0, probes=1)
    snapshot = snapshot_of(net.double())
    other = network("tanh").double()
    with torch.no_grad():
        other.layers[0][0].weight *= 2
        other.layers[0][0].bias *= 2
        other.head.weight /= 2
    x, y = next(iter(snapshot.batches))[0].double(), torch.arange(9) % 3
    blocks = {"first": (["layers.0.0.weight", "layers.0.0.bias"], 4), "second": (["head.weight"], 1 / 4)}
    for block, (names, factor) in blocks.items():
        before, after = (dense(each, x, y, names) for each in (net, other))
        v = torch.randn(len(before), generator=generator_of(0, "rescaling"), dtype=torch.float64)
        error = factor * after @ v - before @ v
        expected = float(error.norm() / (before @ v).norm())
        assert found[f"rescaling_{block}"].value == pytest.approx(expected, rel=1e-6)
    moved = (other(x) - net(x)).abs().max() / net(x).abs().max()
    assert found["rescaling_output"].value == pytest.approx(float(moved.detach()), rel=1e-6)


def test_networks_without_two_such_layers_have_none():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert rescaling(snapshot_of(net))["rescaling_output"].note == "undefined: the network has no two layers"
    net = nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 3)
    )
    note = "undefined: the weight of the layer '1' is no trainable parameter"
    assert rescaled(snapshot_of(net), measure=keskar_sharpness).note == note


@pytest.mark.oracle("rescaled")
@pytest.mark.parametrize("alpha", [2.0, 8.0])
def test_a_measure_after_rescaling_is_that_of_the_rescaled_network(alpha):
    net = network()
    sharpness = partial(keskar_sharpness, epsilon=1e-3)
    found = rescaled(snapshot_of(net), measure=sharpness, alpha=alpha)
    assert found.value != pytest.approx(sharpness(snapshot_of(net)).value, rel=0.05)
    with torch.no_grad():
        net.layers[0][0].weight *= alpha
        net.layers[0][0].bias *= alpha
        net.head.weight /= alpha
    assert found.value == pytest.approx(sharpness(snapshot_of(net)).value, rel=1e-6)


def test_the_network_keeps_its_weights():
    net, x, y = build("mlp")
    before = [p.detach().clone() for p in net.parameters()]
    rescaled(Snapshot(net, F.cross_entropy, [(x, y)]), measure=lambda s: Estimate(s.mean_loss))
    rescaling(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert all(map(torch.equal, net.parameters(), before))


def test_settings_are_refused():
    for name, value in {"alpha": 0, "probes": 0, "seed": -1}.items():
        with pytest.raises(ValueError, match=f"^{name} is "):
            rescaling(snapshot_of(network()), **{name: value})
    with pytest.raises(ValueError, match=r"^measure is 3; accepted: a function of a snapshot"):
        rescaled(snapshot_of(network()), measure=3)
