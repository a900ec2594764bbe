import numpy as np
import pytest
from scipy import special, stats

from genbench.claims.rules import Peak, PeakSlope, Slope, Trend
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import judge
from tests.helpers.claims import ACCURACY, record, runs, sweep

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
    assert found.words.startswith("surest at 2 (the highest mean is at 2), above the end at 4: height 0.")


def test_a_minimum_is_a_peak_of_the_negative_metric():
    values, some = curve([0.5, 0.4, 0.1, 0.3])
    found = Peak(metric=ACCURACY, along=ALONG, of={}, kind="minimum").evidence(some)
    sides = [[greater(values[end] - values[k], 0) for end in (0, 3)] for k in (1, 2)]
    assert found.supports == pytest.approx(2 * min(map(max, sides)))
    assert found.words.startswith("surest at 2 (the lowest mean is at 2), below the end at 4: depth 0.")


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


RATES, SIZES = [0.1, 0.2, 0.4], [2, 4, 8, 16, 32, 64, 128, 256]
MOVES = {"metric": ACCURACY, "along": {"data.rate": RATES}, "peak": {"data.size": SIZES}, "of": {}, "drop": 0.2}
JITTER = np.random.default_rng(3).normal(0, 0.05, size=(8, 3, 8))


def hills(bests, *, noise=JITTER, sign=1, lost=()):
    """Return eight seeds of runs whose accuracy, or its negative, falls with the square of log₂(size / best) / 5, with
    one best size for each rate; and these accuracies [seeds, rates, sizes]. ``lost`` lists those that diverged."""
    far = np.log2(SIZES)[None] - np.log2(bests)[:, None]
    values = sign * (0.8 - 0.2 * far**2 + noise)
    records = [
        record(seed, {}, status="diverged", rate=rate, size=size)
        if (seed, rate, size) in lost
        else record(seed, float(values[seed, i, j]), rate=rate, size=size)
        for seed in range(8)
        for i, rate in enumerate(RATES)
        for j, size in enumerate(SIZES)
    ]
    return records, values


def slope_of(values):
    """Return the slope of the mean curves, whose best level is a mean of levels by their softmax."""
    shares = [special.softmax(level / 0.2) for level in values.mean(0)]
    return stats.linregress(np.log(RATES), [share @ np.log(SIZES) for share in shares]).slope


def pseudo_values(values):
    """Return the jackknife's numbers of the seeds."""
    n = len(values)
    return np.array([n * slope_of(values) - (n - 1) * slope_of(np.delete(values, i, 0)) for i in range(n)])


@pytest.mark.parametrize(("bests", "slope"), [([16, 24, 36], np.log2(1.5)), ([12, 24, 48], 1), ([20] * 3, 0)])
def test_a_best_level_that_moves_has_the_slope_of_its_logarithm(bests, slope):
    records, _ = hills(bests, noise=np.zeros((8, 3, 8)))
    found = PeakSlope(**MOVES, margin=-1).evidence(ClaimRuns(records))
    # a sum over levels in place of the integral moves the mean of a Gaussian by at most 4π σ² exp(-2π² σ²), σ² = 1/2
    assert found.statistic == pytest.approx(slope, abs=2 * np.pi * np.exp(-(np.pi**2)))
    assert (found.n, found.supports, found.unknown) == (8, 2**-8, ())


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_shape_of_the_curve_does_not_matter(power):
    """It falls faster to the left; the vertex of a parabola through all levels moves less than two thirds as far."""
    records = [
        record(seed, float(0.8 - 0.1 * (np.exp(-far) + far - 1)), rate=rate, size=size)
        for seed in range(8)
        for rate in RATES
        for size in SIZES
        for far in [1.2 * np.log2(size / (16 * (rate / 0.2) ** power))]
    ]
    found = PeakSlope(**{**MOVES, "drop": 0.05}, margin=-1).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(power, abs=0.03)
    curves = np.array([each["metrics"][ACCURACY] for each in records[: len(RATES) * len(SIZES)]]).reshape(3, -1)
    fits = [np.polyfit(np.log(SIZES), level, 2) for level in curves]
    assert stats.linregress(np.log(RATES), [-b / (2 * c) for c, b, _ in fits]).slope < 2 / 3 * power


def test_the_slope_of_best_levels_is_tested_over_seeds():
    records, values = hills([12, 24, 40])
    found = PeakSlope(**MOVES, margin=0.5, interest=1.1).evidence(ClaimRuns(records))
    slopes = pseudo_values(values)
    assert found.statistic == pytest.approx(slopes.mean())
    assert (found.supports, found.contradicts) == pytest.approx((greater(slopes, 0.5), less(slopes, 1.1)))
    assert (found.n, found.tests[0].distance) == (8, pytest.approx(0.6))


def test_a_minimum_and_a_falling_slope():
    records, values = hills([12, 24, 40], sign=-1)
    found = PeakSlope(**MOVES, kind="minimum").evidence(ClaimRuns(records))
    assert found.supports == pytest.approx(greater(pseudo_values(-values), 0))
    records, values = hills([40, 24, 12])
    rule = PeakSlope(**MOVES, direction="falls", diverged=0.1)
    assert rule.evidence(ClaimRuns(records)).supports == pytest.approx(greater(-pseudo_values(values), 0))
    assert rule.words == (
        f"minus the slope of log data.size at the maximum of the mean over seeds of {ACCURACY} inside data.size = "
        "2, 4, 8, 16, 32, 64, 128, 256 (the mean of log data.size, where a level that is x from the best weighs "
        "exp(-x/0.2), and 0.1 stands for a run that diverged) on log data.rate, data.rate = 0.1, 0.2, 0.4, of the "
        "runs, less its bias by the jackknife over seeds, exceeds 0"
    )


