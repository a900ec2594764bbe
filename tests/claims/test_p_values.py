import itertools

import numpy as np
import pytest
from scipy import stats

from genbench.claims import p_values


def test_t_test_agrees_with_scipy():
    values = np.random.default_rng(0).normal(size=7)
    for bound in (-0.3, 0.0, 2.0):
        expected = stats.ttest_1samp(values, bound, alternative="greater").pvalue
        assert p_values.above(values, bound) == pytest.approx(expected, rel=1e-9)


def test_equal_values_are_tested_by_their_sign():
    assert p_values.above(np.array([0.2] * 5), 0.1) == 2**-5
    assert p_values.above(np.array([0.2] * 5), 0.2) == 1
    assert p_values.above(np.array([0.92 - 0.90, 0.93 - 0.91]), 0.02, rounding=1e-12) == 1
    assert p_values.above(np.array([0.92 - 0.90, 0.93 - 0.91]), 0.01, rounding=1e-12) == 0.25


def test_few_infinite_and_tiny_values():
    assert p_values.above(np.array([]), 0) is None
    assert p_values.above(np.array([3.0]), 0) == 0.5
    assert p_values.above(np.array([3.0, -np.inf]), 0) == 1
    tiny = np.array([1e-200, 2e-200, 3e-200])
    assert p_values.above(tiny, 0) == pytest.approx(stats.ttest_1samp([1, 2, 3], 0, alternative="greater").pvalue)


def test_binomial_tails_agree_with_scipy():
    for count, n, share in itertools.product(range(9), (8,), (0.3, 0.5, 0.9)):
        greater = stats.binomtest(count, n, share, alternative="greater").pvalue
        less = stats.binomtest(count, n, share, alternative="less").pvalue
        assert p_values.at_least(count, n, share) == pytest.approx(greater, rel=1e-9)
        assert p_values.at_most(count, n, share) == pytest.approx(less, rel=1e-9)
    assert p_values.at_least(0, 0, 0.5) is None
    assert p_values.at_most(0, 0, 0.5) is None


def test_all_changes_of_signs_are_counted():
    scores = np.array([0.5, -0.2, 1.5, 0.0, 0.7])
    sums = [np.dot(signs, np.abs(scores)) for signs in itertools.product((-1, 1), repeat=5)]
    assert p_values.sign_changes(scores) == np.mean(np.array(sums) >= scores.sum() - 1e-9)
    assert p_values.sign_changes(np.zeros(4)) == 1
    assert p_values.sign_changes(np.array([])) == 1
    assert p_values.sign_changes(np.ones(32)) == 2**-32


def test_many_signs_are_drawn():
    scores = np.random.default_rng(1).normal(0.25, 1, size=60)
    expected = stats.norm.sf(scores.sum() / np.sqrt((scores**2).sum()))
    assert p_values.sign_changes(scores) == pytest.approx(expected, abs=0.005)
    assert p_values.sign_changes(scores) == p_values.sign_changes(scores)


def test_log_rank_scores_sum_to_the_statistic_by_hand():
    """Times 1, 2, 2, 3+: hazards 1/4, then 2/3."""
    found = p_values.log_rank_scores(np.array([2.0, 1.0, np.inf, 2.0]), np.array([True, True, False, True]))
    late = 1 / 4 + 2 / 3
    assert found == pytest.approx([1 - late, 1 - 1 / 4, -late, 1 - late])
    assert found.sum() == pytest.approx(0)


def test_rank_correlations_agree_with_scipy():
    random = np.random.default_rng(2)
    levels, values = np.array([1.0, 2.0, 4.0, 8.0, 9.0]), random.integers(0, 4, size=(5, 6)).astype(float)
    values[:, 0] = 3.0
    others = random.normal(size=(5, 6))
    taus, rhos = p_values.kendall(levels, values), p_values.spearman(others, values)
    assert np.isnan(taus[0])
    assert np.isnan(rhos[0])
    for i in range(1, 6):
        assert taus[i] == pytest.approx(stats.kendalltau(levels, values[:, i]).statistic)
        assert rhos[i] == pytest.approx(stats.spearmanr(others[:, i], values[:, i]).statistic)


def test_rank_correlations_of_many_points_take_no_square_of_their_number():
    """Groups of runs are all points of one correlation."""
    rng = np.random.default_rng(0)
    n = 200_000  # whose square no machine holds
    a = rng.integers(0, 50, (n, 1)).astype(float)
    b = a + rng.normal(0, 30, (n, 1))
    assert p_values.spearman(a, b)[0] == pytest.approx(stats.spearmanr(a[:, 0], b[:, 0]).statistic, abs=1e-12)
    assert p_values.spearman(a[:, :0], b[:, :0]).shape == (0,)
