import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench import analysis
from genbench.measures import Snapshot, influence, memorization, memorization_removal
from genbench.models import Ensemble


class Answers(nn.Module):
    """Answers each example, given by its number, as stored: class 0 is right."""

    def __init__(self, right):
        super().__init__()
        self.logits = nn.Parameter(F.one_hot((~right).long(), 2).double())

    def forward(self, x):
        return self.logits[x[:, 0].long()]


def answering(right, **marks):
    """A snapshot of members [M, n] that are ``right``."""
    n = right.shape[1]
    batches = [(torch.arange(n).double()[:, None], torch.zeros(n).long())]
    return Snapshot(Ensemble([Answers(each) for each in right]), F.cross_entropy, batches, **marks)


@pytest.fixture
def groups():
    """What 40 members were trained on, and what of it they answer right, of 30 examples, a third with wrong labels."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(40, 30, generator=generator) < 0.7
    wrong = torch.arange(30) < 10
    outside = torch.where(wrong, 0.1, torch.linspace(0.2, 1, 30))
    right = torch.rand(40, 30, generator=generator) < torch.where(seen, 0.97, outside)
    return right, seen, wrong


@pytest.mark.oracle("memorization")
def test_memorization_is_the_difference_of_two_shares(groups):
    right, seen, wrong = groups
    found = memorization(answering(right, trained_on=seen.T, mislabelled=wrong))
    scores = torch.from_numpy(analysis.memorization(right.numpy(), seen.numpy()).value)
    assert found["memorization"].value == pytest.approx(float(scores.mean()))
    assert found["memorization"].stderr == pytest.approx(float(scores.std()) / math.sqrt(30))
    assert found["memorization_mislabelled"].value == pytest.approx(float(scores[:10].mean()))
    assert found["memorization_clean"].value == pytest.approx(float(scores[10:].mean()))
    assert found["memorization_of_label_0"].value == found["memorization_clean"].value  # their one label
    assert found["right_inside"].value - found["right_outside"].value == pytest.approx(found["memorization"].value)
    above = (scores[:10, None] > scores[10:]).double() + 0.5 * (scores[:10, None] == scores[10:]).double()
    assert found["memorization_auroc"].value == pytest.approx(float(above.mean()))


@pytest.mark.oracle("memorization")
def test_the_histogram_counts_every_example_once(groups):
    right, seen, wrong = groups
    found = memorization(answering(right, trained_on=seen.T, mislabelled=wrong))
    scores = torch.from_numpy(analysis.memorization(right.numpy(), seen.numpy()).value)
    for name, own in (("mislabelled", scores[:10]), ("clean", scores[10:])):
        shares = [found[f"share_{name}_at_{centre}"].value for centre in range(5, 100, 10)]
        assert sum(shares) == pytest.approx(1)
        for index, share in enumerate(shares):
            low, high = (-2 if index == 0 else index / 10), (2 if index == 9 else (index + 1) / 10)
            assert share == pytest.approx(float(((own >= low) & (own < high)).double().mean()))


@pytest.mark.oracle("influence")
def test_a_planted_pair_is_found_and_estimated_by_members_that_did_not_choose_it(groups):
    """Test example 3 is right where train example 7 was trained on, and now and then else."""
    _, seen, _ = groups
    generator = torch.Generator().manual_seed(1)
    tested = torch.rand(40, 20, generator=generator) < 0.5
    tested[:, 3] = seen[:, 7] | (torch.arange(40) % 9 == 0)
    train, test = answering(seen, trained_on=seen.T), answering(tested)
    found = influence(test, train=train, share=1 / 20)
    first, second = (
        torch.from_numpy(analysis.influence(tested[half].numpy(), seen[half].numpy()).value)
        for half in (slice(20), slice(20, None))
    )
    assert int(first.max(1).values.argmax()) == 3
    assert int(first[3].argmax()) == 7
    assert found["influence_of_chosen"].value == pytest.approx(float(second[3, 7]))
    assert found["influence_where_chosen"].value == pytest.approx(float(first[3, 7]))
    assert found["influence_of_label"].value == pytest.approx(float(second[3].mean()))
    assert found["same_label_of_chosen"].value == 1
    assert found["memorization_of_chosen"].value == 1


def test_chosen_pairs_of_chance_have_no_influence_in_the_other_half():
    generator = torch.Generator().manual_seed(2)
    seen = torch.rand(100, 60, generator=generator) < 0.7
    tested = torch.rand(100, 400, generator=generator) < 0.5
    found = influence(answering(tested), train=answering(seen, trained_on=seen.T), share=1.0)
    assert found["influence_where_chosen"].value > 0.25
    assert abs(found["influence_of_chosen"].value) < 0.03


# -- removal


def trained_on_lines(members=4, n=40):
    """Linear networks on a line, whose class is the sign of x, and what two of them leave out."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, n)[:, None]
    y = (x[:, 0] > 0).long()
    ensemble = Ensemble([nn.Linear(1, 2) for _ in range(members)])
    seen = torch.ones(n, members, dtype=torch.bool)
    seen[: n // 2, 0] = seen[n // 2 :, 1] = False
    initial = {name: p.clone() for name, p in ensemble.state_dict().items()}
    start = {"initial": initial}
    train = Snapshot(ensemble, F.cross_entropy, [(x, y)], trained_on=seen, **start)
    return train, Snapshot(ensemble, F.cross_entropy, [(x * 0.9, y)], **start), x, y


@pytest.mark.oracle("memorization_removal")
def test_without_steps_fresh_networks_are_the_initial_ones():
    train, test, x, y = trained_on_lines()
    found = memorization_removal(test, train=train, shares=[0.5], networks=4, steps=0)
    right = [float((member(x * 0.9).argmax(1) == y).double().mean()) for member in train.model.members]
    for arm in ("memorized", "random", "matched"):
        for percent in (0, 50):
            assert found[f"accuracy_without_{arm}_at_{percent}"].value == pytest.approx(sum(right) / 4)


@pytest.mark.oracle("memorization_removal")
def test_a_network_is_trained_as_by_plain_gradient_descent_on_what_remains():
    """With one example left, every batch is that example."""
    train, test, x, y = trained_on_lines(n=40)
    settings = {"steps": 5, "lr": 0.3, "momentum": 0.5, "batch_size": 3}
    found = memorization_removal(test, train=train, shares=[0.97], networks=1, **settings)
    one = found["accuracy_without_memorized_at_97"].value
    nets = []
    for row in range(40):
        net = nn.Linear(1, 2)
        net.load_state_dict(train.model.members[0].state_dict())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(net(x[[row] * 3]), y[[row] * 3]).backward()
            optimizer.step()
        nets.append(float((net(x * 0.9).argmax(1) == y).double().mean()))
    assert any(one == pytest.approx(each) for each in nets)
    assert len({round(each, 6) for each in nets}) > 1


def test_what_is_removed_is_what_is_memorized():
    """Members are wrong on the negative half where they left it out, so that this half goes first."""
    train, test, _, y = trained_on_lines()
    with torch.no_grad():
        for index, member in enumerate(train.model.members):
            member.weight.zero_()
            member.bias.copy_(torch.tensor([0.0, 1.0] if index == 0 else [1.0, 0.0]))
    train = Snapshot(
        train.model, F.cross_entropy, [(torch.linspace(-1, 1, 40)[:, None], y)],
        trained_on=train.trained_on, initial=train.initial,
    )  # fmt: skip
    test = Snapshot(train.model, F.cross_entropy, [(torch.linspace(-1, 1, 40)[:, None], y)], initial=train.initial)
    found = memorization_removal(test, train=train, shares=[0.5], networks=4, steps=200, lr=0.5)
    assert found["accuracy_without_memorized_at_0"].value > 0.95
    assert found["accuracy_without_memorized_at_50"].value == 0.5  # one class remains
    assert found["accuracy_without_matched_at_50"].value == 0.5  # of whose labels as many are removed
    assert found["accuracy_without_random_at_50"].value > 0.9


# -- what has no number


@pytest.mark.parametrize("function", [memorization, influence, memorization_removal])
@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({}, "the data do not say which examples each network was trained on"),
        ({"trained_on": torch.ones(30, 40, dtype=torch.bool)}, "every network was trained on some example"),
        ({"trained_on": torch.zeros(30, 40, dtype=torch.bool)}, "no network was trained on some example"),
        ({"trained_on": torch.ones(30, 2, dtype=torch.bool)}, r"\(2, 30\) networks and examples were trained on"),
    ],
)
def test_it_is_undefined_where_it_is_not_known_who_was_trained_on_what(function, marks, reason, groups):
    train = answering(groups[0], **marks)
    given = {} if function is memorization else {"train": train}
    (only,) = function(train, **given).values()
    assert only.value is None
    assert reason.replace("\\", "") in only.note


