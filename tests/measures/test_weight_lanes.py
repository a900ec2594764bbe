"""Losses and gradients at several weights are those of each by itself, together or one after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot
from genbench.measures.weight_lanes import WeightLanes
from tests.helpers.networks import NETS, Vector, build


def near(snapshot, lanes=3):
    noise = torch.randn(lanes, snapshot.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return snapshot.vector + 0.1 * noise


def check(snapshot, *, together, exact=1e-12):
    lanes, vectors = WeightLanes(snapshot), near(snapshot)
    before = {name: p.detach().clone() for name, p in snapshot.model.named_parameters()}
    for _ in range(3):  # the first calls compare
        losses, gradients = lanes(vectors)
    assert lanes.together == together
    for vector, loss, gradient in zip(vectors, losses, gradients, strict=True):
        value, slope = snapshot.gradient_at(vector)
        assert float(loss) == pytest.approx(value, rel=exact)
        torch.testing.assert_close(gradient, slope, rtol=exact, atol=exact)
    assert all(torch.equal(p, before[name]) for name, p in snapshot.model.named_parameters())


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_network(name):
    net, x, y = build(name)
    check(Snapshot(net, F.cross_entropy, list(zip(x.split(10), y.split(10), strict=True))), together=name != "gru")


def test_large_batches_follow_each_other_on_a_cpu():
    net, x, y = build("mlp", n=300)
    check(Snapshot(net, F.cross_entropy, [(x, y)]), together=False)


def test_of_a_layer_the_others_stay():
    net, x, y = build("mlp")
    check(Snapshot(net, F.cross_entropy, [(x, y)]).select("2"), together=True)


def test_float32_and_a_loss_over_tokens_without_padding():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    x, y = torch.randint(7, (9, 5)), torch.randint(7, (9, 5))
    y[torch.rand(9, 5) < 0.3] = -100
    y[0] = -100

    def loss(output, target):
        return F.cross_entropy(output.transpose(1, 2), target, ignore_index=-100)

    batches = list(zip(x.split(4), y.split(4), strict=True))
    counted = Snapshot(net, loss, batches, count=lambda _, target: (target != -100).sum())
    check(counted, together=True, exact=1e-5)


def test_a_loss_that_refers_to_the_live_weights():
    net, x, y = build("mlp")
    weights = list(net.parameters())

    def penalized(output, target):
        return F.cross_entropy(output, target) + 0.01 * sum(p.square().sum() for p in weights)

    check(Snapshot(net, penalized, [(x, y)]), together=False)


def test_a_network_that_branches_on_values():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.layer(x) if self.layer.weight.sum() > 0 else 2 * self.layer(x)

    _, x, y = build("mlp")
    torch.manual_seed(0)
    check(Snapshot(Branching(), F.cross_entropy, [(x, y)]), together=False)


@pytest.mark.parametrize("together", [True, False])
def test_a_lane_that_is_not_finite_leaves_the_others(together):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    lanes, vectors = WeightLanes(snapshot), near(snapshot, 4)
    lanes.together = together
    for broken in (torch.nan, torch.inf, 1e300):
        bad = vectors.clone()
        bad[[1, 3]] = broken
        losses, gradients = lanes(bad)
        assert not losses[[1, 3]].isfinite().any()
        for lane in (0, 2):
            value, slope = snapshot.gradient_at(vectors[lane])
            assert float(losses[lane]) == pytest.approx(value, rel=1e-12)
            torch.testing.assert_close(gradients[lane], slope, rtol=1e-12, atol=1e-12)
    assert lanes.together == together


def test_lanes_pass_over_the_data_in_parts(monkeypatch):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    lanes, vectors = WeightLanes(snapshot), near(snapshot)
    whole = lanes(vectors)
    sizes = []
    pieces = snapshot.pieces
    monkeypatch.setattr(snapshot, "pieces", lambda batch, size=None: sizes.append(size) or pieces(batch, size))
    small = WeightLanes(snapshot)
    small._room = 3 * 3 * snapshot.structure.bytes * 5  # five examples of three lanes
    for part, of_whole in zip(small(vectors), whole, strict=True):
        torch.testing.assert_close(part, of_whole, rtol=1e-12, atol=1e-12)
    assert sizes[0] == 5


def test_passes_are_counted_a_lane_each():
    class Ticks:
        count = 0

        def tick(self):
            self.count += 1

    _, x, y = build("mlp")
    snapshot = Snapshot(Vector(torch.zeros(3, dtype=torch.float64)), F.cross_entropy, [(x, y)])
    lanes = WeightLanes(snapshot)
    lanes(near(snapshot)), lanes(near(snapshot))
    with snapshot.measuring(), snapshot.reporting(ticks := Ticks()):
        lanes(near(snapshot))
        lanes.together = False
        lanes(near(snapshot))
    assert ticks.count == 6
