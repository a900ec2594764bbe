"""Disagreement counted by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, accuracy, disagreement, ensemble_disagreement
from genbench.models import Ensemble
from tests.helpers.networks import NETS, Vector, build


def answering(answers, y, k=3, split=None):
    """A snapshot of a network that gives these answers."""
    x = F.one_hot(torch.tensor(answers), k).double()
    net = nn.Linear(k, k, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.eye(k))
    pieces = [len(y)] if split is None else split
    return Snapshot(net, F.cross_entropy, list(zip(x.split(pieces), y.split(pieces), strict=True)))


@pytest.mark.oracle("disagreement")
def test_counted():
    y = torch.tensor([0, 1, 2, 0, 1])
    ours, theirs = answering([0, 1, 2, 0, 0], y), answering([0, 2, 2, 1, 0], y, split=[2, 3])
    found = disagreement(ours, other=theirs)
    assert found.value == pytest.approx(2 / 5)
    assert found.stderr == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    assert disagreement(theirs, other=ours).value == found.value
    assert disagreement(ours, other=ours).value == 0


@pytest.mark.parametrize("name", NETS)
def test_two_seeds(name):
    net, x, y = build(name)
    second = build(name, seed=1)[0]
    expected = float((net.eval()(x).argmax(1) != second.eval()(x).argmax(1)).double().mean())
    ours, theirs = (Snapshot(n, F.cross_entropy, [(x, y)]) for n in (net, second))
    assert disagreement(ours, other=theirs).value == pytest.approx(expected)


def test_it_is_the_error_of_one_where_the_other_is_right():
    net, x, y = build("mlp")
    ours = Snapshot(net, F.cross_entropy, [(x, y)])
    assert disagreement(ours, other=answering(y.tolist(), y)).value == pytest.approx(1 - accuracy(ours).value)


def test_positions_and_a_single_logit():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 5), torch.randint(3, (6, 5))
    first, second = nn.Conv1d(4, 3, 1), nn.Conv1d(4, 3, 1)
    differ = (first(x).argmax(1) != second(x).argmax(1)).double()
    found = disagreement(Snapshot(first, F.cross_entropy, [(x, y)]), other=Snapshot(second, F.cross_entropy, [(x, y)]))
    assert found.value == pytest.approx(float(differ.mean()))
    assert found.stderr == pytest.approx(float(differ.mean(1).std()) / math.sqrt(6), rel=1e-6)
    x, y = torch.randn(9, 4), torch.randint(2, (9, 1)).float()
    first, second = nn.Linear(4, 1), nn.Linear(4, 1)
    loss = F.binary_cross_entropy_with_logits
    found = disagreement(Snapshot(first, loss, [(x, y)]), other=Snapshot(second, loss, [(x, y)]))
    assert found.value == pytest.approx(float(((first(x) > 0) != (second(x) > 0)).double().mean()))


def test_undefined_and_refused():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, F.cross_entropy, [(x, y)])
    assert disagreement(snapshot).note == "no other network given"
    with pytest.raises(ValueError, match="other has 23 examples"):
        disagreement(snapshot, other=Snapshot(net, F.cross_entropy, [(x[1:], y[1:])]))
    with pytest.raises(ValueError, match="other has other targets"):
        disagreement(snapshot, other=Snapshot(net, F.cross_entropy, [(x.flip(0), y.flip(0))]))
    z = torch.randn(4, 1)
    regression = Snapshot(Vector(torch.ones(1)), F.mse_loss, [(z, z)])
    assert disagreement(regression, other=regression).value is None


class Answers(nn.Module):
    """A network that gives a fixed answer to each example, which is its own number."""

    def __init__(self, answers, k):
        super().__init__()
        self.logits = nn.Parameter(5 * F.one_hot(torch.tensor(answers), k).double())

    def forward(self, x):
        return self.logits[x[:, 0].long()]


def ensemble(answers, y, k, split=None):
    """A snapshot of an ensemble whose members give these answers [M, N]."""
    x = torch.arange(len(y), dtype=torch.float64)[:, None]
    pieces = [len(y)] if split is None else split
    batches = list(zip(x.split(pieces), torch.as_tensor(y).split(pieces), strict=True))
    return Snapshot(Ensemble(Answers(own, k) for own in answers), F.cross_entropy, batches)


def by_loops(answers, y, k):
    """The numbers of an ensemble by plain loops."""
    m, n = len(answers), len(y)
    error = sum(own[i] != y[i] for own in answers for i in range(n)) / (m * n)
    pairs = [(a, b) for a in range(m) for b in range(m)]
    differ = {(a, b): sum(answers[a][i] != answers[b][i] for i in range(n)) / n for a, b in pairs}
    cace = 0.0
    for votes in range(m + 1):
        true = all_ = 0
        for i in range(n):
            for c in range(k):
                if sum(own[i] == c for own in answers) == votes:
                    all_ += 1
                    true += y[i] == c
        cace += abs(true - votes / m * all_) / n
    return {
        "member_error": error,
        "member_disagreement": sum(differ[a, b] for a, b in pairs if a != b) / (m * (m - 1)),
        "vote_disagreement": sum(differ.values()) / m**2,
        "vote_gap": abs(sum(differ.values()) / m**2 - error),
        "class_aggregated_calibration_error": cace,
    }


def drawn(m, n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(k, (n,), generator=generator)
    wrong = torch.rand((m, n), generator=generator) < 0.4
    answers = torch.where(wrong, torch.randint(k, (m, n), generator=generator), y)
    return answers.tolist(), y.tolist()


@pytest.mark.oracle("ensemble_disagreement")
@pytest.mark.parametrize(("m", "k"), [(2, 2), (3, 4), (5, 10)])
def test_an_ensemble_by_plain_loops(m, k):
    answers, y = drawn(m, 37, k, seed=m)
    found = ensemble_disagreement(ensemble(answers, y, k, split=[20, 17]))
    expected = by_loops(answers, y, k)
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=1e-12)
    assert found["vote_disagreement"].value == pytest.approx((m - 1) / m * found["member_disagreement"].value)
    assert expected["vote_gap"] <= found["class_aggregated_calibration_error"].value + 1e-12


@pytest.mark.oracle("ensemble_disagreement")
def test_an_ensemble_by_hand():
    """Two members, right together, apart with one right, apart with none right, wrong together."""
    y, answers = [0, 0, 0, 0], [[0, 0, 1, 1], [0, 1, 2, 1]]
    found = {name: each.value for name, each in ensemble_disagreement(ensemble(answers, y, 3)).items()}
    assert found["member_error"] == 5 / 8
    assert found["member_disagreement"] == 1 / 2
    assert found["vote_gap"] == 3 / 8
    # no votes: two labels; half of them: one label of four pairs, less 4 · ½; all votes: one label of two pairs
    assert found["class_aggregated_calibration_error"] == (2 + 1 + 1) / 4


def test_calibrated_votes_err_as_often_as_they_differ():
    """Each pair of answers is right in its first half of the time."""
    found = ensemble_disagreement(ensemble([[0, 0, 1, 1], [1, 1, 0, 0]], [0, 1, 0, 1], 2))
    assert found["class_aggregated_calibration_error"].value == found["vote_gap"].value == 0
    assert found["vote_disagreement"].value == found["member_error"].value == 0.5


def test_the_standard_errors_are_those_over_the_examples():
    """Against values of many samples of examples."""
    samples = [ensemble_disagreement(ensemble(*drawn(4, 400, 5, seed), 5)) for seed in range(60)]
    for name in samples[0]:
        spread = torch.tensor([each[name].value for each in samples], dtype=torch.float64).std()
        assert samples[0][name].stderr == pytest.approx(float(spread), rel=0.35), name


def test_members_and_classes_in_another_order_are_the_same_ensemble():
    answers, y = drawn(4, 50, 6, seed=0)
    other = [[5 - answer for answer in own] for own in reversed(answers)]
    a = ensemble_disagreement(ensemble(answers, y, 6))
    b = ensemble_disagreement(ensemble(other, [5 - label for label in y], 6))
    assert {n: (e.value, e.stderr) for n, e in a.items()} == {
        n: pytest.approx((e.value, e.stderr), abs=1e-12) for n, e in b.items()
    }


def test_an_ensemble_at_several_positions_counts_labels_that_count():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 5), torch.randint(3, (6, 5))
    y[0, :3] = -100
    members = [nn.Conv1d(4, 3, 1) for _ in range(3)]
    found = ensemble_disagreement(Snapshot(Ensemble(members), F.cross_entropy, [(x, y)]))
    kept = y != -100
    expected = by_loops([net(x).argmax(1)[kept].tolist() for net in members], y[kept].tolist(), 3)
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=1e-6)
    assert "-100" in found["member_error"].note


def test_what_is_no_ensemble_of_classifiers_is_undefined():
    net, x, y = build("mlp")
    (plain,) = ensemble_disagreement(Snapshot(net, F.cross_entropy, [(x, y)])).values()
    assert (plain.value, plain.note) == (None, "undefined: the network is no ensemble")
    z = torch.randn(4, 3)
    members = Ensemble(nn.Linear(3, 1) for _ in range(2))
    (scalar,) = ensemble_disagreement(Snapshot(members, F.mse_loss, [(z, z[:, :1])])).values()
    assert scalar.value is None
    alone = ensemble_disagreement(ensemble([[0, 1]], [0, 0], 2))
    assert alone["member_disagreement"].note == "undefined: the ensemble has one member"
    assert alone["member_error"].value == 0.5