def test_one_network_is_no_ensemble():
    x = torch.arange(4.0)[:, None]
    alone = Snapshot(nn.Linear(1, 2), F.cross_entropy, [(x, torch.zeros(4).long())], trained_on=torch.ones(4, 1) > 0)
    assert memorization(alone)["memorization"].note == "undefined: the network is no ensemble"


def test_right_labels_have_no_auroc(groups):
    right, seen, _ = groups
    found = memorization(answering(right, trained_on=seen.T))
    assert found["memorization_auroc"].note == "undefined: no label is known to be wrong, or all are"
    assert found["memorization_clean"].value == found["memorization"].value


def test_networks_with_statistics_of_batches_are_not_trained_side_by_side():
    ensemble = Ensemble([nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)) for _ in range(2)])
    seen = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    batches = [(torch.randn(6, 1), torch.tensor([0, 1] * 3))]
    both = {"initial": ensemble.state_dict(), "trained_on": seen}
    snapshot = Snapshot(ensemble, F.cross_entropy, batches, **both)
    (only,) = memorization_removal(snapshot, train=snapshot, networks=1).values()
    assert "batch norm keeps statistics" in only.note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": [0.1, 1.0]}, r"^shares\[1\] is 1\.0; accepted"),
        ({"shares": [0.101, 0.102]}, r"^shares is \[0\.101, 0\.102\]; accepted: shares of different whole percents"),
        ({"networks": 0}, "^networks is 0; accepted"),
        ({"networks": 41}, "^networks is 41; accepted: at most the 40 members"),
        ({"steps": -1}, "^steps is -1; accepted"),
        ({"lr": 0}, "^lr is 0; accepted"),
        ({"momentum": 1}, "^momentum is 1; accepted"),
        ({"batch_size": 0}, "^batch_size is 0; accepted"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message, groups):
    right, seen, _ = groups
    train = answering(right, trained_on=seen.T)
    with pytest.raises(ValueError, match=message):
        memorization_removal(train, train=train, **settings)
    with pytest.raises(ValueError, match=r"^share is 0; accepted"):
        influence(train, train=train, share=0)
