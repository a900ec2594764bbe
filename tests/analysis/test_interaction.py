"""The variance between treatments, in two parts, without that of the noise."""

import itertools

import numpy as np
import pytest

from genbench.analysis.interaction import interaction

MAIN = np.array([0.3, -0.1, -0.2])
INTERACTION = np.array([[0.2, -0.2], [-0.3, 0.3], [0.1, -0.1]])
CONDITIONS = np.array([5.0, -3.0])
TRUE = CONDITIONS + MAIN[:, None] + INTERACTION


def noisy(seed, seeds, spread=0.5):
    return TRUE + spread * np.random.default_rng(seed).normal(size=(seeds, 3, 2))


def by_pairs(values):
    """The definition: means over all pairs of seeds of the products of their deviations."""
    own = values - values.mean(1, keepdims=True)
    main = own.mean(2)
    left = own - main[:, :, None]
    pairs = list(itertools.permutations(range(len(values)), 2))
    return tuple(np.mean([(part[s] * part[t]).mean() for s, t in pairs]) for part in (main, left))


def test_without_noise_they_are_the_two_variances():
    found = interaction(np.stack([TRUE] * 4))
    assert found.main == pytest.approx((MAIN**2).mean(), rel=1e-12)
    assert found.interaction == pytest.approx((INTERACTION**2).mean(), rel=1e-12)
    assert found.share == pytest.approx((INTERACTION**2).sum() / ((INTERACTION**2).sum() + 2 * (MAIN**2).sum()))
    assert np.ptp(found.main_values) == pytest.approx(0, abs=1e-15)


def test_they_are_means_over_pairs_of_seeds():
    values = noisy(1, 5)
    found = interaction(values)
    assert (found.main, found.interaction) == pytest.approx(by_pairs(values), rel=1e-12)
    without = np.array([by_pairs(np.delete(values, s, 0)) for s in range(5)])  # the jackknife by its definition
    expected = 5 * np.array(by_pairs(values)) - 4 * without
    np.testing.assert_allclose(found.main_values, expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found.interaction_values, expected[:, 1], rtol=1e-10)


def test_noise_adds_nothing_in_expectation():
    found = [interaction(noisy(seed, 4, spread=1.0)) for seed in range(3000)]
    for name, part in (("main", MAIN), ("interaction", INTERACTION)):
        values = np.array([getattr(each, name) for each in found])
        assert abs(values.mean() - (part**2).mean()) < 3.5 * values.std() / np.sqrt(len(values)), name


def test_what_all_treatments_share_in_a_condition_does_not_count():
    values = noisy(2, 5)
    shifted = values + 10 * np.random.default_rng(3).normal(size=(5, 1, 2))  # a baseline that is subtracted, say
    for share in (0.2, 0.7):
        np.testing.assert_allclose(interaction(values).beyond(share), interaction(shifted).beyond(share), atol=1e-12)


def test_the_share_is_above_another_where_beyond_it_is_above_0():
    found = interaction(noisy(4, 8, spread=0.1))
    assert found.beyond(found.share).mean() == pytest.approx(0, abs=1e-14)
    assert found.beyond(found.share - 0.01).mean() > 0 > found.beyond(found.share + 0.01).mean()
    assert found.share_values.mean() == pytest.approx(found.share, rel=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 2), (5, 1, 2), (5, 3, 1)])
def test_too_few_are_refused(shape):
    with pytest.raises(ValueError, match=r"^values has .* accepted: at least 3, 2 and 2$"):
        interaction(np.zeros(shape))
