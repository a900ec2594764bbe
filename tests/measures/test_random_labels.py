"""The bound by randomly labelled examples, worked by hand and against the errors that networks have."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, ratt_bound
from genbench.models import Ensemble
from tests.helpers.networks import build


class Answers(nn.Module):
    """Answers each input, an integer, with itself, of k classes."""

    def __init__(self, k):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
        self.k = k

    def forward(self, x):
        return self.scale * F.one_hot(x[:, 0].long(), self.k).double()


def snapshot(answers, y, k, *, drawn=None, pieces=None, net=None):
    x, y = torch.as_tensor(answers).double()[:, None], torch.as_tensor(y)
    split = [len(y)] if pieces is None else pieces
    marks = {} if drawn is None else {"relabelled": torch.as_tensor(drawn)}
    return Snapshot(net or Answers(k), F.cross_entropy, list(zip(x.split(split), y.split(split), strict=True)), **marks)


@pytest.mark.oracle("ratt_bound")
def test_by_hand():
    """One of four clean labels and three of four drawn ones are answered otherwise; of three classes."""
    drawn = [False, True, True, False, False, True, True, False]
    train = snapshot([0, 1, 2, 0, 1, 0, 2, 2], [0, 0, 0, 0, 1, 0, 1, 0], 3, drawn=drawn, pieces=[5, 3])
    test = snapshot([0, 1, 2, 2], [0, 1, 2, 0], 3)
    found = ratt_bound(test, train)
    assert {name: each.value for name, each in found.items()} == pytest.approx(
        {"clean_error": 1 / 4, "random_error": 3 / 4, "ratt_bound": 1 / 4 + 2 - 9 / 4, "ratt_excess": -1 / 4}
    )
    own = 1 / 4 * 3 / 4 / 3  # the variance of each share
    assert found["random_error"].stderr == pytest.approx(math.sqrt(own))
    assert found["ratt_bound"].stderr == pytest.approx(math.sqrt(own + 9 * own))
    assert found["ratt_excess"].stderr == pytest.approx(math.sqrt(own + 9 * own + own))


def test_a_network_that_fits_no_drawn_label_is_bounded_by_its_clean_error():
    """In expectation, and one that fits them all by nothing."""
    k, m = 5, 100_000
    generator = torch.Generator().manual_seed(0)
    true, noise = (torch.randint(k, (m,), generator=generator) for _ in range(2))
    drawn = torch.arange(m) % 2 == 0
    y = torch.where(drawn, noise, true)
    test = snapshot(true[:10], true[:10], k)
    honest = ratt_bound(test, snapshot(true, y, k, drawn=drawn))
    assert honest["clean_error"].value == 0
    assert abs(honest["ratt_bound"].value) < 4 * honest["ratt_bound"].stderr
    assert ratt_bound(test, snapshot(y, y, k, drawn=drawn))["ratt_bound"].value == k - 1


def test_it_bounds_the_error_of_a_network_that_fits_some():
    """Half of all drawn labels are fitted, and a tenth of the clean ones missed; new examples are as the others."""
    k, n = 10, 200_000
    generator = torch.Generator().manual_seed(1)
    true, noise, other = (torch.randint(k, (n,), generator=generator) for _ in range(3))
    drawn = torch.arange(n) % 2 == 0
    y = torch.where(drawn, noise, true)
    missed, fitted = torch.rand(n, generator=generator) < 0.1, torch.rand(n, generator=generator) < 0.5
    answers = torch.where(missed, other, true)
    found = ratt_bound(snapshot(answers, true, k), snapshot(torch.where(drawn & fitted, y, answers), y, k, drawn=drawn))
    assert found["ratt_excess"].value > 4


def test_batches_and_the_order_of_examples_do_not_matter():
    net, x, y = build("mlp")
    drawn = torch.arange(len(y)) % 3 == 0
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test = Snapshot(net, F.cross_entropy, [(x, y)])
    whole = ratt_bound(test, Snapshot(net, F.cross_entropy, [(x, y)], relabelled=drawn))
    parts = [(x[order][:7], y[order][:7]), (x[order][7:], y[order][7:])]
    other = ratt_bound(test, Snapshot(net, F.cross_entropy, parts, relabelled=drawn[order]))
    assert {n: (e.value, e.stderr) for n, e in whole.items()} == {
        n: pytest.approx((e.value, e.stderr)) for n, e in other.items()
    }


def test_a_part_of_the_data_keeps_its_marks():
    net, x, y = build("mlp")
    drawn = torch.arange(len(y)) % 3 == 0
    train = Snapshot(net, F.cross_entropy, [(x, y)], relabelled=drawn)
    (part,) = train.subsets([torch.arange(4, 9)])
    assert part.relabelled.tolist() == drawn[4:9].tolist()
    assert train.with_targets([y]).relabelled is None
    with pytest.raises(ValueError, match="relabelled has 3 entries"):
        Snapshot(net, F.cross_entropy, [(x, y)], relabelled=drawn[:3]).subsets([torch.arange(2)])


def test_an_ensemble_is_one_network():
    members = Ensemble([Answers(3), Answers(3)])
    drawn = [True, False, True, False]
    given = [0, 1, 2, 0], [0, 1, 1, 1]
    alone = ratt_bound(snapshot(*given, 3), snapshot(*given, 3, drawn=drawn))
    both = ratt_bound(snapshot(*given, 3, net=members), snapshot(*given, 3, drawn=drawn, net=members))
    assert {n: e.value for n, e in alone.items()} == {n: pytest.approx(e.value) for n, e in both.items()}


@pytest.mark.parametrize(
    ("drawn", "note"),
    [
        (None, "which labels were drawn is not known"),
        ([False] * 4, "no label was drawn, or every one"),
        ([True] * 4, "no label was drawn, or every one"),
    ],
)
def test_without_clean_and_drawn_labels_it_is_undefined(drawn, note):
    given = [0, 1, 2, 0], [0, 1, 1, 1]
    found = ratt_bound(snapshot(*given, 3), snapshot(*given, 3, drawn=drawn))
    assert {each.value for each in found.values()} == {None}
    assert note in found["ratt_bound"].note


def test_regression_and_labels_that_do_not_count_are_undefined():
    z = torch.randn(4, 3)
    regression = Snapshot(nn.Linear(3, 1), F.mse_loss, [(z, z[:, :1])], relabelled=torch.tensor([True, False] * 2))
    assert ratt_bound(regression, regression)["ratt_bound"].value is None
    x, y = torch.randn(4, 3, 5), torch.randint(3, (4, 5))
    places = Snapshot(nn.Conv1d(3, 3, 1), F.cross_entropy, [(x, y)], relabelled=torch.tensor([True, False] * 2))
    assert "20 labels count of 4 examples" in ratt_bound(places, places)["ratt_bound"].note
