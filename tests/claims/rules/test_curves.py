import numpy as np
import pytest
from scipy import stats

from genbench.claims.rules import Peak, Slope, Trend
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, runs, sweep

NOISE = np.random.default_rng(0).normal(0, 0.06, size=(4, 8))
ALONG = {"data.x": [0, 1, 2, 4]}


def curve(heights, noise=NOISE):
    """Return runs of eight seeds along four levels."""
    values = np.array(heights)[:, None] + noise
    return values, runs(**{f"x{level}": row.tolist() for level, row in zip(ALONG["data.x"], values, strict=True)})


def greater(values, bound):
    return stats.ttest_1samp(values, bound, alternative="greater").pvalue


def less(values, bound):
    return stats.ttest_1samp(values, bound, alternative="less").pvalue


def test_a_trend_needs_the_share_of_seeds_and_the_extremes():
    values, some = curve([0.1, 0.2, 0.3, 0.5])
    rule = Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.8, margin=0.2, interest=0.9)
    found = rule.evidence(some)
    held = sum(stats.kendalltau(ALONG["data.x"], column).statistic >= 0.8 for column in values.T)
    assert 5 <= held < 8  # a case of neither all nor few
    share = stats.binomtest(held, 8, 0.5, alternative="greater").pvalue
    ends = values[3] - values[0]
    assert found.supports == pytest.approx(max(share, greater(ends, 0.2)))
    rises = stats.binomtest(held, 8, 0.5, alternative="less").pvalue
    assert found.contradicts == pytest.approx(2 * min(rises, less(ends, 0.9)))
    assert found.statistic == held / 8


def test_a_falling_trend_is_a_rising_one_of_the_negative_metric():
    _, some = curve([0.1, 0.2, 0.3, 0.5])
    _, mirrored = curve([-0.1, -0.2, -0.3, -0.5], -NOISE)
    rises = Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.8).evidence(some)
    falls = Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.8, direction="falls").evidence(mirrored)
    assert (falls.supports, falls.contradicts) == pytest.approx((rises.supports, rises.contradicts))


def test_a_flat_curve_has_no_trend():
    found = Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.1).evidence(curve([0.5] * 4, np.zeros((4, 8)))[1])
    assert (found.supports, found.statistic) == (1, 0)
    assert found.contradicts == 2 * 2**-8


def test_a_slope_is_that_of_least_squares():
    values, some = curve([0.1, 0.2, 0.3, 0.5])
    found = Slope(metric=ACCURACY, along=ALONG, of={}, margin=0.05, interest=0.2).evidence(some)
    slopes = [stats.linregress(ALONG["data.x"], column).slope for column in values.T]
    assert found.statistic == pytest.approx(np.mean(slopes))
    assert found.supports == pytest.approx(greater(slopes, 0.05))
    assert found.contradicts == pytest.approx(less(slopes, 0.2))


def test_a_slope_of_logarithms():
    levels = {"data.x": [1, 2, 4]}
    values = np.array([[0.1], [0.2], [0.4]]) * np.exp(NOISE[:3])
    some = runs(**{f"x{x}": row.tolist() for x, row in zip(levels["data.x"], values, strict=True)})
    found = Slope(metric=ACCURACY, along=levels, of={}, log=True, log_along=True).evidence(some)
    slopes = [stats.linregress(np.log([1, 2, 4]), np.log(column)).slope for column in values.T]
    assert found.statistic == pytest.approx(np.mean(slopes))
    assert found.supports == pytest.approx(greater(slopes, 0))
    with pytest.raises(
        ValueError, match=r"^along.data.x is \[0, 1, 2, 4\]; accepted with log_along: positive numbers$"
    ):
        Slope(metric=ACCURACY, along=ALONG, of={}, log_along=True)


def test_equal_slopes_are_tested_by_their_sign():
    found = Slope(metric=ACCURACY, along=ALONG, of={}).evidence(curve([0.1, 0.2, 0.3, 0.5], np.zeros((4, 8)))[1])
    assert found.supports == 2**-8


