"""Units in the order of another network's: the same function, the best inner product, and no barrier to itself."""

from itertools import pairwise, permutations, product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.data import Digits
from genbench.measures import Snapshot, linear_mode_connectivity, match_weights, matched_mode_connectivity
from genbench.measures.weight_matching import _permuted, _units
from genbench.models import CNN, MLP
from tests.helpers.networks import build, taught


class Flat(nn.Module):
    """Convolutions, a normalization of the flattened maps, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 6, 3, bias=False)
        self.norm = nn.BatchNorm1d(24)
        self.third, self.head = nn.Linear(24, 5), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(
            self.third(self.norm(F.max_pool2d(self.second(self.first(x).relu()).relu(), 2).flatten(1))).tanh()
        )


def normed(*sizes):
    layers = []
    for size, out in pairwise(sizes):
        layers += [nn.Linear(size, out), nn.LayerNorm(out), nn.PReLU(out)]
    return nn.Sequential(*layers[:-2])


CHAINS = {
    "mlp": (lambda: build("mlp")[0], (4,)),
    "frozen": (lambda: build("frozen")[0], (4,)),
    "conv": (lambda: build("conv")[0], (2, 6)),
    "flat": (Flat, (1, 8, 8)),
    "layer_norm": (lambda: normed(4, 7, 6, 3), (4,)),
    "group_norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.GroupNorm(1, 6), nn.Flatten(), nn.Linear(24, 3)),
        (2, 6),
    ),
    "own_mlp": (lambda: MLP(input_shape=(4,), classes=3, width=9, normalization="batch_norm"), (4,)),
    "own_cnn": (lambda: CNN(input_shape=(2, 12), classes=3, width=5), (2, 12)),
}


def chain(name, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    make, shape = CHAINS[name]
    net = make().to(dtype)
    torch.manual_seed(100 + seed)  # some of them have a seed of their own
    with torch.no_grad():
        for key, buffer in net.named_buffers():
            if "running" in key:
                buffer.uniform_(0.5, 2)
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return Snapshot(net, F.cross_entropy, [(torch.randn(40, *shape, dtype=dtype), torch.arange(40) % 3)])


def shuffled(snapshot, seed=1):
    """The same function with its units in another order."""
    with snapshot.measuring():
        units = _units(snapshot)
    generator = torch.Generator().manual_seed(seed)
    return _permuted(snapshot.state, units, [torch.randperm(each.size, generator=generator) for each in units])


@pytest.mark.oracle("matched_mode_connectivity")
@pytest.mark.parametrize("name", CHAINS)
def test_a_network_is_matched_to_a_permutation_of_its_own_units(name):
    snapshot = chain(name)
    state = shuffled(snapshot)
    assert any(not torch.equal(state[key], own) for key, own in snapshot.state.items())
    other = snapshot.with_state(state)
    assert other.mean_loss == pytest.approx(snapshot.mean_loss, rel=1e-12)
    found = matched_mode_connectivity(snapshot, state)
    assert found["matched_barrier"].value == pytest.approx(0, abs=1e-12)
    assert found["matched_error_barrier"].value == pytest.approx(0, abs=1e-12)
    assert found["matched_barrier"].converged
    again = match_weights(snapshot, other)
    assert again.keys() == snapshot.state.keys()
    assert all(torch.equal(again[key], own) for key, own in snapshot.state.items())


@pytest.mark.parametrize("name", CHAINS)
def test_matching_keeps_the_function_of_the_other_network(name):
    ours, theirs = chain(name), chain(name, seed=7)
    state = match_weights(ours, theirs)
    assert all(sorted(state[k].flatten().tolist()) == sorted(t.flatten().tolist()) for k, t in theirs.state.items())
    assert ours.with_state(state).mean_loss == pytest.approx(ours.with_state(theirs.state).mean_loss, rel=1e-10)
    weights = [key for key, _ in ours.model.named_parameters()]

    def overlap(other):
        return sum(float((ours.state[key] * other[key]).sum()) for key in weights)

    assert overlap(state) > overlap(theirs.state)
    assert match_weights(ours, state).keys() == state.keys()
    assert overlap(match_weights(ours, state)) >= overlap(state) - 1e-9


@pytest.mark.oracle("matched_mode_connectivity")
def test_the_best_of_all_permutations():
    """Of one hidden layer it is found; of two, a local optimum that no change of one layer improves."""
    for sizes in ((3, 5, 2), (3, 4, 4, 2)):
        nets = []
        for seed in range(2):
            torch.manual_seed(seed)
            layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
            nets.append(nn.Sequential(*[m for layer in layers for m in (layer, nn.Tanh())][:-1]).double())
        with torch.no_grad():
            for p in (*nets[0].parameters(), *nets[1].parameters()):
                p.mul_(2)  # less convex between them
        x = torch.randn(20, 3).double()
        ours, theirs = (Snapshot(net, F.cross_entropy, [(x, nets[0](x).argmax(1))]) for net in nets)
        with ours.measuring():
            units = _units(ours)

        def overlap(state, ours=ours):
            return sum(float((own * state[key]).sum()) for key, own in ours.parameters.items())

        every = [[torch.tensor(order) for order in permutations(range(size))] for size in sizes[1:-1]]
        best = max((_permuted(theirs.state, units, orders) for orders in product(*every)), key=overlap)
        found = match_weights(ours, theirs)
        if len(units) == 1:
            assert overlap(found) == pytest.approx(overlap(best), rel=1e-12)
            barriers = linear_mode_connectivity(ours, best), matched_mode_connectivity(ours, theirs)
            exact, matched = ([e.value for e in each.values()] for each in barriers)
            assert matched == pytest.approx(exact, rel=1e-12)
            assert matched[0] > 0.01 > linear_mode_connectivity(ours, theirs)["barrier"].value  # another number
        else:
            assert overlap(found) <= overlap(best) + 1e-9
            for own, orders in zip(units, every, strict=True):
                assert max(overlap(_permuted(found, [own], [order])) for order in orders) <= overlap(found) + 1e-9


def test_trained_networks_are_nearer_after_matching():
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        nets.append(taught(nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))))
    data = [Digits().tensors("train")]
    ours, theirs = (Snapshot(net, F.cross_entropy, data) for net in nets)
    plain = linear_mode_connectivity(ours, theirs, points=11)
    found = matched_mode_connectivity(ours, theirs, points=11)
    assert 0 <= found["matched_barrier"].value < 0.5 * plain["barrier"].value
    assert found["matched_error_barrier"].value <= plain["error_barrier"].value
    seeds = {matched_mode_connectivity(ours, theirs, points=11, seed=s)["matched_barrier"].value for s in range(3)}
    assert len(seeds) == 1  # one hidden layer has no order of layers


def test_what_ends_before_it_converges():
    torch.manual_seed(0)
    sizes = [4, 12, 12, 12, 3]
    nets = [nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(sizes)]).double() for _ in range(2)]
    x, y = torch.randn(20, 4).double(), torch.arange(20) % 3
    ours, theirs = (Snapshot(net, F.cross_entropy, [(x, y)]) for net in nets)
    assert not matched_mode_connectivity(ours, theirs, sweeps=1)["matched_barrier"].converged
    assert matched_mode_connectivity(ours, theirs)["matched_barrier"].converged


def test_no_chain_is_undefined_with_the_reason():
    def note(snapshot, other=None):
        found = matched_mode_connectivity(snapshot, snapshot if other is None else other)["matched_barrier"]
        assert found.value is None
        assert found.note.startswith("undefined: "), found.note
        return found.note.removeprefix("undefined: ")

    def of(net, *shape, dtype=torch.float32):
        return Snapshot(net.to(dtype), F.cross_entropy, [(torch.randn(12, *shape, dtype=dtype), torch.arange(12) % 3)])

    torch.manual_seed(0)
    residual = MLP(input_shape=(4,), classes=3, width=8, depth=3, residual=True)
    assert "the outputs change when the units of" in note(of(residual, 4))
    groups = nn.Sequential(nn.Conv1d(2, 6, 3), nn.GroupNorm(3, 6), nn.Flatten(), nn.Linear(24, 3))
    with torch.no_grad():
        groups[1].weight.normal_()
    assert "the outputs change when the units of 0 are permuted" in note(of(groups, 2, 6))
    assert note(of(nn.Linear(4, 3), 4)) == "the network has no hidden layer of a linear layer or convolution"
    twice = nn.Linear(4, 4)
    assert note(of(nn.Sequential(twice, nn.ReLU(), twice, nn.Linear(4, 3)), 4)) == "0 is called several times"
    norm = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 3))
    assert note(of(norm, 4)) == "0.weight is computed from other tensors"
    for name in ("gru", "attention", "tied"):
        net, x, y = build(name)
        assert note(Snapshot(net, F.cross_entropy, [(x, y)]))
    plain = of(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), 4)
    assert matched_mode_connectivity(plain)["matched_barrier"].note == "undefined: no other network"
    linear = of(nn.Linear(4, 3), 4)
    with pytest.raises(ValueError, match=r"no hidden layer .*; accepted: a chain of linear layers and convolutions"):
        match_weights(linear, linear)
    with pytest.raises(ValueError, match="state has no"):
        matched_mode_connectivity(plain, {})
    for setting, wrong in (("points", 1), ("sweeps", 0), ("seed", -1)):
        with pytest.raises(ValueError, match=f"^{setting} is"):
            matched_mode_connectivity(plain, plain, **{setting: wrong})


class Scaled(nn.Module):
    """A scale of the hidden units that belongs to no layer, and a residual branch."""

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale, self.residual = nn.Parameter(torch.ones(6)), residual

    def forward(self, x):
        h = self.first(x).relu()
        return self.head(h + self.branch(h).relu() if self.residual else self.branch(h * self.scale).relu())


@pytest.mark.parametrize("residual", [False, True])
def test_units_that_only_the_other_network_cannot_permute(residual):
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    ours, theirs = Scaled(residual=residual), Scaled(residual=residual)
    with torch.no_grad():
        ours.head.weight.mul_(0 if residual else 1)  # as many start training: no permutation changes the outputs
        theirs.scale.uniform_(0.5, 2)
    pair = [Snapshot(net, F.cross_entropy, [(x, y)]) for net in (ours, theirs)]
    for one, other in (pair, reversed(pair)):
        for estimate in matched_mode_connectivity(one, other).values():
            assert estimate.value is None
            assert "undefined: the outputs change when the units of" in estimate.note
        with pytest.raises(ValueError, match="the outputs change when the units of"):
            match_weights(one, other)


def test_single_precision_and_other_forms_of_batches():
    for name in CHAINS:
        snapshot = chain(name, torch.float32)
        assert matched_mode_connectivity(snapshot, shuffled(snapshot))["matched_barrier"].value == pytest.approx(
            0, abs=1e-6
        )
    net, x, y = build("mlp")
    dicts = Snapshot(net, F.cross_entropy, [{"x": x, "y": y}], forward=lambda m, b: (m(b["x"]), b["y"]))
    assert matched_mode_connectivity(dicts, shuffled(dicts))["matched_barrier"].value == pytest.approx(0, abs=1e-12)
