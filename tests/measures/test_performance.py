"""Performance of outputs that are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import (
    Snapshot,
    accuracy,
    adversarial_accuracy,
    brier_score,
    calibration_error,
    cross_entropy,
    disagreement,
    error,
    generalization_gap,
    margin,
    soft_error,
)
from tests.helpers.measured import Table
from tests.helpers.networks import build

LOGITS = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]])
LABELS = torch.tensor([1, 0, 1, 1])


@pytest.fixture
def table() -> Snapshot:
    return Snapshot(Table(), F.cross_entropy, [(LOGITS[:3], LABELS[:3]), (LOGITS[3:], LABELS[3:])])


@pytest.mark.oracle("accuracy", "cross_entropy", "soft_error", "brier_score", "calibration_error")
def test_by_hand(table):
    # p(label) = ¾, ¾, ¼, ½
    assert cross_entropy(table).value == pytest.approx(-(2 * math.log(0.75) + math.log(0.25) + math.log(0.5)) / 4)
    assert soft_error(table).value == pytest.approx(1 - (0.75 + 0.75 + 0.25 + 0.5) / 4)
    assert accuracy(table).value == 0.5
    # of two classes, 2 (1 − p)²
    assert brier_score(table).value == pytest.approx(2 * (2 * 0.25**2 + 0.75**2 + 0.5**2) / 4)
    # confidence ¾ three times, right twice; confidence ½ once, wrong
    assert calibration_error(table).value == pytest.approx(3 / 4 * abs(2 / 3 - 0.75) + 1 / 4 * 0.5)


@pytest.mark.oracle("error")
def test_the_share_of_wrong_answers_and_its_lower_limit(table):
    found = error(table, level=0.05)
    assert found["error"].value == 0.5
    p = found["error_low"].value  # two or more of four are wrong once in twenty times
    assert 1 - (1 - p) ** 4 - 4 * p * (1 - p) ** 3 == pytest.approx(0.05, rel=1e-9)
    none, all_ = (Snapshot(Table(), F.cross_entropy, [(LOGITS[:2], y)]) for y in (LABELS[:2], 1 - LABELS[:2]))
    assert [e.value for e in error(none).values()] == [0, 0]
    assert [e.value for e in error(all_).values()] == [1, pytest.approx(0.1, rel=1e-9)]  # p² = 0.01


def test_logits_within_zero_and_one_are_no_probabilities():
    snapshot = Snapshot(Table(), F.cross_entropy, [(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))])
    assert calibration_error(snapshot).value == pytest.approx(1 - 1 / (1 + math.exp(-0.8)), rel=1e-5)


@pytest.mark.oracle("cross_entropy")
def test_cross_entropy_is_that_whatever_the_loss():
    net, x, y = build("mlp")
    snapshot = Snapshot(net, lambda out, target: F.cross_entropy(out, target, label_smoothing=0.3), [(x, y)])
    assert cross_entropy(snapshot).value == pytest.approx(float(F.cross_entropy(net(x), y)))
    assert snapshot.mean_loss != pytest.approx(cross_entropy(snapshot).value)


@pytest.mark.parametrize("function", [accuracy, cross_entropy, soft_error, brier_score, calibration_error])
def test_batch_splits_and_order_agree(function):
    net, x, y = build("mlp")
    whole = function(Snapshot(net, F.cross_entropy, [(x, y)])).value
    parts = list(zip(x.flip(0).split(5), y.flip(0).split(5), strict=True))
    assert function(Snapshot(net, F.cross_entropy, parts)).value == pytest.approx(whole, rel=1e-9)


def test_per_token_outputs():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3, 5), torch.randint(3, (4, 5))
    snapshot = Snapshot(Table(), F.cross_entropy, [(logits, labels)])
    assert accuracy(snapshot).value == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert cross_entropy(snapshot).value == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)


@pytest.mark.parametrize("function", [accuracy, cross_entropy, soft_error, brier_score, calibration_error])
def test_undefined_for_regression(function):
    snapshot = Snapshot(nn.Linear(2, 3), F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 3))])
    estimate = function(snapshot)
    assert estimate.value is None
    assert "undefined" in estimate.note


def test_labels_out_of_range():
    snapshot = Snapshot(Table(), lambda out, _: out.mean(), [(LOGITS, LABELS + 1)])
    with pytest.raises(ValueError, match=r"labels lie in \[1, 2\]; accepted: 0 to 1"):
        accuracy(snapshot)


def test_standard_errors_by_hand(table):
    # right: 1 1 0 0; p(label) = ¾, ¾, ¼, ½
    assert accuracy(table).stderr == pytest.approx((4 * 0.25 / 3) ** 0.5 / 2)
    p = [0.75, 0.75, 0.25, 0.5]
    spread = (sum((q - 0.5625) ** 2 for q in p) / 3) ** 0.5 / 2
    assert soft_error(table).stderr == pytest.approx(spread)
    assert accuracy(Snapshot(Table(), F.cross_entropy, [(LOGITS[:1], LABELS[:1])])).stderr is None


def test_standard_errors_cover_the_expectation():
    # logits ±1 where the label is right with probability 0.8
    covered = 0
    for seed in range(200):
        right = torch.rand(300, generator=torch.Generator().manual_seed(seed)) < 0.8
        snapshot = Snapshot(Table(), F.cross_entropy, [(torch.tensor([[-1.0, 1.0]]).repeat(300, 1), right.long())])
        estimate = cross_entropy(snapshot)
        exact = 0.8 * math.log1p(math.exp(-2)) + 0.2 * (2 + math.log1p(math.exp(-2)))
        covered += abs(estimate.value - exact) <= 2 * estimate.stderr
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.oracle("generalization_gap")
def test_gap_by_hand(table):
    train = Snapshot(Table(), F.cross_entropy, [(LOGITS[:2], LABELS[:2])])
    found = generalization_gap(table, train)
    assert found["accuracy"].value == pytest.approx(1 - 0.5)
    assert found["soft_error"].value == pytest.approx((1 - 0.5625) - 0.25)
    assert found["cross_entropy"].value == pytest.approx(cross_entropy(table).value + math.log(0.75))
    assert found["soft_error"].stderr == soft_error(table).stderr
    assert generalization_gap(train, train)["accuracy"].value == 0
    regression = Snapshot(nn.Linear(2, 3), F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 3))])
    assert "undefined" in generalization_gap(table, regression)["accuracy"].note


def test_positions_are_no_examples_of_their_own():
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 3), torch.randint(3, (30,))
    once = Snapshot(Table(), F.cross_entropy, [(logits, labels)])
    often = (logits[:, :, None].repeat(1, 1, 25), labels[:, None].repeat(1, 25))
    parts = [tuple(t[:11] for t in often), tuple(t[11:] for t in often)]
    repeated = Snapshot(Table(), F.cross_entropy, parts)
    for function in (accuracy, cross_entropy, soft_error):
        assert function(repeated).value == pytest.approx(function(once).value)
        assert function(repeated).stderr == pytest.approx(function(once).stderr)


def by_hand(pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three sequences of two tokens, three of them padded: p(label) = ¾, ¼ and ¾."""
    up, down = [0.0, math.log(3)], [math.log(3), 0.0]
    logits = torch.tensor([[up, down], [up, up], [down, up]])  # [N, T, K]
    labels = torch.tensor([[1, 1], [1, pad], [pad, pad]])
    return torch.cat([torch.full((3, 2, 1), -9.0), logits], 2), torch.where(labels == 1, 2, labels)


