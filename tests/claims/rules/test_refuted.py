"""Runs without any effect, and runs with the opposite one, are not replicated by any rule at any look."""

import itertools

import numpy as np
import pytest

from genbench.claims import rules
from genbench.claims.family import verdicts
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import Drawn, at, record

LEVELS, SIZES, N = [0, 1, 2, 3, 4], list(range(20)), 32
ALONG = {"data.x": LEVELS}
GROUPS = {"over": {"data.x": SIZES}, "of": {}, "groups": "data.x"}
TWO = [rules.Difference(metric="y", of=at(level), than=0.0, interest=1) for level in (0, 1)]


def curve(*heights):
    """A metric of these means along the levels."""
    random = np.random.default_rng(4)
    return {("y", x): height + 0.3 * random.normal(size=N) for x, height in enumerate(heights)}


def times(ours, theirs):
    random = np.random.default_rng(5)
    return {("y", x): scale * random.weibull(1.5, size=N) for x, scale in enumerate((ours, theirs))}


def metrics(levels, *signs):
    """Metrics a, b, c along the levels by their signs; 0: each level has a height of its own, shared by its seeds."""
    random = np.random.default_rng(6)
    return {
        (name, x): (6 * sign * x / len(levels) if sign else random.normal()) + random.normal(size=N)
        for name, sign in zip("abc", signs, strict=True)
        for x in levels
    }


def unrelated():
    random = np.random.default_rng(7)
    return {(name, x): random.normal(size=N) for name in "ab" for x in LEVELS}


def hills(slope):
    """Parabolas along the levels of x, for two levels of y; the logarithm of their best x moves with that of y."""
    random = np.random.default_rng(8)
    bests = {y: np.log(16) + slope * np.log(y) for y in RATES}
    return {("y", x, y): 0.1 * random.normal(size=N) - (np.log(x) - bests[y]) ** 2 for x in WIDTHS for y in RATES}


def curves(distance):
    """Curves of two sets of runs, so far apart."""
    random = np.random.default_rng(9)
    return {(f"y{step}", x): distance * x + 0.1 * random.normal(size=N) for step in (1, 2, 3) for x in (0, 1)}


def grid(m, n):
    """Runs of a grid: a gap, and two metrics that follow it, or not, or its negative."""
    random, found = np.random.default_rng(10), []
    for x, y, z, seed in itertools.product(range(3), range(3), range(3), range(N)):
        g = 0.1 * random.normal()
        metrics = {"m": m * g + 0.02 * random.normal(), "n": n * g + 0.02 * random.normal(), "g": g}
        found.append(record(seed, metrics, x=x, y=y, z=z))
    return ClaimRuns(found)


def treatments(main, interaction):
    """Two treatments in two conditions, which differ by so much on average, and by so much more in one of them."""
    random = np.random.default_rng(11)
    return {
        ("y", x, y): main * x + interaction * x * (2 * y - 1) + 0.3 * random.normal(size=N)
        for x in (0, 1)
        for y in (0, 1)
    }


def interacts(**settings):
    return rules.Interacts(metric="y", treatments={"data.x": [0, 1]}, over={"data.y": [0, 1]}, **settings)


