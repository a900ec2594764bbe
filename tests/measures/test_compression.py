"""Compressed size against entropy, and the rounded network against rounding by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, accuracy, compressed_size
from tests.helpers.networks import NETS, Vector, build


def size_of(weights, **chosen):
    x = torch.zeros(2, 1, dtype=torch.float64)
    snapshot = Snapshot(Vector(weights), lambda out, _: out.square().sum(1).mean(), [(x, torch.zeros(2))])
    return compressed_size(snapshot, **chosen)["compressed_size"].value


def gaussian(n):
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.oracle("compressed_size")
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_size_is_near_the_entropy_of_independent_weights(bits):
    w = gaussian(30_000)
    top = 2 ** (bits - 1) - 1
    _, counts = torch.unique((w / w.abs().max() * top).round(), return_counts=True)
    p = counts.double() / len(w)
    entropy = float(-(p * p.log2()).sum()) * len(w) / 8
    assert entropy < size_of(w, bits=bits) < 1.1 * entropy


def test_structure_is_compressed():
    w = gaussian(30_000)
    assert size_of(torch.ones(30_000, dtype=torch.float64)) < 100
    assert size_of(torch.zeros(30_000, dtype=torch.float64)) < 100
    assert size_of(w[:300].repeat(100)) < 0.03 * size_of(w)
    assert size_of(w * (gaussian(30_000) > 1.3)) < 0.4 * size_of(w)
    sizes = [size_of(w, bits=bits) for bits in (2, 4, 6, 8, 12, 16)]
    assert sizes == sorted(sizes)


@pytest.mark.oracle("compressed_size")
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("name", NETS)
def test_the_rounded_network(name, bits):
    net, x, y = build(name)
    found = compressed_size(Snapshot(net, F.cross_entropy, [(x, y)]), bits=bits)
    levels = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for p in net.parameters():
            top = float(p.abs().max())
            if p.requires_grad and top:
                values = [round(float(v) / top * levels) * top / levels for v in p.reshape(-1)]
                p.copy_(torch.tensor(values, dtype=torch.float64).reshape(p.shape))
    rounded = Snapshot(net, F.cross_entropy, [(x, y)])
    assert found["compressed_loss"].value == pytest.approx(rounded.mean_loss, rel=1e-9)
    assert found["compressed_accuracy"].value == pytest.approx(accuracy(rounded).value)


def test_many_bits_keep_the_network_and_few_do_not():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    errors = [abs(compressed_size(snapshot, bits=b)["compressed_loss"].value - snapshot.mean_loss) for b in (2, 8, 16)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_rescaling_and_batches():
    net, x, y = build("mlp")
    before = compressed_size(Snapshot(net, F.cross_entropy, [(x, y)]))
    parts = compressed_size(Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True))))
    assert {k: e.value for k, e in parts.items()} == pytest.approx({k: e.value for k, e in before.items()}, rel=1e-9)
    with torch.no_grad():
        net[0].weight *= 8
        net[0].bias *= 8
        net[2].weight /= 8
    after = compressed_size(Snapshot(net, F.cross_entropy, [(x, y)]))
    assert after["compressed_size"].value == before["compressed_size"].value
    assert after["compressed_loss"].value == before["compressed_loss"].value


def test_no_classifier():
    found = compressed_size(Snapshot(nn.Linear(4, 1), F.mse_loss, [(torch.randn(8, 4), torch.randn(8, 1))]))
    assert found["compressed_accuracy"].value is None
    assert found["compressed_size"].value > 0
    assert math.isfinite(found["compressed_loss"].value)


@pytest.mark.parametrize("bits", [1, 17, 4.0])
def test_bits(bits):
    net, x, y = build("mlp")
    with pytest.raises(ValueError, match="bits is"):
        compressed_size(Snapshot(net, F.cross_entropy, [(x, y)]), bits=bits)
