"""Norms against direct computations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, distance_from_init, l2_norm, spectral_norm
from tests.measures.nets import NETS, build


@pytest.mark.parametrize("name", NETS)
def test_l2_and_distance(name):
    net, x, y = build(name)
    initial = {key: torch.ones_like(t) for key, t in net.state_dict().items()}
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    trained = {key: p.detach() for key, p in net.named_parameters() if p.requires_grad}
    flat = torch.cat([p.reshape(-1) for p in trained.values()])
    norms, moved = l2_norm(snapshot), distance_from_init(snapshot)
    assert norms["l2"].value == pytest.approx(float(flat.norm()))
    assert moved["distance"].value == pytest.approx(float((flat - 1).norm()))
    assert set(norms) == {"l2", *(f"l2.{key}" for key in trained)}
    assert set(moved) == {"distance", *(f"distance.{key}" for key in trained)}
    for key, p in trained.items():
        assert norms[f"l2.{key}"].value == pytest.approx(float(p.norm()))
        assert moved[f"distance.{key}"].value == pytest.approx(float((p - 1).norm()))


def test_spectral():
    net = nn.Sequential(nn.Linear(5, 3), nn.Conv1d(2, 4, 3), nn.LayerNorm(3))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[1, 2] = -7.0
        net[1].weight.fill_(0.5)  # rank one: ½ · √(4 · 6)
    norms = spectral_norm(Snapshot(net, F.mse_loss, []))
    assert norms["spectral.0.weight"].value == pytest.approx(7)
    assert norms["spectral.1.weight"].value == pytest.approx(0.5 * 24**0.5)
    assert norms["spectral"].value == pytest.approx(7)
    assert set(norms) == {"spectral", "spectral.0.weight", "spectral.1.weight"}


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (8, 3, 5)])
def test_spectral_is_the_largest_singular_value(shape):
    torch.manual_seed(0)
    net = nn.ParameterDict({"w": torch.randn(shape)})
    exact = float(torch.linalg.svdvals(net["w"].detach().double().reshape(shape[0], -1))[0])
    assert spectral_norm(Snapshot(net, F.mse_loss, []))["spectral"].value == pytest.approx(exact, rel=1e-12)


def test_undefined():
    snapshot = Snapshot(nn.LayerNorm(3), F.mse_loss, [])
    assert spectral_norm(snapshot)["spectral"].value is None
    assert distance_from_init(snapshot)["distance"].note == "no initial weights given"
    other = Snapshot(nn.LayerNorm(3), F.mse_loss, [], initial={"weight": torch.zeros(4)})
    assert "'weight' of shape (3,)" in distance_from_init(other)["distance"].note