def test_a_peak_is_an_inner_level_above_both_ends():
    values, some = curve([0.1, 0.2, 0.5, 0.3])
    found = Peak(metric=ACCURACY, along=ALONG, of={}, margin=0.1, interest=0.4).evidence(some)
    heights = {k: (values[k] - values[0], values[k] - values[3]) for k in (1, 2)}
    assert found.supports == pytest.approx(2 * min(max(greater(h, 0.1) for h in sides) for sides in heights.values()))
    short = [min(1, 2 * min(less(h, 0.4) for h in sides)) for sides in heights.values()]
    assert found.contradicts == pytest.approx(max(short))
    assert found.statistic == pytest.approx(heights[2][1].mean())
    assert found.words.startswith("at 2, above the higher end: height 0.")


def test_a_minimum_is_a_peak_of_the_negative_metric():
    values, some = curve([0.5, 0.4, 0.1, 0.3])
    found = Peak(metric=ACCURACY, along=ALONG, of={}, kind="minimum").evidence(some)
    sides = [[greater(values[end] - values[k], 0) for end in (0, 3)] for k in (1, 2)]
    assert found.supports == pytest.approx(2 * min(map(max, sides)))


def test_a_level_that_is_missing_is_named():
    records = sweep(x0=[0.1] * 5, x1=[0.2] * 5, x2=[0.3] * 5, x4=[0.4] * 5)
    some = ClaimRuns([each for each in records if (each["seed"], each["config"]["data"]["x"]) != (3, 2)])
    for rule in (
        Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.8),
        Slope(metric=ACCURACY, along=ALONG, of={}),
        Peak(metric=ACCURACY, along=ALONG, of={}),
    ):
        assert rule.evidence(some).missing == ("seed 3 of data.x=2",)


def test_a_diverged_level_is_left_out_or_at_its_worst():
    values, _ = curve([0.1, 0.2, 0.3, 0.5])
    some = runs(x0=values[0], x1=[None, *values[1][1:]], x2=values[2], x4=values[3])
    trend = Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.1, bounds=[0, 1])
    assert trend.evidence(some).n == 7
    assert trend.evidence(some, worst=True).supports == pytest.approx(9 / 256)  # seven of eight hold
    slope = Slope(metric=ACCURACY, along=ALONG, of={}, bounds=[0, 1])
    slopes = [stats.linregress(ALONG["data.x"], column).slope for column in values.T]
    first = stats.linregress(ALONG["data.x"], [values[0][0], 1, values[2][0], values[3][0]]).slope
    assert slope.evidence(some).supports == pytest.approx(greater(slopes[1:], 0))
    assert slope.evidence(some, worst=True).supports == pytest.approx(greater([first, *slopes[1:]], 0))


@pytest.mark.parametrize(
    ("along", "message"),
    [
        ({"x": [1, 2]}, r"along is \{'x': \[1, 2\]\}; accepted: one setting with at least 3 levels"),
        ({"x": [1, 2, 2]}, r"along.x is \[1, 2, 2\]; accepted: different numbers in ascending order"),
        ({"x": [1, 2, "a"]}, "along.x is 'a'; accepted: a number"),
        ({"x": [1, 2, 3], "y": [1, 2, 3]}, "along is .*; accepted: one setting"),
        ("x", "along is 'x'; accepted: one setting"),
    ],
)
def test_levels_are_checked(along, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Peak(metric=ACCURACY, along=along, of={})


def test_other_settings_are_checked():
    with pytest.raises(ValueError, match=r"^direction is 'up'; accepted: rises, falls$"):
        Slope(metric=ACCURACY, along=ALONG, of={}, direction="up")
    with pytest.raises(ValueError, match=r"^kind is 'max'; accepted: maximum, minimum$"):
        Peak(metric=ACCURACY, along=ALONG, of={}, kind="max")
    with pytest.raises(ValueError, match=r"^tau is 0; accepted: a number in \(0, 1\]$"):
        Trend(metric=ACCURACY, along=ALONG, of={}, tau=0)