@pytest.mark.parametrize("split", [False, True], ids=["whole", "by batch"])
@pytest.mark.parametrize("pad", [-100, 0, 255])
def test_labels_that_the_loss_ignores_are_left_out(pad, split):
    logits, labels = by_hand(pad)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=pad)

    batches = list(zip(logits.split(2), labels.split(2), strict=True)) if split else [(logits, labels)]
    snapshot = Snapshot(Table(), loss, batches, count=lambda _, target: (target != pad).sum())
    p = torch.tensor([0.75, 0.25, 0.75]) / (1 + math.exp(-9) / 4)  # of the third class, too
    expected = {
        accuracy: 2 / 3,
        cross_entropy: float(-p.log().mean()),
        soft_error: float(1 - p.mean()),
        calibration_error: abs(2 / 3 - float(p[0])),
    }
    for function, value in expected.items():
        found = function(snapshot)
        assert found.value == pytest.approx(value, rel=1e-4), function
        assert found.note == f"without the labels that the loss ignores ({pad})", function
    # the 10th percentile of −log 3, log 3 and log 3
    assert margin(snapshot).value == pytest.approx(-0.6 * math.log(3))
    assert snapshot.mean_loss == pytest.approx(expected[cross_entropy], rel=1e-4)
    # two examples count, by sums of deviations from 2/3: 1 − 2/3 + 0 − 2/3 = −1/3 and 1 − 2/3 = 1/3
    assert accuracy(snapshot).stderr == pytest.approx(math.sqrt(2 / 9 * 2) / 3)


def test_a_class_of_weight_zero_is_left_out():
    loss = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 0.0]))
    found = accuracy(Snapshot(Table(), loss, [(LOGITS, LABELS)]))
    assert (found.value, found.note) == (1, "without the labels that the loss ignores (1)")


def test_a_loss_that_chooses_by_the_place_says_that_all_labels_count():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3, 4), torch.randint(3, (6, 4))
    snapshot = Snapshot(Table(), lambda output, y: F.cross_entropy(output[..., -1], y[..., -1]), [(logits, labels)])
    found = accuracy(snapshot)
    assert found.value == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert found.note == "over all labels, of which the loss ignores some (0, 1, 2)"


def test_a_margin_that_is_reached_ignores_nothing():
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0], [5.0, 0.0]])
    for loss in (torch.nn.MultiMarginLoss(), torch.nn.MultiMarginLoss(margin=1e-6)):
        found = accuracy(Snapshot(Table(), loss, [(logits, torch.tensor([0, 1, 1]))]))
        assert found.value == pytest.approx(2 / 3)
        assert "ignores" not in (found.note or "")


def test_without_a_label_that_counts_there_is_no_accuracy():
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target, reduction="sum") / (target >= 0).sum().clamp_min(1)

    found = accuracy(Snapshot(Table(), loss, [(LOGITS, torch.full((4,), -100))]))
    assert (found.value, found.note) == (None, "undefined: the loss ignores all labels")


def test_measures_that_need_every_label_say_so():
    x, y = LOGITS[:2], torch.tensor([1, -100])
    snapshot, other = (Snapshot(Table(), F.cross_entropy, [(x, y)]) for _ in range(2))
    assert disagreement(snapshot, other=other).value == 0
    assert disagreement(snapshot, other=other).note == "of all positions, also those whose label the loss ignores"
    found = adversarial_accuracy(snapshot)
    assert (found.value, found.note) == (
        None,
        "undefined: attacks are of all labels, and the loss ignores some of them",
    )
