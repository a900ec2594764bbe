"""The compression bound in a random subspace against a dense computation, and whether it holds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, subspace_compression_bound
from genbench.measures.bounds import coin_kl
from genbench.measures.subspace import symbol_nats
from genbench.models.random_subspace import RandomSubspace


def trained(z, *, n=300, seed=0, flip=0.0, features=6):
    """A network at w⁰ + Pz, and data that it answers rightly but for a share."""
    torch.manual_seed(seed)
    net = nn.Linear(features, 2).double()
    initial = {name: t.clone() for name, t in net.state_dict().items()}
    subspace = RandomSubspace.drawn(2 * features + 2, len(z), seed=5)
    vector = torch.cat([t.reshape(-1) for t in initial.values()]) + subspace.vector(torch.tensor(z).double())
    nn.utils.vector_to_parameters(vector, net.parameters())
    x = torch.randn(n, features).double()
    y = net(x).argmax(1) ^ (torch.rand(n) < flip)
    return Snapshot(net, F.cross_entropy, [(x, y)], initial=initial), subspace


@pytest.mark.oracle("subspace_compression_bound")
def test_few_values_are_coded_exactly_and_the_bound_is_the_formula():
    z = [0.5, -1.5, 0.5, 0.5]  # as 16 bits hold them
    snapshot, _ = trained(z, flip=0.1)
    found = subspace_compression_bound(snapshot, snapshot, dimension=4, subspace_seed=5, tried=3, levels=[2, 3])
    wrong = round(found["compression_train_error"].value * 300)
    outputs = snapshot.predictions[0]
    assert wrong == int((outputs[0].argmax(1) != outputs[1]).sum()) > 0  # the quantized network is the network
    code = math.comb(4 + 1, 1) * math.comb(4, 1)  # (d + k − 1)!/((k − 1)! 3! 1!)
    bits = math.log2(3) + math.log2(2) + 16 * 2 + math.log2(code)
    assert found["compression_levels"].value == 2
    assert found["compression_bits"].value == pytest.approx(bits, rel=1e-12)
    bound, rate = found["compression_bound"].value, wrong / 300
    assert bound > rate
    assert coin_kl(rate, bound) == pytest.approx((bits * math.log(2) + math.log(20)) / 300, rel=1e-6)


def test_symbols_are_coded_by_their_predictive_probabilities():
    symbols, kinds, nats = np.array([0, 2, 2, 1, 2]), 4, 0.0
    for place, symbol in enumerate(symbols):
        nats -= math.log((np.sum(symbols[:place] == symbol) + 1) / (place + kinds))
    assert symbol_nats(symbols, kinds) == pytest.approx(nats, rel=1e-12)


def test_the_codes_of_all_strings_are_probabilities():
    strings = np.array(np.meshgrid(*[range(3)] * 4)).reshape(4, -1).T
    assert sum(math.exp(-symbol_nats(each, 3)) for each in strings) == pytest.approx(1, rel=1e-12)


@pytest.mark.oracle("subspace_compression_bound")
def test_the_quantized_network_is_measured_on_other_data():
    torch.manual_seed(1)
    train, subspace = trained(torch.randn(5).tolist())
    x = torch.randn(80, 6).double()
    test = train.with_batches([(x, torch.randint(2, (80,)))])
    found = subspace_compression_bound(test, train, dimension=5, subspace_seed=5, levels=[5])
    z = subspace.coordinates(train.vector - torch.cat([t.reshape(-1) for t in train.initial.values()]))
    values = z.numpy().astype(np.float16).astype(float)  # five coordinates, five values
    origin = torch.cat([t.reshape(-1) for t in train.initial.values()])
    net = nn.Linear(6, 2).double()
    nn.utils.vector_to_parameters(origin + subspace.vector(torch.tensor(values)), net.parameters())
    wrong = float((net(x).argmax(1) != test.predictions[0][1]).double().mean())
    assert found["compression_error"].value == pytest.approx(wrong)
    assert found["compression_error_low"].value < wrong


def test_bounds_hold_on_drawn_data():
    """Of random labels no network errs less than half, whatever it fits."""
    failed = 0
    for seed in range(40):
        snapshot, _ = trained([1.0, -1.0], n=60, seed=seed)
        labels = torch.randint(2, (60,), generator=torch.Generator().manual_seed(seed))
        fitted = snapshot.with_batches([(snapshot.passes.kept[0][0], labels)])
        found = subspace_compression_bound(fitted, fitted, dimension=2, subspace_seed=5, levels=[2])
        failed += found["compression_bound"].value < 0.5
    assert failed <= 5


def test_weights_outside_of_the_subspace_are_refused():
    snapshot, _ = trained([1.0, 2.0])
    with pytest.raises(ValueError, match="of w − w⁰ lies outside of the subspace"):
        subspace_compression_bound(snapshot, snapshot, dimension=2, subspace_seed=6)


def test_undefined_and_refused():
    snapshot, _ = trained([1.0, 2.0])
    other = subspace_compression_bound(snapshot, snapshot, dimension=None, subspace_seed=0)
    assert all("not trained in a random subspace" in e.note for e in other.values())
    bare = Snapshot(snapshot.model, F.cross_entropy, snapshot.passes.kept)
    found = subspace_compression_bound(bare, bare, dimension=2, subspace_seed=5)
    assert all("no initial weights" in e.note for e in found.values())
    for name, value in {"dimension": 0, "subspace_seed": -1, "tried": 0, "levels": [1], "delta": 1.0}.items():
        settings = {"dimension": 2, "subspace_seed": 5, name: value}
        with pytest.raises(ValueError, match=rf"^{name}(\[0\])? is"):
            subspace_compression_bound(snapshot, snapshot, **settings)
