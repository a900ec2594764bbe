"""Training on random labels first."""

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import nn

from genbench.data import MNIST1D
from genbench.models import MLP
from genbench.regularization import RandomLabels
from genbench.regularization.random_labels import _mixed, random_numbers
from genbench.rng import StepRandom

SEED = torch.tensor(0)
RARE = 0.001  # a p-value of a right generator below it


def numbers(x, *, seed=SEED, copy=0):
    return random_numbers(x, seed, torch.full((len(x),), copy))


def labels(x, classes=10, **which):
    return (numbers(x, **which)[:, 0] * classes).long()


@pytest.fixture(scope="module")
def digits():
    return MNIST1D().tensors("train")


def test_mixing_is_that_of_splitmix64():
    """The first numbers of the generator from 0, as its authors' code prints them."""
    golden = 0x9E3779B97F4A7C15
    states = torch.tensor([(golden * n + 2**63) % 2**64 - 2**63 for n in (1, 2, 3)])
    assert [n % 2**64 for n in _mixed(states).tolist()] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_are_uniform_over_the_inputs_and_within_each(digits):
    found = numbers(digits[0])
    assert found.shape == (4000, 41)
    assert found.dtype == torch.float64
    assert kstest(found[:, 0], "uniform").pvalue > RARE
    assert kstest(found.flatten(), "uniform").pvalue > RARE
    assert kstest(found.mean(1) * 41 / (41 / 12) ** 0.5 - 20.5 / (41 / 12) ** 0.5, "norm").pvalue > RARE  # independent


def test_labels_tell_nothing_of_the_true_ones(digits):
    x, y = digits
    table = torch.zeros(10, 10).index_put_((y, labels(x)), torch.tensor(1.0), accumulate=True)
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    assert chisquare(table.flatten(), expected.flatten(), ddof=18).pvalue > RARE


def test_inputs_that_differ_little_have_other_numbers_and_equal_ones_the_same(digits):
    x, _ = digits
    found = labels(x)
    near, swapped = x.clone(), x.clone()
    near[:, 0, 7] += 1e-4
    swapped[:, 0, [3, 4]] = x[:, 0, [4, 3]]
    others = [labels(near), labels(swapped), labels(-x), labels(x, seed=SEED + 1), labels(x, copy=1)]
    for other in others:
        assert 0.08 < float((other == found).double().mean()) < 0.12  # chance, ± 4 standard errors
    assert torch.equal(labels(x[100:200]), found[100:200])
    assert torch.equal(labels(x.double()), found)


def test_tokens_have_labels_too():
    x = torch.randint(20, (500, 6), generator=torch.Generator().manual_seed(0))
    assert chisquare(torch.bincount(labels(x, 7), minlength=7)).pvalue > RARE
    assert torch.equal(labels(x.clone(), 7), labels(x, 7))


def method(**settings):
    made = RandomLabels(**{"until": 1.0, "copies": 1, "zeroed": 0.0, "seed": 0, **settings})
    made.build(MLP(input_shape=(1, 40), classes=10))
    return made


def batch(of, x, y, step=0):
    return of.transform(nn.Identity(), x, y, StepRandom(0, step))


def test_true_labels_and_whole_inputs_come_after_the_share(digits):
    x, y = digits
    trained = method(until=0.4, zeroed=0.5)
    for step in range(10):
        moved, drawn = batch(trained, x, y, step)
        if step < 4:
            assert torch.equal(drawn, labels(x))
            assert 0.4 < float((moved == 0).double().mean()) < 0.6
        else:
            assert torch.equal(drawn, y)
            assert torch.equal(moved, x)
        trained.after_step([], (step + 1) / 10)
    assert torch.equal(batch(method(until=0.0), x, y)[1], y)


def test_a_share_of_each_copy_is_zero_and_the_same_at_every_step(digits):
    x, y = digits
    first, again = (batch(method(zeroed=0.1), x, y, step)[0] for step in (0, 7))
    assert torch.equal(first, again)
    zero = first == 0
    assert abs(float(zero.double().mean()) - 0.1) < 0.003  # four standard errors
    assert torch.equal(first[~zero], x[~zero])
    assert torch.equal(batch(method(zeroed=0.0), x, y)[0], x)


def test_a_step_draws_one_of_the_copies_each_with_a_label_of_its_own(digits):
    x, y = digits
    x, y = x[:200], y[:200]
    known = torch.stack([labels(x, copy=copy) for copy in range(3)], 1)
    seen = torch.stack([batch(method(copies=3), x, y, step)[1] for step in range(60)], 1)
    found = [(set(drawn), set(own)) for drawn, own in zip(seen.tolist(), known.tolist(), strict=True)]
    assert all(drawn == own for drawn, own in found)  # all of them, and no other
    assert sum(len(own) > 1 for _, own in found) > 190
    shares = (seen[:, :, None] == known[:, None, :]).double()[known.sort(1)[0].diff(dim=1).ne(0).all(1)].mean((0, 1))
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_what_is_not_accepted():
    plain = {"until": 0.5, "copies": 1, "zeroed": 0.1, "seed": 0}
    for wrong, told in ({"until": 2}, "until is 2; accepted"), ({"zeroed": -1}, "zeroed is -1; accepted"):
        with pytest.raises(ValueError, match=f"RandomLabels: {told}"):
            RandomLabels(**plain | wrong)
    for wrong, told in ({"copies": 0}, "copies is 0; accepted"), ({"copies": 1.5}, "copies is 1.5; accepted"):
        with pytest.raises(ValueError, match=f"RandomLabels: {told}"):
            RandomLabels(**plain | wrong)
    with pytest.raises(ValueError, match="RandomLabels: Linear does not say how many classes it has"):
        RandomLabels(**plain).build(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="RandomLabels: accepted: data with one label an example"):
        batch(method(), torch.randn(4, 1, 6), torch.zeros(4, 2).long())
