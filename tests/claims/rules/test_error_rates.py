"""How often rules decide wrongly where the effect lies at the margin, or at the effect of interest."""

import math

import numpy as np
import pytest
import scipy.stats

from genbench.claims.family import verdicts
from genbench.claims.rules import (
    Contrast,
    Correlation,
    Difference,
    Distance,
    Equivalence,
    Peak,
    PeakSlope,
    Proportion,
    Slope,
    Sooner,
    Trend,
)
from tests.helpers.claims import Drawn, assert_level_is_kept, at

SEEDS = pytest.mark.parametrize("n", [5, 8, 16])
SIDES = pytest.mark.parametrize("side", ["supports", "contradicts"])
LEVELS = [0, 1, 2, 3, 4]
ALONG = {"data.x": LEVELS}


def ps(rule, side, draw, times, seed=0):
    """Return the p values of a side of the evidence, for numbers that ``draw(random)`` makes: metric, level -> [n]."""
    random = np.random.default_rng(seed)
    return [getattr(rule.evidence(Drawn(draw(random))), side) for _ in range(times)]


def curves(random, heights, n):
    return {("y", x): height + random.normal(size=n) for x, height in zip(LEVELS, heights, strict=True)}


@SEEDS
@SIDES
def test_difference(n, side):
    rule = Difference(metric="y", of=at(0), than=at(1), margin=0.3, interest=1.1)
    effect = 0.3 if side == "supports" else 1.1

    def draw(random):
        shared = random.normal(size=n)
        return {("y", 0): shared + effect + random.normal(size=n), ("y", 1): shared + random.normal(size=n)}

    assert_level_is_kept(ps(rule, side, draw, 2000))


@SEEDS
@SIDES
def test_contrast(n, side):
    terms = [{"weight": weight, "of": at(x)} for x, weight in enumerate([1, -1, -1, 1])]
    rule = Contrast(metric="y", terms=terms, margin=0.3, interest=1.1)
    effect = 0.3 if side == "supports" else 1.1
    assert_level_is_kept(ps(rule, side, lambda random: curves(random, [effect, 0, 0, 0, 0], n), 2000))


@SEEDS
@SIDES
def test_distance(n, side):
    """Curves that lie two standard deviations of their noise apart; of noise alone, distances are skewed."""
    apart = 2 * math.sqrt(2)
    mean = float(scipy.stats.foldnorm.mean(2)) * math.sqrt(2)  # of the distance at a step
    than = mean + (0.2 if side == "supports" else 0.7)
    rule = Distance(metric="y*", steps=[1, 2, 3], of=at(0), to=at(1), than=than, margin=0.2, interest=0.7)

    def draw(random):
        return {(f"y{step}", x): apart * x + random.normal(size=n) for step in (1, 2, 3) for x in (0, 1)}

    assert_level_is_kept(ps(rule, side, draw, 2000))


@SEEDS
@SIDES
@pytest.mark.parametrize("end", [-1, 1])
def test_equivalence(n, side, end):
    """A difference of just the margin is neither within it nor beyond it."""
    rule = Equivalence(metric="y", of=at(0), to=0.0, margin=0.8)
    assert_level_is_kept(ps(rule, side, lambda random: {("y", 0): end * 0.8 + random.normal(size=n)}, 1500))


@SEEDS
@SIDES
def test_proportion(n, side):
    rule = Proportion(metric="y", of=at(0), op=">", bound=0, share=0.5, interest=0.9)
    share = 0.5 if side == "supports" else 0.9
    assert_level_is_kept(ps(rule, side, lambda random: {("y", 0): share - random.random(n)}, 3000))


@SEEDS
def test_trend_of_half_of_the_seeds(n):
    """The extreme levels differ widely, and half of the curves are monotone."""
    rule = Trend(metric="y", along=ALONG, of={}, tau=0.8)

    def draw(random):
        inner = np.where(random.random(n) < 0.5, 1, -1)
        return {("y", x): 10.0 * x + 15 * (inner < 0) * (x == 1) - 15 * (inner < 0) * (x == 3) for x in LEVELS}

    assert_level_is_kept(ps(rule, "supports", draw, 1500))


@SEEDS
@SIDES
def test_trend_of_the_extreme_levels(n, side):
    """Every curve is all but monotone, and the extreme levels differ by the margin, or by the interest."""
    rule = Trend(metric="y", along=ALONG, of={}, tau=0.5, margin=5, interest=6)
    effect = 5 if side == "supports" else 6

    def draw(random):
        return {("y", x): effect * x / 4 + (x == 4) * 0.4 * random.normal(size=n) for x in LEVELS}

    assert_level_is_kept(ps(rule, side, draw, 1200))


@SEEDS
@SIDES
def test_slope(n, side):
    rule = Slope(metric="y", along=ALONG, of={}, margin=0.2, interest=0.6)
    slope = 0.2 if side == "supports" else 0.6
    assert_level_is_kept(ps(rule, side, lambda random: curves(random, [slope * x for x in LEVELS], n), 1500))


