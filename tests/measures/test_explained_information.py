"""What a simpler classifier explains of a network: tables worked by hand, and the bias of plug-in estimates."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot, answer_information, explained_information
from genbench.measures.explained_information import _surprise_given, _surprise_of_pair


class Table(nn.Module):
    """Answers each example, given by its number as the first input, as stored."""

    def __init__(self, answers: torch.Tensor, classes: int = 2) -> None:
        super().__init__()
        self.logits = nn.Parameter(3 * F.one_hot(answers, classes).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[x[:, 0].long()]


def expanded(counts):
    """The triples (f, l, y) [3, n] of a table of counts [F, L, Y]."""
    table = torch.as_tensor(counts)
    return table.nonzero().T.repeat_interleave(table[table > 0], dim=1)


def split(counts):
    """(I(F; Y), I(F; Y | L)) of a table of counts, in bits."""
    f, simple, y = expanded(counts)
    return float(_surprise_of_pair(f, y).mean()), float(_surprise_given(f, y, simple).mean())


def by_hand(p):
    """The same of a table of probabilities, by the definition."""
    p = np.asarray(p, float)
    p = p / p.sum()
    whole = given = 0.0
    for f, l, y in np.ndindex(p.shape):  # noqa: E741
        if p[f, l, y]:
            given += p[f, l, y] * math.log2(p[f, l, y] * p[:, l].sum() / (p[f, l].sum() * p[:, l, y].sum()))
    for f, y in np.ndindex(p.shape[0], p.shape[2]):
        if p[f, :, y].sum():
            whole += p[f, :, y].sum() * math.log2(p[f, :, y].sum() / (p[f].sum() * p[:, :, y].sum()))
    return whole, given


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[[4, 0], [0, 0]], [[0, 0], [0, 4]]], (1, 0)),  # F = L = Y: all is explained
        ([[[2, 0], [2, 0]], [[0, 2], [0, 2]]], (1, 1)),  # L tells nothing: none is
        ([[[2, 0], [0, 2]], [[0, 2], [2, 0]]], (0, 1)),  # Y is the exclusive or of F and L: minus one bit
        ([[[1, 1], [1, 1]], [[1, 1], [1, 1]]], (0, 0)),
    ],
)
def test_tables_of_two_classes(counts, expected):
    assert split(counts) == pytest.approx(expected, abs=1e-12)


def test_a_table_of_three_classes_by_the_definition():
    counts = torch.randint(0, 7, (3, 3, 3), generator=torch.Generator().manual_seed(0))
    assert split(counts) == pytest.approx(by_hand(counts), abs=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_the_bias_of_n_examples_is_the_one_stated(k):
    """I(F; Y) and μ in the mean over draws of n, less those of the table: (K − 1)² and −(K − 1)³, over 2n ln 2."""
    rng = np.random.default_rng(0)
    table = rng.uniform(0.5, 1.5, (k, k, k))
    table /= table.sum()
    whole, given = by_hand(table)
    n = 400 * k**2
    off = np.array([split(rng.multinomial(n, table.ravel()).reshape(table.shape)) for _ in range(600)]) - (whole, given)
    for values, stated in ((off[:, 0], (k - 1) ** 2), (off[:, 0] - off[:, 1], -((k - 1) ** 3))):
        error = values.std() / len(values) ** 0.5
        stated = stated / (2 * n * math.log(2))
        assert abs(values.mean() - stated) < 4 * error + 0.05 * abs(stated)
        assert abs(values.mean()) > 2 * error


def data(n=400, seed=0):
    """Points of the plane, numbered; the class is the sign of the second coordinate, wrong in a tenth of them."""
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 2, dtype=torch.float64, generator=g)
    wrong = torch.rand(n, generator=g) < 0.1
    y = ((points[:, 0] > 0) ^ wrong).long()
    return torch.cat([torch.arange(n)[:, None] * 1e-9, points], 1), y


class Numbered(Table):
    def forward(self, x):
        return self.logits[(x[:, 0] * 1e9).round().long()]


def snapshot(x, y, answers):
    return Snapshot(Numbered(answers), F.cross_entropy, [(x[:150], y[:150]), (x[150:], y[150:])])


@pytest.mark.oracle("explained_information")
def test_of_a_network_that_answers_as_the_linear_classifier_all_is_explained():
    (x, y), (known, given) = data(4000, seed=1), data(4000)
    first = snapshot(known, given, given)
    linear = (x[:, 1] > 0).long()
    found = explained_information(snapshot(x, y, linear), first)
    f = expanded(torch.tensor([[[int(((linear == a) & (y == b)).sum()) for b in range(2)]] for a in range(2)]))
    assert found["linear_accuracy"].value == pytest.approx(0.9, abs=0.02)
    assert abs(found["linear_lead"].value) < 0.02
    assert found["linear_share"].value == pytest.approx(1, abs=0.15)
    assert answer_information(snapshot(x, y, linear)).value == pytest.approx(
        float(_surprise_of_pair(f[0], f[2]).mean()), abs=1e-12
    )
    assert found["linear_explained"].value <= found["linear_information"].value + 1e-12


@pytest.mark.oracle("answer_information")
def test_the_information_of_answers():
    (x, y) = data()
    counts = torch.tensor([[[int(((1 - y == a) & (y == b)).sum()) for b in range(2)]] for a in range(2)])
    assert answer_information(snapshot(x, y, 1 - y)).value == pytest.approx(by_hand(counts)[0], abs=1e-12)


def test_answers_that_tell_other_things_are_not_explained():
    """F is right where the linear classifier errs and at chance elsewhere."""
    (x, y), (known, given) = data(4000, seed=1), data(4000)
    linear = (x[:, 1] > 0).long()
    chance = torch.randint(2, (4000,), generator=torch.Generator().manual_seed(2))
    answers = torch.where(linear == y, chance, y)
    found = explained_information(snapshot(x, y, answers), snapshot(known, given, given))
    assert found["linear_share"].value < 0.2
    assert found["linear_lead"].value < -0.2


def test_the_nearest_neighbour_has_the_label_of_the_training_example():
    x, y = data()
    same = snapshot(x, y, y)
    found = explained_information(same, same, by="neighbour")
    assert found["neighbour_accuracy"].value == 1
    assert found["neighbour_share"].value == pytest.approx(1)
    with pytest.raises(ValueError, match="by is 'tree'; accepted: linear, neighbour"):
        explained_information(same, same, by="tree")


def test_the_standard_error_is_the_spread_over_draws():
    table = np.array([[[0.3, 0.05], [0.05, 0.1]], [[0.1, 0.05], [0.05, 0.3]]])
    rng, n, values, errors = np.random.default_rng(1), 1000, [], []
    for _ in range(300):
        f, simple, y = expanded(rng.multinomial(n, table.ravel()).reshape(table.shape))
        each = _surprise_of_pair(f, y) - _surprise_given(f, y, simple)
        values.append(float(each.mean()))
        errors.append(float(each.std()) / n**0.5)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_answers_that_are_constant_have_no_share():
    x, y = data()
    found = explained_information(snapshot(x, y, torch.zeros_like(y)), snapshot(x, y, y))
    assert found["linear_share"].value is None
    assert found["linear_explained"].value == pytest.approx(0, abs=1e-12)
