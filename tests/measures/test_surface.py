"""Slices of known surfaces, paths between networks, and what filter normalization leaves unchanged."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import Snapshot, accuracy, interpolation, linear_mode_connectivity, loss_line, loss_plane
from genbench.measures.curvature import hessian_eigenvectors
from genbench.measures.surface import filter_normalize
from tests.helpers.networks import NETS, Vector, build, dense_hessian, quadratic


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(*eigenvalues):
    q = torch.linalg.qr(gaussian(len(eigenvalues), len(eigenvalues)))[0]
    return q, q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def wells(w, height=3.0):
    """h·(1 − w²)² in the first coordinate: minima at ±1, the top of the barrier at 0."""
    batches = [(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2))]
    return Snapshot(Vector(w.clone()), lambda out, _: height * (1 - out[:, 0] ** 2).square().mean(), batches)


# -- lines


def test_a_line_of_a_quadratic_is_its_parabola():
    _, h = rotated(5, 2, 1, -0.5)
    w, d = gaussian(4, seed=1), gaussian(4, seed=2)
    found = loss_line(Snapshot(*quadratic(h, w)), direction=d, points=11, reach=2.0)
    t = np.linspace(-2, 2, 11)
    np.testing.assert_allclose(found.coordinates, t, atol=1e-15)
    # ½(w + td)ᵀH(w + td), expanded
    a, b, c = float(d @ h @ d) / 2, float(w @ h @ d), float(w @ h @ w) / 2
    np.testing.assert_allclose(found.loss, a * t**2 + b * t + c, rtol=1e-12)
    assert found.accuracy is None
    assert found.note is None


@pytest.mark.parametrize("i", [0, 1, 2])
def test_along_an_eigenvector_the_curvature_is_its_eigenvalue(i):
    q, h = rotated(5, 2, 0.5)
    found = loss_line(Snapshot(*quadratic(h)), direction=q[:, i], points=3, reach=0.1)
    assert (found.loss[0] - 2 * found.loss[1] + found.loss[2]) / 0.1**2 == pytest.approx([5, 2, 0.5][i], rel=1e-10)


def test_hessian_directions_of_a_network_are_those_of_its_dense_hessian():
    net, x, y = build("mlp")
    expected = torch.linalg.eigvalsh(dense_hessian(net, x, y)).flip(0)
    found = loss_line(Snapshot(net, F.cross_entropy, [(x, y)]), direction="hessian", points=3, reach=1e-3)
    second = (found.loss[0] - 2 * found.loss[1] + found.loss[2]) / 1e-6
    assert second == pytest.approx(float(expected[0]), rel=1e-3)
    assert found.axis == f"eigenvector of λ₁ = {expected[0]:.4g}"


def test_the_middle_is_the_network_itself():
    for name in NETS:
        net, x, y = build(name)
        snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
        for found in (loss_line(snapshot, points=5), loss_line(snapshot, points=5, filter_normalized=False)):
            assert found.coordinates[2] == 0
            assert found.loss[2] == snapshot.mean_loss
            assert found.accuracy[2] == accuracy(snapshot).value
            assert (found.coordinates == -found.coordinates[::-1]).all()
            assert len(set(found.loss)) == 5


def test_a_random_direction_has_unit_length_without_normalization():
    # an isotropic quadratic measures the distance
    found = loss_line(Snapshot(*quadratic(torch.eye(7).double())), filter_normalized=False, points=5, reach=3.0)
    np.testing.assert_allclose(found.loss, found.coordinates**2 / 2, rtol=1e-12)


def test_seeds():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    one, same, two = (loss_line(snapshot, points=3, seed=seed).loss for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one[[0, 2]] != two[[0, 2]]).all()


# -- planes


def test_a_plane_of_a_quadratic_is_its_form():
    _, h = rotated(5, 2, 1, -0.5)
    w, first, second = gaussian(4, seed=1), gaussian(4, seed=2), gaussian(4, seed=3)
    found = loss_plane(Snapshot(*quadratic(h, w)), directions=(first, second), points=5, reach=0.5)
    assert found.loss.shape == (5, 5)
    for row, y in enumerate(np.linspace(-0.5, 0.5, 5)):
        for column, x in enumerate(np.linspace(-0.5, 0.5, 5)):
            v = w + x * first + y * second
            assert found.loss[row, column] == pytest.approx(float(v @ h @ v) / 2, rel=1e-12)


def test_a_plane_of_the_top_eigenvectors_is_diagonal():
    _, h = rotated(5, 2, 1, 0.5)
    found = loss_plane(Snapshot(*quadratic(h)), directions="hessian", points=5, reach=1.0)
    np.testing.assert_allclose(found.loss, (5 * found.x[None] ** 2 + 2 * found.y[:, None] ** 2) / 2, atol=1e-9)
    assert found.axes == ("eigenvector of λ₁ = 5", "eigenvector of λ₂ = 2")


def test_a_plane_holds_the_line_and_its_two_random_directions_differ():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    plane, line = loss_plane(snapshot, points=5, seed=3), loss_line(snapshot, points=5, seed=3)
    assert (plane.loss[2] == line.loss).all()
    assert (plane.accuracy[2] == line.accuracy).all()
    assert (plane.loss[[0, 1, 3, 4], 2] != line.loss[[0, 1, 3, 4]]).all()


# -- filter normalization


@pytest.mark.parametrize("name", NETS)
def test_filters_get_the_norm_of_the_networks(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    pieces = filter_normalize(snapshot, gaussian(snapshot.size)).split(
        [p.numel() for p in snapshot.parameters.values()]
    )
    assert {p.ndim for p in snapshot.parameters.values()} >= {1, 2}
    for d, p in zip(pieces, snapshot.parameters.values(), strict=True):
        if p.ndim == 1:
            assert not d.any()
        else:
            for row, own in zip(d.reshape(p.shape), p, strict=True):
                assert math.sqrt(float((row**2).sum())) == pytest.approx(math.sqrt(float((own**2).sum())), rel=1e-12)


def test_a_filter_of_zeros_stays_and_the_direction_is_kept():
    net, x, y = build("mlp")
    with torch.no_grad():
        net[0].weight[1] = 0
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    direction = gaussian(snapshot.size)
    direction[8:12] = 0  # filter 2 of the first layer has no direction
    rows = filter_normalize(snapshot, direction)[:24].reshape(6, 4)
    assert not rows[1].any()
    assert not rows[2].any()
    assert F.cosine_similarity(rows[0], direction[:4], dim=0) == pytest.approx(1, rel=1e-12)


def scaled(net, x, y, change):
    with torch.no_grad():
        change(net)
    return loss_line(Snapshot(net, F.cross_entropy, [(x, y)]), points=7, seed=1).loss


def layerwise(factor):
    def change(net):
        net[0].weight *= factor
        net[0].bias *= factor
        net[2].weight /= factor

    return change


def unitwise(factor):
    def change(net):
        net[0].weight[2] *= factor
        net[0].bias[2] *= factor
        net[2].weight[:, 2] /= factor

    return change


@pytest.mark.parametrize(("factor", "tolerance"), [(4.0, 0), (0.125, 0), (3.7, 1e-10)])
def test_scaling_a_relu_layer_changes_nothing_and_a_unit_does(factor, tolerance):
    # powers of two are exact in floating point, so the values may not change by a bit
    before = scaled(*build("mlp"), lambda net: None)
    np.testing.assert_allclose(scaled(*build("mlp"), layerwise(factor)), before, rtol=tolerance)
    other = scaled(*build("mlp"), unitwise(factor))
    assert other[3] == pytest.approx(before[3], rel=1e-12)  # the same function
    assert np.abs(other / before - 1).max() > 1e-3


@pytest.mark.parametrize("factor", [4.0, 3.7])
def test_scaling_a_filter_before_batch_normalization_changes_nothing(factor):
    def change(net):
        net[0].weight[1] *= factor
        net[1].running_mean[1] *= factor
        net[1].running_var[1] *= factor**2

    lines = []
    for act in (lambda net: None, change):
        net, x, y = build("conv")
        net[1].eps = 0.0  # it alone is not scaled
        lines.append(scaled(net, x, y, act))
    np.testing.assert_allclose(lines[1], lines[0], rtol=1e-12)


def test_without_normalization_scaling_a_layer_matters():
    lines = []
    for change in (lambda net: None, layerwise(4.0)):
        net, x, y = build("mlp")
        with torch.no_grad():
            change(net)
        snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
        lines.append(loss_line(snapshot, points=5, filter_normalized=False).loss)
    assert np.abs(lines[1] / lines[0] - 1).max() > 1e-2


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(6)))
def test_permuted_units_with_the_direction_permuted_alike(order):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    d = gaussian(snapshot.size)
    before = loss_line(snapshot, direction=filter_normalize(snapshot, d), points=3).loss
    pieces = dict(zip(snapshot.parameters, d.split([p.numel() for p in snapshot.parameters.values()]), strict=True))
    with torch.no_grad():
        for name, axis in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
            p = dict(net.named_parameters())[name]
            pieces[name] = pieces[name].reshape(p.shape).index_select(axis, torch.tensor(order)).reshape(-1)
            p.copy_(p.index_select(axis, torch.tensor(order)))
    after = Snapshot(net, F.cross_entropy, [(x, y)])
    line = loss_line(after, direction=filter_normalize(after, torch.cat(list(pieces.values()))), points=3)
    np.testing.assert_allclose(line.loss, before, rtol=1e-12)


# -- between networks


@pytest.mark.oracle("linear_mode_connectivity")
def test_the_barrier_of_a_double_well():
    found = linear_mode_connectivity(
        wells(torch.tensor([1.0, 0.3]).double()), {"w": torch.tensor([-1.0, 0.7]).double()}, points=25
    )
    assert found["barrier"].value == pytest.approx(3.0, rel=1e-12)  # the height at the middle, 0 at both ends
    assert found["error_barrier"].value is None
    assert found["error_barrier"].note.startswith("undefined: the targets are no class labels")


@pytest.mark.oracle("linear_mode_connectivity")
def test_a_barrier_stands_on_the_line_between_its_ends():
    # L = 3(1 − w²)² from w = 1 (loss 0) to w = −1.5 (loss 4.6875), at the same nine points
    t = np.linspace(0, 1, 9)
    expected = (3 * (1 - (1 - 2.5 * t) ** 2) ** 2 - 4.6875 * t).max()
    assert 0.5 < expected < 2
    there = {"w": torch.tensor([-1.5, 0.0]).double()}
    found = linear_mode_connectivity(wells(torch.tensor([1.0, 0.0]).double()), there, points=9)["barrier"]
    assert found.value == pytest.approx(expected, rel=1e-12)


def test_a_convex_loss_has_no_barrier():
    _, h = rotated(5, 2, 1)
    path = {"w": gaussian(3, seed=4)}
    assert linear_mode_connectivity(Snapshot(*quadratic(h, gaussian(3))), path)["barrier"].value == 0
    _, x, y = build("mlp")
    linear, other = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    snapshot = Snapshot(linear, F.cross_entropy, [(x, y)])
    assert linear_mode_connectivity(snapshot, other.state_dict())["barrier"].value == 0


@pytest.mark.oracle("linear_mode_connectivity")
def test_the_error_barrier_of_a_classifier_that_breaks_halfway():
    # the logits w and −w of the two ends cancel in the middle, where argmax takes the first class
    x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]).double()
    y = torch.tensor([0, 1, 0, 1])

    class Hidden(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.a = nn.Parameter(torch.tensor([float(sign)]).double())
            self.b = nn.Parameter(torch.tensor([float(sign)]).double())

        def forward(self, x):
            z = self.a * self.b * x
            return torch.cat([z, -z], 1)

    found = linear_mode_connectivity(Snapshot(Hidden(1), F.cross_entropy, [(x, y)]), Hidden(-1).state_dict(), points=5)
    # at t = ½ the logits are 0: half of the answers are right, and the loss is log 2
    assert found["error_barrier"].value == 0.5
    ends = np.log1p(np.exp(-2 * np.array([1, 1, 2, 2]))).mean()
    assert found["barrier"].value == pytest.approx(math.log(2) - ends, rel=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_the_ends_are_the_two_networks(name):
    net, x, y = build(name)
    other, _, _ = build(name, seed=1)
    here, there = Snapshot(net, F.cross_entropy, [(x, y)]), Snapshot(other, F.cross_entropy, [(x, y)])
    assert here.mean_loss != there.mean_loss
    for target in (there, other.state_dict()):
        path = interpolation(here, target, points=4)
        assert (path.loss[0], path.loss[-1]) == (here.mean_loss, there.mean_loss)
        assert (path.accuracy[0], path.accuracy[-1]) == (accuracy(here).value, accuracy(there).value)
    np.testing.assert_allclose(interpolation(there, here, points=4).loss, path.loss[::-1], rtol=1e-12)


@pytest.mark.parametrize("name", ["conv", "frozen"])
def test_buffers_and_frozen_parameters_lie_between_as_well(name):
    net, x, y = build(name)
    other, _, _ = build(name, seed=1)
    middle, _, _ = build(name)
    with torch.no_grad():
        for key, tensor in middle.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_((net.state_dict()[key] + 3 * other.state_dict()[key]) / 4)
    path = interpolation(Snapshot(net, F.cross_entropy, [(x, y)]), other.state_dict(), points=5)
    assert path.loss[3] == pytest.approx(Snapshot(middle, F.cross_entropy, [(x, y)]).mean_loss, rel=1e-12)


def test_a_permuted_copy_is_the_same_function_behind_a_barrier():
    net, x, y = build("mlp")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    state = {k: v.clone() for k, v in net.state_dict().items()}
    for key, axis in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        state[key] = state[key].index_select(axis, order)
    path = interpolation(snapshot, state)
    assert path.loss[-1] == pytest.approx(path.loss[0], rel=1e-10)
    barrier = linear_mode_connectivity(snapshot, state)["barrier"].value
    assert barrier == pytest.approx(path.loss.max() - path.loss[0], rel=1e-6)
    assert barrier > 0.1


def test_from_the_initial_weights():
    net, x, y = build("mlp")
    start, _, _ = build("mlp", seed=1)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=start.state_dict())
    assert (interpolation(snapshot).loss == interpolation(snapshot, start.state_dict()).loss).all()
    assert linear_mode_connectivity(snapshot)["barrier"].value >= 0
    alone = Snapshot(net, F.cross_entropy, [(x, y)])
    assert linear_mode_connectivity(alone)["barrier"].note == "undefined: no other network and no initial weights"
    with pytest.raises(ValueError, match="no initial weights; accepted"):
        interpolation(alone)


# -- data and values


def test_batch_splits_agree():
    net, x, y = build("conv")
    other, _, _ = build("conv", seed=1)
    whole = Snapshot(net, F.cross_entropy, [(x, y)])
    parts = Snapshot(net, F.cross_entropy, list(zip(x.split(7), y.split(7), strict=True)))
    for found, expected in (
        (loss_line(parts, points=5), loss_line(whole, points=5)),
        (loss_line(parts, direction="hessian", points=5), loss_line(whole, direction="hessian", points=5)),
        (loss_plane(parts, points=3), loss_plane(whole, points=3)),
        (interpolation(parts, other.state_dict()), interpolation(whole, other.state_dict())),
    ):
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9)
        assert (found.accuracy == expected.accuracy).all()


def test_positions_count_as_examples():
    torch.manual_seed(0)
    net = nn.Conv1d(2, 3, 1).double()
    x, y = torch.randn(5, 2, 4).double(), torch.randint(3, (5, 4))
    found = loss_line(Snapshot(net, F.cross_entropy, [(x, y)]), points=3)
    assert found.accuracy[1] == float((net(x).argmax(1) == y).double().mean())


def test_a_loss_that_is_not_finite_is_a_gap():
    model, _, batches = quadratic(torch.eye(2).double())
    snapshot = Snapshot(model, lambda out, _: torch.exp(400 * out.square().sum(1)).mean(), batches)
    line = loss_line(snapshot, direction=torch.tensor([1.0, 0.0]), points=5, reach=2.0)
    assert np.isnan(line.loss).tolist() == [True, False, False, False, True]
    assert line.note == "the loss is not finite at 2 of 5 points"
    plane = loss_plane(snapshot, directions=(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])), points=3, reach=2.0)
    assert plane.note == "the loss is not finite at 8 of 9 points"
    walled = Snapshot(model, lambda out, _: (1 / (out[:, 0] + 1)).mean(), batches)
    found = linear_mode_connectivity(walled, {"w": torch.tensor([-2.0, 0.0]).double()}, points=3)["barrier"]
    assert found.note == "undefined: the loss is not finite at 1 of 3 points"


def test_measuring_a_line_between_networks_changes_neither():
    net, x, y = build("conv")
    other, _, _ = build("conv", seed=1)
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in (net, other)]
    net.train()
    here = Snapshot(net, F.cross_entropy, [(x, y)])
    loss = here.mean_loss
    interpolation(here, Snapshot(other, F.cross_entropy, [(x, y)]))
    assert here.loss_at(here.vector) == loss
    assert net.training
    for n, state in zip((net, other), before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in n.state_dict().items())


def test_a_later_change_of_the_other_state_changes_nothing():
    net, x, y = build("conv")
    other, _, _ = build("conv", seed=1)
    view = Snapshot(net, F.cross_entropy, [(x, y)]).with_state(other.state_dict())
    loss = Snapshot(other, F.cross_entropy, [(x, y)]).mean_loss
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    assert view.mean_loss == loss


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("2.bias"), "state has no '2.bias'; accepted: a state dict of the same architecture"),
        (lambda state: state.update({"2.bias": torch.zeros(7)}), r"'2.bias' in shape \(7,\); accepted: \(5,\)"),
        (lambda state: state["2.bias"].fill_(math.nan), "weights '2.bias' are not finite"),
    ],
)
def test_another_architecture(change, match):
    net, x, y = build("mlp")
    state = {k: v.clone() for k, v in net.state_dict().items()}
    change(state)
    for function in (interpolation, linear_mode_connectivity):
        with pytest.raises(ValueError, match=match):
            function(Snapshot(net, F.cross_entropy, [(x, y)]), state)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"points": 1}, "points is 1; accepted: an integer of at least 2"),
        ({"reach": 0}, "reach is 0; accepted: a number > 0"),
        ({"reach": math.inf}, "reach is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"filter_normalized": "yes"}, "filter_normalized is 'yes'; accepted: true, false"),
        ({"direction": "gradient"}, "direction is 'gradient'; accepted: random, hessian"),
        ({"direction": torch.zeros(3)}, r"direction: \(3,\); accepted: 1 of shape \(83,\), or random, hessian"),
        ({"direction": torch.full((83,), math.nan)}, "direction: not finite"),
    ],
)
def test_bad_settings(bad, match):
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    with pytest.raises(ValueError, match=match):
        loss_line(snapshot, **bad)
    plane = {f"{key}s" if key == "direction" else key: value for key, value in bad.items()}
    with pytest.raises(ValueError, match=match.partition(" ")[0].rstrip(":")):
        loss_plane(snapshot, **plane)


def test_hessian_eigenvectors_are_those_of_the_plane():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    _, vectors = hessian_eigenvectors(snapshot, k=2)
    plane = loss_plane(snapshot, directions=(vectors[0], vectors[1]), points=3)
    assert (loss_plane(snapshot, directions="hessian", points=3).loss == plane.loss).all()


def test_ignored_labels_are_left_out_of_both_barriers():
    net, x, y = build("mlp")
    other, *_ = build("mlp")
    with torch.no_grad():
        other[0].weight.mul_(-1)
    ignored = torch.cat([torch.tensor([-100]), y[1:]])
    found, exact = (
        linear_mode_connectivity(Snapshot(net, F.cross_entropy, [batch]), other.state_dict())
        for batch in ((x, ignored), (x[1:], y[1:]))
    )
    for name in ("barrier", "error_barrier"):
        assert found[name].value == pytest.approx(exact[name].value, rel=1e-5)
    assert exact["error_barrier"].value > 0
