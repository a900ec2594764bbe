import math

import numpy as np
import pytest
from scipy import stats

from genbench.analysis import statistics


def test_interval_of_two_values_is_the_closed_form():
    """n = 2: s = |a - b|/√2 and the quantile of t with one degree of freedom is tan(0.475 π)."""
    interval = statistics.mean_interval([1.0, 4.0])
    assert interval.value == 2.5
    assert interval.half_width == pytest.approx(math.tan(0.475 * math.pi) * 3 / 2, rel=1e-9)
    assert (interval.low, interval.high) == (2.5 - interval.half_width, 2.5 + interval.half_width)


def test_interval_agrees_with_scipy():
    sample = np.random.default_rng(0).normal(size=9)
    low, high = stats.t.interval(0.95, 8, loc=sample.mean(), scale=stats.sem(sample))
    interval = statistics.mean_interval(sample.tolist())
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(1).normal(size=(2000, 3))
    covered = sum(abs(m.value) <= m.half_width for m in map(statistics.mean_interval, samples.tolist()))
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_constant_and_single_samples():
    assert statistics.mean_interval([0.1, 0.1, 0.1]) == statistics.Mean(0.1, 0.0, 3)
    assert statistics.mean_interval([7.0]) == statistics.Mean(7.0, None, 1)
    assert statistics.mean_interval([7.0]).low is None


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_cannot_be_averaged_is_refused(values):
    with pytest.raises(ValueError, match=r"at least one|finite"):
        statistics.mean_interval(values)


def test_pairing_is_by_seed_and_agrees_with_scipy():
    random = np.random.default_rng(2)
    a, b = random.normal(size=5), random.normal(size=5)
    values = {seed: a[seed] for seed in (4, 2, 0, 1, 3)} | {9: 100.0}
    result = statistics.paired_difference(values, dict(enumerate(b)))
    assert result.n == 5
    assert result.value == pytest.approx((a - b).mean())
    assert result.p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_pairing_removes_what_seeds_share():
    noise = {seed: 10.0 * seed for seed in range(4)}
    better = {seed: value + 1 + 0.01 * (-1) ** seed for seed, value in noise.items()}
    assert statistics.paired_difference(better, noise).p < 1e-4


def test_differences_without_spread_have_no_test():
    result = statistics.paired_difference({0: 0.92, 1: 0.93}, {0: 0.90, 1: 0.91})
    assert result.value == pytest.approx(0.02)
    assert (result.half_width, result.p) == (0.0, None)
    assert statistics.paired_difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1.0
    assert statistics.paired_difference({0: 1.0}, {0: 0.5}) == statistics.Difference(0.5, None, 1, None)
    assert statistics.paired_difference({0: 1.0}, {1: 0.5}) is None


def test_holm_by_hand():
    """Sorted p times m, m - 1, …, made monotone, at most 1."""
    assert statistics.holm([0.04, 0.01, None, 0.03, 0.9]) == pytest.approx([0.09, 0.04, None, 0.09, 0.9])
    assert statistics.holm([None]) == [None]
    assert statistics.holm([]) == []


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for seed in range(20):
        ps = np.random.default_rng(seed).beta(0.3, 2.0, size=seed + 1).round(2).tolist()
        assert statistics.holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1].tolist())


def test_rank_correlations_agree_with_scipy_also_with_ties():
    random = np.random.default_rng(3)
    x = random.integers(0, 6, size=40).astype(float)
    y = x + random.integers(0, 8, size=40)
    tau, rho = statistics.kendall(x, y), statistics.spearman(x, y)
    assert tau.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert rho.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert tau.low < tau.value < tau.high
    assert rho.low < rho.value < rho.high
    assert tau == statistics.kendall(x, y)


def test_rank_correlation_does_not_see_monotone_maps():
    x, y = np.random.default_rng(4).normal(size=(2, 20))
    assert statistics.kendall(np.exp(x), y) == statistics.kendall(x, y)
    assert statistics.kendall(x, x**3).value == 1.0
    assert statistics.kendall(x, -x).value == -1.0


def test_resampling_whole_groups_widens_the_interval():
    """Ten copies of six points are six points of evidence, not sixty."""
    x, y = np.repeat(np.random.default_rng(5).normal(size=(2, 6)), 10, axis=1)
    groups = np.repeat(np.arange(6), 10).tolist()
    grouped, free = statistics.kendall(x, y, groups=groups), statistics.kendall(x, y)
    assert grouped.value == free.value
    assert grouped.high - grouped.low > 1.5 * (free.high - free.low)


def test_resampling_very_many_groups_to_first_order_gives_the_same_interval(monkeypatch):
    x = np.random.default_rng(6).normal(size=400)
    y = x + np.random.default_rng(7).normal(size=400)
    exact = statistics.kendall(x, y, groups=np.repeat(np.arange(200), 2).tolist())
    monkeypatch.setattr(statistics, "_MANY", 100)
    first = statistics.kendall(x, y, groups=np.repeat(np.arange(200), 2).tolist())
    assert first.value == exact.value
    assert (first.low, first.high) == pytest.approx((exact.low, exact.high), abs=0.02 * (exact.high - exact.low))


@pytest.mark.parametrize("n", [1, 2, 5, 64, 101])
@pytest.mark.parametrize("values", [2, 7, 1000])
def test_pairs_counted_by_merging_are_those_counted_one_by_one(n, values):
    x, y = (np.unique(each, return_inverse=True)[1] for each in np.random.default_rng(n).integers(values, size=(2, n)))
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    assert np.array_equal(statistics._pairs(x, y), np.stack([each.sum(1) for each in (a * b, np.abs(a), np.abs(b))]))


def test_a_group_of_very_many_points_is_compared_in_parts(monkeypatch):
    """Its pairs at once would take the square of its points in memory."""
    x = np.random.default_rng(8).normal(size=3000)
    y = (x + np.random.default_rng(9).normal(size=3000)).round(1)
    sizes = []
    monkeypatch.setattr(np, "stack", lambda parts, real=np.stack: sizes.append(1) or real(parts))
    assert statistics.kendall(x, y, groups=[0] * 3000).value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert len(sizes) == 3


def test_rank_correlation_says_why_it_is_undefined():
    assert "needs 3" in statistics.kendall([1, 2], [1, 2]).note
    assert "constant" in statistics.kendall([1, 1, 1, 1], [1, 2, 3, 4]).note
    few = statistics.spearman([1, 2, 3], [1, 3, 2])
    assert few.value == pytest.approx(0.5)
    assert few.low is None
    assert "fewer than 5" in few.note
    with pytest.raises(ValueError, match="one length"):
        statistics.kendall([1, 2, 3], [1, 2])