@SEEDS
@pytest.mark.parametrize("heights", [(0, 0, 0, 0, 0), (0, 3, 3, 3, 3), (0, 1, 2, 3, 4)])
def test_peak_of_curves_without_one(n, heights):
    rule = Peak(metric="y", along=ALONG, of={})
    assert_level_is_kept(ps(rule, "supports", lambda random: curves(random, heights, n), 500))


@SEEDS
@pytest.mark.parametrize("heights", [(0, 0, 1, 0, 0), (0, 1, 1, 1, 0), (0, 5, 5, 5, 4)])
def test_peak_of_interest(n, heights):
    rule = Peak(metric="y", along=ALONG, of={}, interest=1)
    assert_level_is_kept(ps(rule, "contradicts", lambda random: curves(random, heights, n), 500))


@SEEDS
@SIDES
def test_peak_slope(n, side):
    """Curves that fall faster to the left, from a place between two levels."""
    widths, rates = [2**k for k in range(9)], [0.5, 1, 2]
    moves = {"along": {"data.y": rates}, "peak": {"data.x": widths}}
    rule = PeakSlope(metric="y", of={}, drop=1, margin=0.5, interest=1, **moves)
    slope = 0.5 if side == "supports" else 1

    def draw(random):
        middle = 4 + random.uniform(-0.5, 0.5)
        far = {(x, y): 1.2 * (np.log2(x) - middle - slope * np.log2(y)) for x in widths for y in rates}
        return {("y", *key): -2.4 * (np.exp(-value) + value - 1) + random.normal(size=n) for key, value in far.items()}

    assert_level_is_kept(ps(rule, side, draw, 500))


@SEEDS
@SIDES
def test_sooner(n, side):
    """Pairs share a factor; a third of the times lies beyond the steps."""
    rule = Sooner(metric="y", of=at(0), than=at(1), steps=100, ratio=1.5, interest=3)
    ratio = 1.5 if side == "supports" else 3

    def draw(random):
        shared = 60 * np.exp(random.normal(size=n))
        times = [shared * random.weibull(1.5, size=n) for _ in range(2)]
        times[1] = ratio * times[1]
        return {("y", i): np.where(time > 100, np.inf, time) for i, time in enumerate(times)}

    assert_level_is_kept(ps(rule, side, draw, 700))


RHO = 0.7


def correlated(random, shape):
    """Return two metrics of normal numbers [settings, seeds] whose correlation is RHO."""
    a = random.normal(size=shape)
    return a, RHO * a + math.sqrt(1 - RHO**2) * random.normal(size=shape)


def mean_z():
    """Fisher's z of Spearman's correlation of five settings, on average: the effect that the rule estimates."""
    a, b = correlated(np.random.default_rng(9), (5, 200_000))
    ranks = [values.argsort(0).argsort(0) - 2.0 for values in (a, b)]
    largest = 1 - 6 / 120
    return float(np.arctanh(np.clip((ranks[0] * ranks[1]).sum(0) / 10, -largest, largest)).mean())


@SEEDS
@pytest.mark.parametrize("of_interest", [False, True])
def test_correlation(n, of_interest):
    interest = math.tanh(mean_z()) if of_interest else None
    rule = Correlation(metrics=["a", "b"], over=ALONG, of={}, interest=interest)

    def draw(random):
        a, b = correlated(random, (5, n)) if of_interest else random.normal(size=(2, 5, n))
        return {(name, x): values[x] for name, values in (("a", a), ("b", b)) for x in LEVELS}

    assert_level_is_kept(ps(rule, "contradicts" if of_interest else "supports", draw, 1000))


@SIDES
def test_correlation_over_twenty_groups_of_three_runs(side):
    """Runs of a group share a level of either metric; of independent metrics the correlation is 0."""
    sizes = list(range(20))
    rule = Correlation(metrics=["a", "b"], over={"data.x": sizes}, of={}, groups="data.x")

    def draw(random):
        return {(name, x): random.normal() + 0.5 * random.normal(size=3) for name in "ab" for x in sizes}

    assert_level_is_kept(ps(rule, side, draw, 250))


@pytest.mark.parametrize(("effect", "wrong"), [(0.0, "replicated"), (1.0, "not replicated")])
def test_a_family_over_three_looks(effect, wrong):
    """A false verdict on any of four claims, at any look: at most 0.025 + 0.0125 + 0.00625 of each kind."""
    rules = {str(i): Difference(metric="y", of=at(i), than=0.0, interest=1.0) for i in range(4)}
    random, times, false = np.random.default_rng(1), 400, 0
    for _ in range(times):
        some = Drawn({("y", i): effect + random.normal(size=32) for i in range(4)})
        false += any(verdict.status == wrong for verdict in verdicts(rules, some, family=4))
    share, most = false / times, 0.04375
    assert 0 < share <= most + 3 * math.sqrt(most * (1 - most) / times)
