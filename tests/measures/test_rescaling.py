from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import (
    Estimate,
    Snapshot,
    adaptive_average_sharpness,
    adaptive_sharpness,
    keskar_sharpness,
    l2_norm,
    m_sharpness,
    rescaled,
    rescaling,
    scale_dependence,
)
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


@pytest.mark.oracle("scale_dependence")
@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_a_measure_of_the_logits_depends_on_their_scale_as_it_says(alpha):
    """The sum of squared outputs is multiplied by α², whatever the other layers are."""

    def squares(snapshot):
        return Estimate(sum(float(output.square().sum()) for output, _ in snapshot.predictions))

    found = scale_dependence(snapshot_of(network()), measure=squares, alpha=alpha)
    assert found.value == pytest.approx(abs(alpha**2 - 1), rel=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    "function",
    [
        partial(adaptive_sharpness, rho=0.2, starts=1),
        partial(adaptive_average_sharpness, rho=0.2),
        partial(m_sharpness, rho=0.2, starts=1, m=3, batches=3, adaptive=True, normalize_logits=True),
    ],
)
def test_adaptive_sharpness_of_normalized_logits_does_not_depend_on_their_scale(function, norm):
    snapshot = snapshot_of(network())
    assert scale_dependence(snapshot, measure=partial(function, norm=norm)).value < 1e-10
    plain = partial(function, norm=norm, normalize_logits=False)
    assert scale_dependence(snapshot, measure=plain).value > 0.1


def test_without_a_last_layer_or_a_value_there_is_no_dependence():
    snapshot = snapshot_of(network())
    frozen = network()
    frozen.head.weight.requires_grad_(False)
    assert scale_dependence(snapshot_of(frozen), measure=l2_norm).value is None
    zero = scale_dependence(snapshot, measure=lambda _: Estimate(0.0))
    assert (zero.value, zero.note) == (None, "undefined: the measure is 0")
    gone = scale_dependence(snapshot, measure=lambda _: Estimate(None, note="undefined: gone"))
    assert (gone.value, gone.note) == (None, "undefined: gone")


@pytest.mark.parametrize("alpha", [0, -1.0, "two"])
def test_scale_dependence_refuses_what_is_no_factor(alpha):
    with pytest.raises(ValueError, match="alpha"):
        scale_dependence(snapshot_of(network()), measure=l2_norm, alpha=alpha)


def test_scale_dependence_knows_that_the_layer_registered_last_is_not_the_last():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(5, 3), nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.body(x.flatten(1)).tanh())

    found = scale_dependence(snapshot_of(HeadFirst()), measure=l2_norm)
    assert found.value is None
    assert found.note == "undefined: multiplying the weights of body, registered last, does not multiply the outputs"
