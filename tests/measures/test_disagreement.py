"""Disagreement counted by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, accuracy, disagreement
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
