"""The Davies–Bouldin index of known features, beside scikit-learn's; pooling, layers, and augmented inputs."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import davies_bouldin_score
from torch import nn

from genbench.inputs.augmentation import augmented
from genbench.measures import Snapshot, davies_bouldin
from genbench.measures.base import check_network
from genbench.measures.davies_bouldin import index
from genbench.models import Ensemble
from genbench.rng import StepRandom, derive_seed
from tests.helpers.networks import build

PLAIN = {"versions": 0}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def carrier(x, y, loss=F.cross_entropy):
    """A network whose second layer is given the inputs x [N, D]."""
    first = nn.Linear(x.shape[1], x.shape[1], bias=False).double()
    nn.init.eye_(first.weight)
    return Snapshot(nn.Sequential(first, nn.Linear(x.shape[1], int(y.max()) + 1).double()), loss, [(x, y)])


def values(found):
    return {name: estimate.value for name, estimate in found.items()}


@pytest.mark.oracle("davies_bouldin")
def test_three_classes_on_a_line_by_hand():
    # means 0, 4 and 10, mean distances 1, 2 and 0
    x, y = torch.tensor([[-1.0], [1], [2], [6], [10]]).double(), torch.tensor([0, 0, 1, 1, 2])
    found = davies_bouldin(carrier(x, y), **PLAIN)
    r01, r02, r12 = 3 / 4, 1 / 10, 2 / 6
    assert values(found) == pytest.approx(
        {"davies_bouldin": (r01 + r01 + r12) / 3, "davies_bouldin_mean": 2 * (r01 + r02 + r12) / 6}
    )
    assert all(estimate.stderr is None for estimate in found.values())


@pytest.mark.oracle("davies_bouldin")
@pytest.mark.parametrize(("n", "k", "d"), [(60, 2, 3), (200, 7, 12), (31, 10, 40)])
def test_the_index_is_scikit_learns_and_the_mean_is_that_of_the_contests_code(n, k, d):
    y = torch.arange(n) % k
    x = randn(n, d) + 2 * randn(k, d, seed=1)[y]
    found = davies_bouldin(carrier(x, y), **PLAIN)
    assert found["davies_bouldin"].value == pytest.approx(davies_bouldin_score(x.numpy(), y.numpy()), rel=1e-10)
    means = torch.stack([x[y == i].mean(0) for i in range(k)])
    spread = [float((x[y == i] - means[i]).norm(dim=1).mean()) for i in range(k)]
    apart = torch.cdist(means, means)
    ratios = [[0.0 if i == j else (spread[i] + spread[j]) / float(apart[i, j]) for j in range(k)] for i in range(k)]
    theirs = sum(map(sum, ratios)) / k**2  # a class with itself counts as zero
    assert found["davies_bouldin_mean"].value == pytest.approx(theirs * k / (k - 1), rel=1e-10)


def test_of_two_classes_the_two_are_the_same():
    y = torch.arange(20) % 2
    found = values(davies_bouldin(carrier(randn(20, 4), y), **PLAIN))
    assert found["davies_bouldin"] == pytest.approx(found["davies_bouldin_mean"], rel=1e-12)


def test_what_leaves_the_index_unchanged():
    y = torch.arange(90) % 5
    x = randn(90, 8) + randn(5, 8, seed=1)[y]
    known = index(x, y)
    rotation = torch.linalg.qr(randn(8, 8, seed=2))[0]
    order = torch.randperm(90)
    for other in (index(3 * x @ rotation + 7, y), index(x[order], y[order]), index(x, y + 3), index(x, 9 - y)):
        assert other == pytest.approx(known, rel=1e-10)
    # the features of a ReLU layer, rescaled and permuted
    net, x, y = build("mlp")
    before = values(davies_bouldin(Snapshot(net, F.cross_entropy, [(x, y)]), **PLAIN))
    with torch.no_grad():
        order = torch.randperm(6)
        net[0].weight.copy_(5 * net[0].weight[order])
        net[0].bias.copy_(5 * net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order] / 5)
    parts = list(zip(x.split(7), y.split(7), strict=True))
    assert values(davies_bouldin(Snapshot(net, F.cross_entropy, parts), **PLAIN)) == pytest.approx(before, rel=1e-9)


def test_maps_are_max_pooled():
    net, x, y = build("conv")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    h = snapshot.representations["3"]  # [24, 3, 6]
    for pool in (1, 2, 4, 6, 9):
        size = min(pool, 6)
        windows = [h[:, :, i * size : (i + 1) * size].amax(2) for i in range(6 // size)]
        expected = davies_bouldin_score(torch.stack(windows, 2).flatten(1).numpy(), y.numpy())
        found = davies_bouldin(snapshot, pool=pool, versions=0)["davies_bouldin"].value
        assert found == pytest.approx(expected, rel=1e-9)
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 3))
    x = torch.randn(30, 1, 8, 8)
    snapshot = Snapshot(images, F.cross_entropy, [(x, torch.arange(30) % 3)])
    pooled = F.max_pool2d(images[:2](x), 4).flatten(1).detach()
    expected = davies_bouldin_score(pooled.double().numpy(), (torch.arange(30) % 3).numpy())
    assert davies_bouldin(snapshot, versions=0)["davies_bouldin"].value == pytest.approx(expected, rel=1e-5)


def test_the_layer_is_chosen_by_name():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    for layer, depth in ((None, 2), ("2", 2), ("4", 4)):
        expected = davies_bouldin_score(net[:depth](x).detach().numpy(), y.numpy())
        found = davies_bouldin(snapshot, layer=layer, versions=0)["davies_bouldin"].value
        assert found == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match=r"^layer is '9'; accepted: 2, 4$"):
        davies_bouldin(snapshot, layer="9")
    with pytest.raises(ValueError, match=r"^measures\.db\.layer is 'head'; accepted: 0, 2, 4$"):
        check_network({"db": partial(davies_bouldin, layer="head")}, net)


def test_augmented_inputs_are_those_of_training_and_their_error_is_that_of_the_versions():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 5))
    x, y = torch.randn(1500, 1, 40), torch.arange(1500) % 5
    x += torch.randn(5, 1, 40)[y]
    parts = list(zip(x.split(400), y.split(400), strict=True))
    found = davies_bouldin(Snapshot(net, F.cross_entropy, parts), versions=3, strength=0.5, seed=7)
    settings = {"shift": 0.1, "scale": 0.05, "rotation": 5.0, "noise": 0.2}
    by_hand = []
    for version in range(3):
        seed = derive_seed(7, "augmentation", version)
        moved = torch.cat([augmented(b, StepRandom(seed, i), **settings) for i, b in enumerate(x.split(1024))])
        by_hand.append(index(net[:3](moved).detach(), y))
    by_hand = torch.tensor(by_hand)
    for column, name in enumerate(("davies_bouldin", "davies_bouldin_mean")):
        assert found[f"{name}_augmented"].value == pytest.approx(float(by_hand[:, column].mean()), rel=1e-5)
        assert found[f"{name}_augmented"].stderr == pytest.approx(float(by_hand[:, column].std()) / 3**0.5, rel=1e-3)
    still = davies_bouldin(Snapshot(net, F.cross_entropy, parts), versions=2, strength=0.0)
    assert still["davies_bouldin_augmented"].value == pytest.approx(still["davies_bouldin"].value, rel=1e-6)
    assert still["davies_bouldin_augmented"].stderr == 0


def test_an_ensemble_has_the_mean_of_its_members():
    (one, x, y), (two, _, _) = build("mlp"), build("mlp", seed=3)
    pair = davies_bouldin(Snapshot(Ensemble([one, two]), F.cross_entropy, [(x, y)]), **PLAIN)["davies_bouldin"]
    each = [davies_bouldin(Snapshot(m, F.cross_entropy, [(x, y)]), **PLAIN)["davies_bouldin"].value for m in (one, two)]
    assert pair.value == pytest.approx(sum(each) / 2)
    assert pair.note == "mean of 2 members"


def test_undefined():
    net, x, y = build("mlp")

    def note(snapshot, key="davies_bouldin"):
        found = davies_bouldin(snapshot)[key]
        assert found.value is None
        return found.note

    flat = Snapshot(net, F.cross_entropy, [(x, y)])
    assert note(flat, "davies_bouldin_augmented").startswith("undefined: inputs are neither sequences [B, C, L] nor")
    assert davies_bouldin(flat)["davies_bouldin"].value > 0
    assert note(carrier(x, torch.zeros(24).long())) == "undefined: all examples are of one class"
    assert note(carrier(torch.ones(6, 2).double(), torch.arange(6) % 2)) == "undefined: two classes have the same mean"
    linear = Snapshot(nn.Linear(4, 3).double(), F.cross_entropy, [(x, y)])
    assert note(linear) == "undefined: the network has no hidden layer"
    assert "not one class an example" in note(Snapshot(net, F.mse_loss, [(x, randn(24, 3))]))
