"""Barriers between members: those of their pairs, none between copies in another order, also at small losses."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from genbench.measures import (
    Snapshot,
    ensemble_connectivity,
    ensemble_curve,
    linear_mode_connectivity,
    matched_mode_connectivity,
)
from genbench.measures.precision import in_double
from genbench.measures.weight_matching import _permuted, _units
from genbench.models import MLP, Ensemble

NAMES = ("barrier", "error_barrier", "matched_barrier", "matched_error_barrier")


def networks(count, dtype=torch.float64):
    nets = []
    for seed in range(count):
        torch.manual_seed(seed)
        nets.append(MLP(input_shape=(4,), classes=3, width=6).to(dtype))
    return nets


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(9)
    return torch.randn(40, 4, generator=generator, dtype=dtype), torch.randint(3, (40,), generator=generator)


def fitted(net, x, y):
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(500):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


@pytest.mark.oracle("ensemble_connectivity")
def test_it_is_the_mean_over_pairs_without_a_common_network():
    nets, batches = networks(5), [data()]
    found = ensemble_connectivity(Snapshot(Ensemble(nets), F.cross_entropy, batches), points=7)
    apart = [Snapshot(net, F.cross_entropy, batches) for net in nets]
    pairs = [
        linear_mode_connectivity(a, b, points=7) | matched_mode_connectivity(a, b, points=7)
        for a, b in [apart[0:2], apart[2:4]]
    ]
    assert list(found) == [f"member_{name}" for name in NAMES]
    for name in NAMES:
        values = [pair[name].value for pair in pairs]
        each = found[f"member_{name}"]
        assert each.value == pytest.approx(statistics.fmean(values), abs=1e-12)
        assert each.stderr == pytest.approx(abs(values[0] - values[1]) / 2, abs=1e-12)
        assert each.converged is (True if name.startswith("matched") else None)


def test_one_pair_has_no_error():
    found = ensemble_connectivity(Snapshot(Ensemble(networks(3)), F.cross_entropy, [data()]), points=3)
    assert all(each.stderr is None and each.value is not None for each in found.values())


def test_a_member_with_its_units_in_another_order_has_a_barrier_until_it_is_matched():
    (net,) = networks(1)
    x, y = data()
    fitted(net, x, y)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    with snapshot.measuring():
        units = _units(snapshot)
    state = _permuted(snapshot.state, units, [torch.arange(each.size).flip(0) for each in units])
    twin = MLP(input_shape=(4,), classes=3, width=6).double()
    twin.load_state_dict(state)
    found = ensemble_connectivity(Snapshot(Ensemble([net, twin]), F.cross_entropy, [(x, y)]))
    assert found["member_barrier"].value > 0.1
    assert found["member_matched_barrier"].value == pytest.approx(0, abs=1e-9)
    assert found["member_matched_error_barrier"].value == 0


def test_members_of_a_network_in_another_precision_take_their_inputs_in_it():
    nets = networks(2, torch.float32)
    x, y = data(torch.float32)
    snapshot = Snapshot(Ensemble(nets), F.cross_entropy, [(x, y)])
    found, expected = ensemble_curve(in_double(snapshot)), ensemble_curve(snapshot)
    assert found["cross_entropy_of_1"].value == pytest.approx(expected["cross_entropy_of_1"].value, rel=1e-5)
    assert found["cross_entropy_of_1"].value != expected["cross_entropy_of_1"].value


def test_small_losses_are_measured():
    nets = networks(2, torch.float32)
    x, y = data(torch.float32)
    for net in nets:
        fitted(net, x, y)
    found = ensemble_connectivity(Snapshot(Ensemble(nets), F.cross_entropy, [(x, y)]), points=5)
    assert all(math.isfinite(each.value) for each in found.values())


def test_what_is_no_ensemble_has_none_and_settings_are_checked():
    net = networks(1)[0]
    (first, *_) = ensemble_connectivity(Snapshot(net, F.cross_entropy, [data()])).values()
    assert first.value is None
    assert "no members" in first.note
    (first, *_) = ensemble_connectivity(Snapshot(Ensemble([net]), F.cross_entropy, [data()])).values()
    assert first.value is None
    assert "one member" in first.note
    with pytest.raises(ValueError, match="points is 1"):
        ensemble_connectivity(Snapshot(Ensemble([net]), F.cross_entropy, [data()]), points=1)
