"""Training on random labels first."""

import pytest
import torch
from torch import nn

from genbench.data import MNIST1D
from genbench.models import MLP
from genbench.regularization import RandomLabels
from genbench.regularization.random_labels import random_labels
from genbench.rng import StepRandom

SEED = torch.tensor(0.0)


def chi_squared(counts):
    expected = counts.sum() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.fixture(scope="module")
def digits():
    return MNIST1D().tensors("train")


def test_labels_are_uniform_and_tell_nothing_of_the_true_ones(digits):
    x, y = digits
    drawn = random_labels(x, SEED, 10)
    assert chi_squared(torch.bincount(drawn, minlength=10).double()) < 27.9  # 0.1 % of χ² with 9 degrees of freedom
    table = torch.zeros(10, 10, dtype=torch.float64).index_put_((y, drawn), torch.tensor(1.0).double(), accumulate=True)
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    assert float(((table - expected) ** 2 / expected).sum()) < 126.1  # the same, 81 degrees


def test_inputs_that_differ_little_have_other_labels_and_equal_ones_the_same(digits):
    x, _ = digits
    drawn = random_labels(x, SEED, 10)
    near = x.clone()
    near[:, 0, 7] += 1e-4
    swapped = x.clone()
    swapped[:, 0, [3, 4]] = x[:, 0, [4, 3]]
    for other in (near, swapped, -x, x.flip(-1)):
        assert 0.05 < float((random_labels(other, SEED, 10) == drawn).double().mean()) < 0.15
    assert torch.equal(random_labels(x[100:200], SEED, 10), drawn[100:200])
    assert torch.equal(random_labels(x.double(), SEED, 10), drawn)
    assert 0.05 < float((random_labels(x, SEED + 1, 10) == drawn).double().mean()) < 0.15


def test_tokens_have_labels_too():
    x = torch.randint(20, (500, 6))
    drawn = random_labels(x, SEED, 7)
    assert chi_squared(torch.bincount(drawn, minlength=7).double()) < 22.5
    assert torch.equal(random_labels(x.clone(), SEED, 7), drawn)


def batches(until, steps, total):
    """The labels of the steps of a training of ``total`` steps."""
    method = RandomLabels(until=until)
    method.build(MLP(input_shape=(1, 6), classes=3))
    x, y = torch.randn(50, 1, 6), torch.arange(50) % 3
    found = []
    for step in range(steps):
        found.append(method.transform(nn.Identity(), x, y, StepRandom(0, step))[1])
        method.after_step([], (step + 1) / total)
    return found, y, random_labels(x, SEED, 3)


def test_true_labels_come_after_the_share():
    found, y, drawn = batches(0.4, 10, 10)
    assert all(torch.equal(each, drawn) for each in found[:4])
    assert all(torch.equal(each, y) for each in found[4:])
    assert torch.equal(batches(0.0, 1, 10)[0][0], y)
    assert not torch.equal(drawn, y)


def test_what_has_no_classes_is_refused():
    with pytest.raises(ValueError, match="RandomLabels: Linear has no number of classes; accepted: a network with"):
        RandomLabels(until=0.5).build(nn.Linear(3, 2))
    method = RandomLabels(until=0.5)
    method.build(MLP(input_shape=(1, 6), classes=3))
    with pytest.raises(ValueError, match="targets are not one label an example"):
        method.transform(nn.Identity(), torch.randn(4, 1, 6), torch.zeros(4, 2).long(), StepRandom(0, 0))
    with pytest.raises(ValueError, match=r"RandomLabels: until is 2; accepted"):
        RandomLabels(until=2)
