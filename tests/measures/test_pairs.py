"""Pairs of examples, and the error of a mean over pairs that share examples."""

import pytest
import torch

from genbench.measures.pairs import error_of_classes, error_of_mean, pairs_between, pairs_within


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets(pairs):
    return [frozenset(pair) for pair in pairs.tolist()]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9])
def test_all_pairs_of_a_class_once(n):
    members = torch.arange(n) * 3 + 1
    found = sets(pairs_within(members, None, generator()))
    assert len(found) == len(set(found)) == n * (n - 1) // 2
    assert all(len(pair) == 2 and pair <= set(members.tolist()) for pair in found)


def test_some_pairs_use_each_member_about_equally_often():
    for most in (2, 7, 10, 15, 29):
        found = pairs_within(torch.arange(10), most, generator(most))
        assert len(set(sets(found))) == len(found) == most
        counts = found.flatten().bincount(minlength=10)
        assert counts.max() - counts.min() <= 2
    assert len(pairs_within(torch.arange(4), 100, generator())) == 6
    assert not torch.equal(*(pairs_within(torch.arange(10), 5, generator(seed)) for seed in (0, 1)))


def test_partners_of_other_classes():
    labels = torch.tensor([0, 2, 1, 0, 1, 0, 2, 2])
    seen = set()
    for seed in range(40):
        found = pairs_between(labels, generator(seed))
        assert sorted(found[:, 0].tolist()) == list(range(8))
        assert (labels[found[:, 0]] != labels[found[:, 1]]).all()
        seen |= set(map(tuple, found.tolist()))
    assert len(seen) == sum(int((labels != label).sum()) for label in labels)  # every partner that there is
    assert pairs_between(torch.zeros(3), generator()).shape == (0, 2)


def test_independent_pairs_have_the_usual_error():
    values = torch.randn(50, generator=generator(), dtype=torch.float64)
    disjoint = torch.arange(100).reshape(50, 2)
    for pairs in (disjoint, torch.arange(50)[:, None]):
        assert error_of_mean(values, pairs) == pytest.approx(float(values.std()) / 50**0.5, rel=1e-12)
    assert error_of_mean(values[:1], disjoint[:1]) is None
    two = error_of_classes([values[:20], values[20:]], [disjoint[:20], disjoint[20:]])
    each = [float(part.std()) / len(part) ** 0.5 for part in (values[:20], values[20:])]
    assert two == pytest.approx((each[0] ** 2 + each[1] ** 2) ** 0.5 / 2, rel=1e-12)


@pytest.mark.parametrize("most", [30, 120, None])
def test_the_error_is_the_spread_over_samples(most):
    """Of a kernel whose pairs depend on each other: max(a, b) of exponential numbers, mean 3/2."""
    means, errors, naive = [], [], []
    for seed in range(400):
        a = torch.empty(40, dtype=torch.float64).exponential_(generator=generator(seed))
        pairs = pairs_within(torch.arange(40), most, generator(seed + 1000))
        values = a[pairs].amax(1)
        means.append(float(values.mean()))
        errors.append(error_of_mean(values, pairs) ** 2)
        naive.append(float(values.var()) / len(values))  # as if the pairs were independent
    spread = torch.tensor(means).std()
    assert abs(sum(means) / 400 - 1.5) < 4 * spread / 20
    assert (sum(errors) / 400) ** 0.5 == pytest.approx(float(spread), rel=0.12)
    assert (sum(naive) / 400) ** 0.5 < 0.9 * float(spread)
