"""Performance on means of two examples of a class: known values, all pairs, the error, and what has none."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, davies_bouldin, label_wise_mixup
from genbench.models import Ensemble
from tests.helpers.networks import build


class Distances(nn.Module):
    """Logits −w · |x| and w · |x − 1| of a number x: an answer by the nearer of the two."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return -self.w * torch.cat([x.abs(), (x - 1).abs()], 1)


@pytest.mark.oracle("label_wise_mixup")
def test_three_examples_a_class_by_hand():
    x = torch.tensor([[0.0], [0.4], [1.0], [0.6], [1.0], [2.0]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    net = Distances()
    found = label_wise_mixup(Snapshot(net, F.cross_entropy, [(x, y)]), pairs=None)
    # means 0.2, 0.5, 0.7 of class 0 and 0.8, 1.3, 1.5 of class 1; at 0.5 both are as near, and the first counts
    assert found["mixup_accuracy"].value == pytest.approx((2 / 3 + 1) / 2)
    means = torch.tensor([[0.2], [0.5], [0.7], [0.8], [1.3], [1.5]], dtype=torch.float64)
    expected = float(F.cross_entropy(net(means).detach(), y))
    assert found["mixup_cross_entropy"].value == pytest.approx(expected, rel=1e-12)
    assert found["davies_bouldin_mixup"].value is None  # without a hidden layer


@pytest.mark.oracle("label_wise_mixup")
def test_all_pairs_of_a_network_and_the_mean_over_classes():
    net, x, y = build("mlp")
    y = torch.tensor([0] * 4 + [1] * 7 + [2] * 13)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    losses, rights = [], []
    for label in range(3):
        members = (y == label).nonzero()[:, 0].tolist()
        means = torch.stack([(x[i] + x[j]) / 2 for i, j in combinations(members, 2)])
        target = torch.full((len(means),), label)
        losses.append(float(F.cross_entropy(net(means).detach(), target)))
        rights.append(float((net(means).argmax(1) == target).double().mean()))
    found = label_wise_mixup(snapshot, pairs=None)
    assert found["mixup_cross_entropy"].value == pytest.approx(sum(losses) / 3, rel=1e-12)
    assert found["mixup_accuracy"].value == pytest.approx(sum(rights) / 3, rel=1e-12)
    index = davies_bouldin(snapshot, versions=0)["davies_bouldin_mean"].value
    product, loss = found["davies_bouldin_mixup"], found["mixup_cross_entropy"]
    assert (product.value, product.stderr) == pytest.approx((index * loss.value, index * loss.stderr))
    order = torch.randperm(24)
    parts = list(zip(x[order].split(5), y[order].split(5), strict=True))
    again = label_wise_mixup(Snapshot(net, F.cross_entropy, parts), pairs=None, seed=5)
    assert {k: (e.value, e.stderr) for k, e in again.items()} == {
        k: pytest.approx((e.value, e.stderr), rel=1e-9) for k, e in found.items()
    }


def test_a_sample_of_pairs_is_near_all_of_them():
    net, x, y = build("conv", n=600)
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    whole = label_wise_mixup(snapshot, pairs=None)["mixup_cross_entropy"]
    few = [label_wise_mixup(snapshot, pairs=60, seed=seed)["mixup_cross_entropy"] for seed in range(12)]
    assert len({e.value for e in few}) == 12
    assert all(abs(e.value - whole.value) < 4 * e.stderr for e in few)
    assert few[0] == few[0]
    again = label_wise_mixup(snapshot, pairs=60, seed=0)["mixup_cross_entropy"]
    assert (again.value, again.stderr) == (few[0].value, few[0].stderr)
    assert whole.stderr < few[0].stderr


def test_one_number_an_output_and_one_network_of_an_ensemble():
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 1).double(), torch.randn(30, 4).double(), (torch.arange(30) % 2).double()

    def loss(z, t):
        return F.binary_cross_entropy_with_logits(z[:, 0], t)

    assert label_wise_mixup(Snapshot(net, loss, [(x, y)]))["mixup_cross_entropy"].value > 0
    (one, x, y), (two, _, _) = build("mlp"), build("mlp", seed=3)
    found = label_wise_mixup(Snapshot(Ensemble([one, two]), F.cross_entropy, [(x, y)]))
    assert found["mixup_cross_entropy"].note is None


def test_undefined_and_left_out():
    net, x, y = build("mlp")

    def note(snapshot):
        found = label_wise_mixup(snapshot)["mixup_cross_entropy"]
        assert found.value is None
        return found.note

    alone = Snapshot(net, F.cross_entropy, [(x[:3], torch.tensor([0, 1, 2]))])
    assert note(alone) == "undefined: no class has two examples"
    assert "not one class an example" in note(Snapshot(net, F.mse_loss, [(x, torch.randn(24, 3).double())]))
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    words = Snapshot(tokens, F.cross_entropy, [(torch.randint(5, (9, 2)), torch.arange(9) % 3)])
    assert note(words) == "undefined: the inputs are no real numbers, of which there is a mean"
    dicts = Snapshot(net, F.cross_entropy, [{"x": x, "y": y}], forward=lambda m, b: (2 * m(b["x"]), b["y"]))
    assert note(dicts).startswith("undefined: batches are of another form")
    one = Snapshot(net, F.cross_entropy, [(x, torch.tensor([0] * 12 + [1] * 11 + [2]))])
    assert label_wise_mixup(one)["mixup_accuracy"].note == "without 1 of 3 classes, which have one example"
    single = Snapshot(net, F.cross_entropy, [(x, torch.zeros(24).long())])
    assert label_wise_mixup(single)["mixup_cross_entropy"].value > 0
    for wrong in (1, 0.5, True):
        with pytest.raises(ValueError, match=r"^pairs is .*; accepted: an integer of at least 2 \(or null\)$"):
            label_wise_mixup(single, pairs=wrong)
