"""Dimensions of clouds that are known, collapse by hand, and what similarity does not see."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genbench.measures import (
    Snapshot,
    effective_rank,
    intrinsic_dimension,
    linear_cka,
    neural_collapse,
    participation_ratio,
)
from genbench.models import Ensemble
from tests.helpers.networks import NETS, build

QUICK = settings(max_examples=20, deadline=None)
ALL = [effective_rank, participation_ratio, intrinsic_dimension, neural_collapse, linear_cka]


def carrier(features: torch.Tensor, labels: torch.Tensor | None = None, *, split: int | None = None) -> Snapshot:
    """A network whose penultimate features are ``features`` [N, D]."""
    d = features.shape[1]
    net = nn.Sequential(nn.Linear(d, d, bias=False), nn.Linear(d, 2)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(d))
    y = torch.arange(len(features)) % 2 if labels is None else labels
    size = split or len(y)
    batches = list(zip(features.double().split(size), y.split(size), strict=True))
    return Snapshot(net, lambda output, _: output.square().mean(), batches)


def value(found) -> float | None:
    return next(iter(found.values())).value if isinstance(found, dict) else found.value


def values(found) -> dict[str, float | None]:
    return {k: e.value for k, e in (found if isinstance(found, dict) else {"value": found}).items()}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(d: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(randn(d, d, seed=seed))[0]


def with_singular_values(singular: list[float], n: int, d: int, *, centred: bool = False) -> torch.Tensor:
    u = randn(n, len(singular))
    u = torch.linalg.qr(u - u.mean(0) if centred else u)[0]
    return u @ torch.diag(torch.tensor(singular, dtype=torch.float64)) @ orthogonal(d)[: len(singular)]


# -- rank and participation


@pytest.mark.oracle("effective_rank")
@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (6, 6)])
def test_effective_rank_of_known_singular_values(n, d):
    assert value(effective_rank(carrier(with_singular_values([2.0] * 5, n, d)))) == pytest.approx(5, rel=1e-9)
    assert value(effective_rank(carrier(with_singular_values([7.0], n, d)))) == pytest.approx(1, rel=1e-6)
    # shares ½, ¼, ¼: exp(1½ log 2)
    found = value(effective_rank(carrier(with_singular_values([6.0, 3, 3], n, d))))
    assert found == pytest.approx(2**1.5, rel=1e-9)


@pytest.mark.oracle("participation_ratio")
@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (7, 7)])
def test_participation_of_known_eigenvalues(n, d):
    cloud = with_singular_values([2.0] * 5, n, d, centred=True)
    assert value(participation_ratio(carrier(cloud))) == pytest.approx(5, rel=1e-9)
    # λ ∝ 4, 1, 1: 36 / 18
    cloud = with_singular_values([2.0, 1, 1], n, d, centred=True) + randn(d)
    assert value(participation_ratio(carrier(cloud))) == pytest.approx(2, rel=1e-9)


def test_the_mean_is_a_direction_of_the_rank_but_not_of_the_covariance():
    cloud = with_singular_values([1.0, 1, 1], 40, 6, centred=True)
    moved = cloud + 1000
    assert value(participation_ratio(carrier(moved))) == pytest.approx(3, rel=1e-9)
    assert value(effective_rank(carrier(cloud))) == pytest.approx(3, rel=1e-9)
    assert value(effective_rank(carrier(moved))) < 1.1


@QUICK
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_rotated_and_scaled_features_have_the_same_dimensions(seed, factor):
    x = randn(30, 5, seed=seed) * torch.tensor([3.0, 2, 1, 1, 0.1])
    turned = factor * x @ orthogonal(5, seed)
    for function in (effective_rank, participation_ratio, intrinsic_dimension, neural_collapse):
        assert value(function(carrier(turned))) == pytest.approx(value(function(carrier(x))), rel=1e-8)
    stretched = x * torch.tensor([1.0, 1, 1, 1, 100])
    for function in (effective_rank, participation_ratio):
        assert abs(value(function(carrier(stretched))) / value(function(carrier(x))) - 1) > 1e-3


# -- TwoNN


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_dimension_of_a_gaussian_cloud_in_twenty(d):
    cloud = randn(2000, d) @ orthogonal(20)[:d]
    found = intrinsic_dimension(carrier(cloud))["intrinsic_dimension"]
    assert abs(found.value - d) < 3 * found.stderr + 0.05 * d  # the bias of curvature in ten dimensions
    assert found.stderr < 0.04 * d


def flat_torus(d: int, n: int, seed: int) -> torch.Tensor:
    angle = 2 * math.pi * torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("d", [1, 2])
def test_dimension_coverage(d):
    found = [intrinsic_dimension(carrier(flat_torus(d, 200, s)))["intrinsic_dimension"] for s in range(200)]
    covered = sum(abs(e.value - d) <= 2 * e.stderr for e in found)
    assert 0.90 <= covered / 200 <= 0.99
    spread = np.std([e.value for e in found])
    assert np.mean([e.stderr for e in found]) == pytest.approx(spread, rel=0.15)
    assert np.mean([e.value for e in found]) == pytest.approx(d, rel=0.03)


@pytest.mark.oracle("intrinsic_dimension")
def test_dimension_against_a_naive_oracle():
    x = randn(60, 4)
    logs = []
    for i, a in enumerate(x):
        first, second = sorted(float((a - b).square().sum()) for j, b in enumerate(x) if j != i)[:2]
        logs.append(math.log(second / first) / 2)
    logs.sort()
    expected = 53 / (sum(logs[:54]) + 6 * logs[53])
    assert value(intrinsic_dimension(carrier(x))) == pytest.approx(expected, rel=1e-9)
    assert value(intrinsic_dimension(carrier(x), discard=0)) == pytest.approx(59 / sum(logs), rel=1e-9)


def test_discarded_ratios_do_not_count():
    x = torch.cat([randn(100, 2), 1e6 + torch.arange(2)[:, None] * randn(1, 2)])  # a pair far from all others
    assert value(intrinsic_dimension(carrier(x))) == pytest.approx(2, rel=0.25)
    assert value(intrinsic_dimension(carrier(x), discard=0)) < 0.9 * value(intrinsic_dimension(carrier(x)))


def test_equal_rows_count_once():
    x = randn(50, 3)
    once = intrinsic_dimension(carrier(x))["intrinsic_dimension"]
    thrice = intrinsic_dimension(carrier(torch.cat([x, x, x[:9]])))["intrinsic_dimension"]
    assert (thrice.value, thrice.stderr) == (once.value, once.stderr)
    for few in (torch.ones(20, 3), torch.cat([randn(4, 3)] * 5)):
        found = intrinsic_dimension(carrier(few))["intrinsic_dimension"]
        assert found.value is None
        assert "different examples" in found.note
    grid = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0))
    assert "equally far" in intrinsic_dimension(carrier(grid))["intrinsic_dimension"].note


def test_small_distances_far_from_the_origin():
    x = randn(100, 3)
    moved = 1e3 * torch.ones(3, dtype=torch.float64) + 1e-6 * x
    assert value(intrinsic_dimension(carrier(moved))) == pytest.approx(value(intrinsic_dimension(carrier(x))), rel=1e-3)


def test_a_bounded_number_of_examples():
    x = randn(90, 3)
    assert value(intrinsic_dimension(carrier(x), examples=30)) == value(intrinsic_dimension(carrier(x[::3])))


@pytest.mark.parametrize("setting", [{"examples": 4}, {"examples": 5.0}, {"discard": 1}, {"discard": -0.1}])
def test_settings(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is"):
        intrinsic_dimension(carrier(randn(9, 2)), **setting)


# -- collapse


@pytest.mark.oracle("neural_collapse")
def test_two_classes_by_hand():
    # class 0: (±1, 3), class 1: (±2, −3) in the first coordinate, apart in the second
    x = torch.tensor([[1.0, 3], [-1, 3], [2, -3], [-2, -3]])
    y = torch.tensor([0, 0, 1, 1])
    assert neural_collapse(carrier(x, y)).value == pytest.approx(0, abs=1e-15)  # spread across is no spread along
    # along: class 0 at 3 ± 1, class 1 at −3 ± 2; Σ_W = (1 + 4)/2, Σ_B = 9, K = 2
    assert neural_collapse(carrier(torch.tensor([[4.0], [2], [-1], [-5]]), y)).value == pytest.approx(2.5 / 9 / 2)


def naive_collapse(x: torch.Tensor, y: torch.Tensor) -> float:
    x, classes = x.numpy(), y.unique().tolist()
    means = [x[y.numpy() == k].mean(0) for k in classes]
    centre = np.mean(means, 0)
    within = np.mean([np.cov(x[y.numpy() == k].T, bias=True) for k in classes], 0)
    between = np.mean([np.outer(m - centre, m - centre) for m in means], 0)
    return float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(classes))


@pytest.mark.oracle("neural_collapse")
@QUICK
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(2, 8))
def test_collapse_against_the_pseudoinverse(seed, k, d):
    x, y = randn(40, d, seed=seed), torch.arange(40) % k
    x = x + 10 * randn(k, d, seed=seed + 1)[y]
    y = torch.cat([y, torch.zeros(9, dtype=torch.long)]) + 3  # unequal classes, labels not from 0
    x = torch.cat([x, randn(9, d, seed=seed + 2)])
    assert neural_collapse(carrier(x, y)).value == pytest.approx(naive_collapse(x, y), rel=1e-8)


def test_collapsed_features():
    y = torch.arange(40) % 4
    means = 0.1 + randn(4, 6)
    assert neural_collapse(carrier(means[y], y)).value == pytest.approx(0, abs=1e-25)
    spread = [neural_collapse(carrier(means[y] + s * randn(40, 6, seed=1), y)).value for s in (1e-3, 1e-2)]
    assert spread[1] == pytest.approx(100 * spread[0], rel=0.1)


def test_classes_weigh_equally():
    x, y = torch.tensor([[4.0], [2], [-1], [-5]]), torch.tensor([0, 0, 1, 1])
    more = torch.cat([x, x[:2], x[:2]]), torch.cat([y, y[:2], y[:2]])
    assert neural_collapse(carrier(*more)).value == pytest.approx(neural_collapse(carrier(x, y)).value, rel=1e-12)


def test_collapse_undefined():
    x = randn(8, 3)
    cases = {
        "one class": (x, torch.zeros(8, dtype=torch.long)),
        "two examples": (x, torch.arange(8)),
        "means of all classes are the same": (torch.full((8, 3), 0.1), torch.arange(8) % 2),
        "not one class an example": (x, torch.rand(8)),
    }
    for reason, (features, labels) in cases.items():
        found = neural_collapse(carrier(features, labels))
        assert found.value is None
        assert reason in found.note
    ignored = torch.tensor([-100, 0, 0, 0, 1, 1, 1, 1])  # no class, but the mark of cross_entropy's ignore_index
    assert "not one class an example" in neural_collapse(carrier(x, ignored)).note


# -- similarity


@pytest.mark.oracle("linear_cka")
def test_cka_by_hand():
    # centred features (1, −1, 0)ᵀ and (1, 1, −2)ᵀ are orthogonal, (1, −1, 0)ᵀ and (2, −1, −1)ᵀ have cos² = 9/12
    x, y, z = (torch.tensor(t, dtype=torch.float64)[:, None] for t in ([1, -1, 0], [1, 1, -2], [2, -1, -1]))
    targets = torch.arange(3)
    assert value(linear_cka(carrier(x, targets), other=carrier(y, targets))) == pytest.approx(0, abs=1e-15)
    assert value(linear_cka(carrier(x, targets), other=carrier(z, targets))) == pytest.approx(0.75, rel=1e-12)


@pytest.mark.oracle("linear_cka")
@pytest.mark.parametrize(("n", "d", "e"), [(50, 6, 4), (5, 9, 7), (8, 4, 12)])
def test_cka_against_the_kernel_form(n, d, e):
    x, y = randn(n, d) + 3, randn(n, e, seed=1) + randn(n, d)[:, :1]
    h = np.eye(n) - 1 / n
    k, m = (h @ (t @ t.T).numpy() @ h for t in (x, y))
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert value(linear_cka(carrier(x), other=carrier(y))) == pytest.approx(expected, rel=1e-9)
    assert value(linear_cka(carrier(y), other=carrier(x))) == pytest.approx(expected, rel=1e-9)


@QUICK
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_cka_sees_no_rotation_scale_or_shift_but_linear_maps(seed, factor):
    x, y = randn(30, 4, seed=seed), randn(30, 3, seed=seed + 1) @ torch.diag(torch.tensor([1.0, 2, 3]).double())
    y = y + x[:, :3]
    before = value(linear_cka(carrier(x), other=carrier(y)))
    turned = factor * x @ orthogonal(4, seed) + randn(4, seed=seed)
    assert value(linear_cka(carrier(turned), other=carrier(y))) == pytest.approx(before, rel=1e-9)
    assert value(linear_cka(carrier(turned), other=carrier(x))) == pytest.approx(1, rel=1e-9)
    stretched = x * torch.tensor([10.0, 1, 1, 1], dtype=torch.float64)
    assert value(linear_cka(carrier(stretched), other=carrier(x))) < 0.99


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_like_itself_and_unlike_another(name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    other = Snapshot(build(name, seed=1)[0], F.cross_entropy, [(x, y)])
    same, found = values(linear_cka(snapshot, other=snapshot)), values(linear_cka(snapshot, other=other))
    layers = [*snapshot.representations][1:]
    assert [*found] == [*same] == ["cka", *(f"cka.{layer}" for layer in layers)]
    assert same == pytest.approx(dict.fromkeys(same, 1.0), rel=1e-9)
    assert all(0 <= v < 0.999 for v in found.values())
    assert found["cka"] == found[f"cka.{layers[-2]}"]


def test_other_depths_share_the_layers_of_their_names():
    net, x, y = build("mlp")
    deep = nn.Sequential(*net, nn.ReLU(), nn.Linear(3, 3).double())
    found = linear_cka(Snapshot(net, F.cross_entropy, [(x, y)]), other=Snapshot(deep, F.cross_entropy, [(x, y)]))
    assert [*found] == ["cka", "cka.2", "cka.4", "cka.output"]
    assert found["cka.2"].value == pytest.approx(1, rel=1e-9)
    assert found["cka"].value < 0.999  # the layers called last are 4 and 6


def test_without_another_it_is_compared_with_its_beginning():
    net, x, y = build("conv")
    initial = {k: t.clone() for k, t in net.state_dict().items()}
    with torch.no_grad():
        net[3].weight.add_(randn(*net[3].weight.shape))
        net[1].running_mean.add_(1)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)
    begin = build("conv")[0]
    expected = linear_cka(snapshot, other=Snapshot(begin, F.cross_entropy, [(x, y)]))
    found = linear_cka(snapshot)
    assert values(found) == pytest.approx(values(expected), rel=1e-9)
    assert found["cka"].value < 0.99
    assert "no initial weights" in linear_cka(Snapshot(net, F.cross_entropy, [(x, y)]))["cka"].note
    partial = Snapshot(net, F.cross_entropy, [(x, y)], initial={"0.weight": initial["0.weight"]})
    assert "do not fit" in linear_cka(partial)["cka"].note


def test_cka_refuses_other_data():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    with pytest.raises(ValueError, match="other has 7 examples"):
        linear_cka(snapshot, other=Snapshot(net, F.cross_entropy, [(x[:7], y[:7])]))
    with pytest.raises(ValueError, match="other has other targets"):
        linear_cka(snapshot, other=Snapshot(net, F.cross_entropy, [(x.flip(0), y.flip(0))]))
    split = Snapshot(net, F.cross_entropy, list(zip(x.split(5), y.split(5), strict=True)))
    assert value(linear_cka(snapshot, other=split)) == pytest.approx(1, rel=1e-9)


# -- what all keep


@pytest.mark.parametrize("function", [effective_rank, participation_ratio, intrinsic_dimension])
@pytest.mark.parametrize("name", NETS)
def test_names(function, name):
    net, x, y = build(name)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    layers, key = [*snapshot.representations][1:], function.__name__
    found = values(function(snapshot))
    assert [*found] == [key, *(f"{key}.{layer}" for layer in layers)]
    assert found[key] == found[f"{key}.{layers[-2]}"]  # what the layer called last is given


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("name", ["mlp", "conv", "gru"])
def test_batch_splits_and_order_agree(function, name):
    net, x, y = build(name)
    initial = build(name, seed=1)[0].state_dict()
    whole = function(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))
    assert None not in values(whole).values()
    parts = list(zip(x.flip(0).split(7), y.flip(0).split(7), strict=True))
    assert values(function(Snapshot(net, F.cross_entropy, parts, initial=initial))) == pytest.approx(
        values(whole), rel=1e-9
    )


def test_permuted_units_change_nothing_and_rescaled_ones_do():
    net, x, y = build("mlp")
    initial = {k: t.clone() for k, t in build("mlp", seed=1)[0].state_dict().items()}
    before = [values(f(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))) for f in ALL]
    order = [3, 1, 4, 0, 2]
    with torch.no_grad():
        net[2].weight.copy_(net[2].weight[order])
        net[2].bias.copy_(net[2].bias[order])
        net[4].weight.copy_(net[4].weight[:, order])
    for f, expected in zip(ALL, before, strict=True):
        assert values(f(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))) == pytest.approx(expected, rel=1e-9)
    with torch.no_grad():
        net[2].weight *= 8
        net[2].bias *= 8
        net[4].weight /= 8
    for f, expected in zip(ALL, before, strict=True):  # a whole layer: only sizes change
        assert values(f(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial))) == pytest.approx(expected, rel=1e-9)
    alive = int(torch.relu(net[2](torch.relu(net[0](x)))).sum(0).argmax())
    with torch.no_grad():  # a single unit: the function stays, the dimensions do not
        net[2].weight[alive] *= 8
        net[2].bias[alive] *= 8
        net[4].weight[:, alive] /= 8
    for f, expected in zip(
        (effective_rank, participation_ratio, linear_cka), [before[0], before[1], before[4]], strict=True
    ):
        after = values(f(Snapshot(net, F.cross_entropy, [(x, y)], initial=initial)))
        name = next(iter(after))
        assert abs(after[name] / expected[name] - 1) > 1e-2


def test_constant_and_single_examples():
    constant = carrier(torch.full((9, 4), 0.1))
    assert value(effective_rank(constant)) == pytest.approx(1, rel=1e-6)  # one direction: the mean
    assert "same for all examples" in participation_ratio(constant)["participation_ratio"].note
    assert "same for all examples" in linear_cka(constant, other=constant)["cka"].note
    assert "all zero" in effective_rank(carrier(torch.zeros(9, 4)))["effective_rank"].note
    alone = carrier(randn(1, 4))
    assert value(effective_rank(alone)) == pytest.approx(1, rel=1e-12)
    for function in (participation_ratio, intrinsic_dimension):
        assert value(function(alone)) is None
    assert "one class" in neural_collapse(alone).note
    assert value(linear_cka(alone, other=alone)) is None


@pytest.mark.parametrize("function", ALL)
def test_a_network_without_hidden_layers(function):
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    net = nn.Linear(4, 3)
    found = function(Snapshot(net, F.cross_entropy, [(x, y)], initial=net.state_dict()))
    first = next(iter(found.values())) if isinstance(found, dict) else found
    assert first.value is None
    assert first.note == "undefined: the network has no hidden layer"


def test_steps_before_examples():
    # an LSTM that is given [T, N, ...]: the examples are in the second dimension, whatever their number
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.lstm(x.movedim(1, 0))[0][-1])

    torch.manual_seed(0)
    net, x, y = Steps().double(), torch.randn(6, 6, 2, dtype=torch.float64), torch.randint(3, (6,))
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert torch.equal(snapshot.representations["lstm"], x)
    assert [*effective_rank(snapshot)] == ["effective_rank", "effective_rank.head", "effective_rank.output"]


def test_an_ensemble_is_the_mean_of_its_members():
    first, x, y = build("mlp", seed=1)
    second = build("mlp", seed=2)[0]
    found = effective_rank(Snapshot(Ensemble([first, second]), F.cross_entropy, [(x, y)]))["effective_rank"]
    each = [value(effective_rank(Snapshot(net, F.cross_entropy, [(x, y)]))) for net in (first, second)]
    assert found.value == pytest.approx(sum(each) / 2, rel=1e-12)
    assert found.note == "mean of 2 members"