GRID = {"gap": "g", "over": {f"data.{name}": [0, 1, 2] for name in "xyz"}, "of": {}}
WIDTHS, RATES = [1, 2, 4, 8, 16, 32, 64, 128, 256], [0.5, 1, 2]
MOVES = {"metric": "y", "along": {"data.y": RATES}, "peak": {"data.x": WIDTHS}, "of": {}, "drop": 1}
PAIRS = {"plus": [{"metrics": ["a", "b"]}], "minus": [{"metrics": ["a", "c"]}]}
CONTRAST = [{"weight": 1, "of": at(0)}, {"weight": -1, "of": at(1)}]
CASES = {
    "Difference": (rules.Difference(metric="y", of=at(0), than=at(1), interest=1), curve(0, 0), curve(-2, 0)),
    "Contrast": (rules.Contrast(metric="y", terms=CONTRAST, interest=1), curve(0, 0), curve(-2, 0)),
    "Equivalence": (rules.Equivalence(metric="y", of=at(0), to=at(1), margin=0.5), curve(1, 0), curve(-3, 0)),
    "Order": (rules.Order(metric="y", of=[at(0), at(1), at(2)], interest=1), curve(0, 0, 0), curve(0, -2, -4)),
    "Slope": (rules.Slope(metric="y", along=ALONG, of={}, interest=0.5), curve(0, 0, 0, 0, 0), curve(4, 3, 2, 1, 0)),
    "Trend": (
        rules.Trend(metric="y", along=ALONG, of={}, tau=0.6, interest=1), curve(0, 0, 0, 0, 0), curve(4, 3, 2, 1, 0),
    ),
    "Peak": (rules.Peak(metric="y", along=ALONG, of={}, interest=1), curve(0, 0, 0, 0, 0), curve(4, 2, 1, 2, 4)),
    "PeakSlope": (rules.PeakSlope(**MOVES, interest=0.5), hills(0), hills(-0.7)),
    "Distance": (
        rules.Distance(metric="y*", steps=[1, 2, 3], of=at(0), to=at(1), than=1.0, interest=0.5),
        curves(1), curves(-2),
    ),
    "Interacts": (interacts(margin=0.2, interest=0.5), treatments(1, 0), treatments(1, 0.1)),
    "All": (rules.All(parts=TWO), curve(0, 0), curve(-2, 2)),
    "Any": (rules.Any(parts=TWO), curve(0, 0), curve(-2, -2)),
    "Proportion": (
        rules.Proportion(metric="y", of=at(0), op=">", bound=0, share=0.5, interest=0.9), curve(0), curve(-2),
    ),
    "Sooner": (rules.Sooner(metric="y", of=at(0), than=at(1), steps=100, interest=3), times(40, 40), times(60, 15)),
    "Correlation": (
        rules.Correlation(metrics=["a", "b"], over=ALONG, of={}, interest=0.7),
        unrelated(), metrics(LEVELS, 1, -1, 0),
    ),
    "Correlation, groups": (
        rules.Correlation(metrics=["a", "b"], interest=0.7, **GROUPS),
        metrics(SIZES, 0, 0, 0), metrics(SIZES, 1, -1, 0),
    ),
    "CorrelationDifference": (
        rules.CorrelationDifference(**PAIRS, over=ALONG, of={}, interest=1.5),
        metrics(LEVELS, 1, 1, 1), metrics(LEVELS, 1, -1, 1),
    ),
    "CorrelationDifference, groups": (
        rules.CorrelationDifference(**PAIRS, interest=1, **GROUPS),
        metrics(SIZES, 1, 1, 1), metrics(SIZES, 1, -1, 1),
    ),
    "Exact": (rules.Exact(metric="y", of=at(0), op="<=", than=1), curve(2), curve(3)),
    "Ranks": (rules.Ranks(metric="m", interest=0.5, **GRID), grid(0, 0), grid(-1, -1)),
    "Ranks, psi": (rules.Ranks(metric="m", score="psi", interest=0.5, **GRID), grid(0, 0), grid(-1, -1)),
    "Ranks, sign error": (
        rules.Ranks(metric="m", score="sign_error", sign=-1, margin=-0.3, test_size=10_000, **GRID),
        grid(0, 0), grid(-1, -1),
    ),
    "RanksWrongly": (rules.RanksWrongly(metrics=["m", "n"], test_size=10_000, **GRID), grid(1, 0), grid(1, 1)),
    "RanksDiffer": (
        rules.RanksDiffer(metrics=["m", "n", "g"], axes=["data.x", "data.y"], test_size=10_000, **GRID),
        grid(0, -1), grid(-1, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_no_effect_and_the_opposite_one(name):
    rule, none, opposite = CASES[name]
    for values in (none, opposite):
        runs = Drawn(values) if isinstance(values, dict) else values
        (found,) = verdicts({name: rule}, runs, family=5)
        assert found.status == "not replicated", found.words


def test_every_rule_is_here():
    assert {name.partition(",")[0] for name in CASES} == {*rules.__all__} - {"Rule"}