@pytest.mark.parametrize(("bests", "level"), [([12, 24, 100], 0.4), ([12, 3, 24], 0.2), ([300, 24, 40], 0.1)])
def test_a_curve_that_does_not_fall_inside_the_grid_decides_nothing(bests, level):
    records, _ = hills(bests, noise=0.01 * JITTER)
    rule = PeakSlope(**MOVES, margin=-9, interest=9)
    found, worst = (rule.evidence(ClaimRuns(records), worst=worst) for worst in (False, True))
    assert found.unknown == (
        f"data.rate={level}: no maximum of the mean over seeds of {ACCURACY} inside data.size = 2 … 256",
    )
    assert (found.n, found.supports, found.contradicts) == (0, None, None)
    assert (worst.supports, worst.contradicts) == (1, 1)
    (verdict,) = judge([("C1", found, worst)], family=1)
    assert verdict.status == "undecided"
    assert f"data.rate={level}: no maximum" in verdict.words


def test_a_curve_that_does_not_fall_without_one_of_the_seeds_decides_nothing():
    """Seed 0 alone keeps the mean of the best sizes at the last rate far enough from 256."""
    noise = np.zeros((8, 3, 8))
    records, _ = hills([12, 24, 84], noise=noise)
    one, _ = hills([12, 24, 8], noise=noise)
    mixed = [*(each for each in one if each["seed"] == 0), *(each for each in records if each["seed"])]
    found = PeakSlope(**MOVES).evidence(ClaimRuns(mixed))
    assert (found.n, len(found.unknown)) == (0, 1)
    inner = [each for each in mixed if each["seed"] < 3]
    assert PeakSlope(**MOVES).evidence(ClaimRuns(inner, range(3))).unknown == found.unknown
    assert PeakSlope(**MOVES).evidence(ClaimRuns(one)).n == 8


@pytest.mark.parametrize("valley", [0.0, 0.03])
def test_a_curve_without_a_maximum_decides_nothing(valley):
    heights = valley * (np.log2(SIZES) - 4.5) ** 2
    records = [
        record(seed, float(height), rate=rate, size=size)
        for seed in range(8)
        for rate in RATES
        for size, height in zip(SIZES, heights, strict=True)
    ]
    rule = PeakSlope(**MOVES, interest=1)
    found, worst = (rule.evidence(ClaimRuns(records), worst=worst) for worst in (False, True))
    assert (found.n, found.supports, len(found.unknown)) == (0, None, 3)
    assert (worst.n, worst.supports, worst.contradicts) == (8, 1, 1)


def test_a_diverged_run_leaves_out_its_seed_and_a_missing_one_is_named():
    records, values = hills([12, 24, 40], lost=[(2, 0.4, 8)])
    found = PeakSlope(**MOVES).evidence(ClaimRuns(records))
    assert found.unknown == ("seed 2 of data.rate=0.4, data.size=8: diverged",)
    assert found.supports == pytest.approx(greater(pseudo_values(np.delete(values, 2, 0)), 0))
    assert PeakSlope(**MOVES).evidence(ClaimRuns(records), worst=True).supports == 1
    gone = PeakSlope(**MOVES).evidence(ClaimRuns(records[1:]))
    assert (gone.missing, gone.n) == (("seed 0 of data.rate=0.1, data.size=2",), 6)
    one = PeakSlope(**MOVES).evidence(ClaimRuns([each for each in records if each["seed"] == 0]))
    assert (one.n, one.supports) == (0, None)


def test_a_diverged_run_counts_as_the_number_that_the_claim_gives_it():
    records, values = hills([12, 24, 40], lost=[(2, 0.4, 8), (3, 0.1, 2)])
    found = PeakSlope(**MOVES, diverged=-1.0).evidence(ClaimRuns(records))
    values[2, 2, 2] = values[3, 0, 0] = -1.0
    assert found.supports == pytest.approx(greater(pseudo_values(values), 0))
    assert (found.n, found.unknown) == (8, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peak": {"data.size": [8, 16]}}, r"peak is .*; accepted: one setting with at least 3 levels"),
        ({"peak": {"data.size": [0, 8, 16]}}, r"peak.data.size is \[0, 8, 16\]; accepted: positive numbers"),
        ({"along": {"data.rate": [0, 1]}}, r"along.data.rate is \[0, 1\]; accepted: positive numbers"),
        ({"along": {"data.size": [8, 16]}}, "peak and along are both about data.size; accepted: two settings"),
        ({"kind": "max"}, "kind is 'max'; accepted: maximum, minimum"),
        ({"direction": "up"}, "direction is 'up'; accepted: rises, falls"),
        ({"drop": 0}, r"drop is 0; accepted: a number in \(0, inf\)"),
        ({"diverged": "chance"}, "diverged is 'chance'; accepted: a number"),
    ],
)
def test_settings_of_a_peak_that_moves_are_checked(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        PeakSlope(**{**MOVES, **changes})


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
