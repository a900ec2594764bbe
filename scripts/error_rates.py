"""Simulates how often the rules of claims decide wrongly, and writes docs/error-rates.md.

Each cell draws its numbers with a seed of its own name, so that any cell can be computed again by itself.
"""

import argparse
import functools
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genbench.claims import rules
from genbench.claims.family import LOOKS, verdicts
from genbench.claims.numbers import Numbers
from genbench.claims.rules import Rule
from genbench.claims.verdict import NOT_REPLICATED, REPLICATED, level

PAGE = Path(__file__).parents[1] / "docs" / "error-rates.md"
SEEDS = (5, 8, 16)
TIMES = 1000
LEVELS = [0, 1, 2, 3, 4]
ALONG = {"data.x": LEVELS}
SIDES = ("supports", "contradicts")
GROUPS: dict[str, Any] = {"over": {"data.x": list(range(20))}, "of": {}, "groups": "data.x"}
GRID: dict[str, Any] = {"gap": "g", "over": {"data.x": LEVELS, "data.y": LEVELS}, "of": {}}
CONFIGURATIONS = [(x, y) for x in LEVELS for y in LEVELS]
WIDTHS, RATES = [1, 2, 4, 8, 16, 32, 64, 128, 256], [0.5, 1, 2]
RHO = 0.7
APART = 2 * math.sqrt(2)
Values = dict[tuple[Any, ...], np.ndarray]  # metric, level, of some rules a second level -> a number for each seed
Draw = Callable[[np.random.Generator, int, Callable[..., np.ndarray]], Values]

# noise of mean 0 and variance 1, by its name: the generator, the shape -> numbers
NOISE: dict[str, Callable[..., np.ndarray]] = {
    "normal": lambda random, *shape: random.normal(size=shape),
    "heavy tails": lambda random, *shape: random.standard_t(3, size=shape) / math.sqrt(3),
    "ties": lambda random, *shape: random.integers(-1, 2, size=shape) * math.sqrt(1.5),
    "skew": lambda random, *shape: random.exponential(size=shape) - 1,
}


class Drawn:
    """Stands for the runs of as many seeds as each metric and level has numbers."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.seeds = range(len(next(iter(values.values()))))
        self.kept: dict[Any, Any] = {}

    def of(self, seeds: Any) -> "Drawn":
        return Drawn({key: values[list(seeds)] for key, values in self.values.items()})

    def sample(self, metric: str, where: Mapping[str, Any], **_: Any) -> Numbers:
        second = [where["data.y"]] if "data.y" in where else []
        values = np.asarray(self.values[metric, where.get("data.x"), *second], dtype=np.float64)
        return Numbers(low=values, high=values, scale=float(np.abs(values[np.isfinite(values)]).max(initial=0)))

    def placed(self, where: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
        place = CONFIGURATIONS.index((where["data.x"], where["data.y"]))
        return place * len(self.seeds) + np.arange(len(self.seeds)), []

    def column(self, metric: str) -> np.ndarray:
        return np.concatenate([self.values[metric, x, y] for x, y in CONFIGURATIONS])

    def keys(self, settings: Any) -> dict[Any, Any]:
        return {}

    def check_metric(self, metric: str, planned: Any) -> None:
        assert any(key[0] == metric for key in self.values)


def at(level: int) -> dict[str, int]:
    return {"data.x": level}


def _levels(heights: list[float]) -> Draw:
    """A metric of these means along a setting."""
    return lambda random, n, noise: {("y", x): height + noise(random, n) for x, height in enumerate(heights)}


def _one(effect: float) -> Draw:
    """One number a seed, of this mean."""
    return _levels([effect])


def _shares(share: float) -> Draw:
    return lambda random, n, noise: {("y", 0): share - random.random(n)}


def _extremes(effect: float) -> Draw:
    """Curves that all but rise, whose last level has the noise."""

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        return {("y", x): effect * x / 4 + (x == 4) * 0.3 * noise(random, n) for x in LEVELS}

    return draw


def _times(ratio: float) -> Draw:
    """Times that pairs share a factor of; a third lies beyond the steps."""

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        shared = 60 * np.exp(random.normal(size=n))
        times = [shared * random.weibull(1.5, size=n), ratio * shared * random.weibull(1.5, size=n)]
        return {("y", i): np.where(time > 100, np.inf, time) for i, time in enumerate(times)}

    return draw


def _pairs(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
    """Metrics a, b and c, independent, at each level."""
    return {(name, x): noise(random, n) for name in "abc" for x in LEVELS}


def _metrics(levels: list[int], *, rho: float, shared: float = 0.0) -> Draw:
    """Metrics a and b of correlation ``rho``, and c, independent, at each level; ``shared`` is the part of their
    variance that the runs of a level have in common."""

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        found: Values = {}
        for x in levels:
            a, b, c = (math.sqrt(shared) * noise(random, 1) + math.sqrt(1 - shared) * noise(random, n) for _ in "abc")
            found |= {("a", x): a, ("b", x): rho * a + math.sqrt(1 - rho**2) * b, ("c", x): c}
        return found

    return draw


def _on_grid(*, rho: float = 0.0, shared: float = 0.5) -> Draw:
    """A gap of small numbers and measures m, n and o of each configuration, m of correlation ``rho`` with the gap and
    all others independent; ``shared`` is the part of their variance that the runs of a configuration have in common."""

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        found: Values = {}
        for key in CONFIGURATIONS:
            g, m, *others = (
                math.sqrt(shared) * noise(random, 1) + math.sqrt(1 - shared) * noise(random, n) for _ in "gmno"
            )
            found |= {("g", *key): 0.1 * np.clip(g, -5, 5), ("m", *key): rho * g + math.sqrt(1 - rho**2) * m}
            found |= {(name, *key): values for name, values in zip("no", others, strict=True)}
        return found

    return draw


@functools.cache
def _tau(shape: str) -> float:
    """Return Kendall's τ of m and the gap over many independent runs."""
    a, b = NOISE[shape](np.random.default_rng(9), 2, 2, 1_000_000)
    g, m = a, RHO * a + math.sqrt(1 - RHO**2) * b
    return float((np.sign(g[0] - g[1]) * np.sign(m[0] - m[1])).mean())


@functools.cache
def _mean_z(shape: str) -> float:
    """Return artanh of the correlation of metrics a and b in a seed, on average, as the rules compute it."""
    evidence = rules.Correlation(metrics=["a", "b"], over=ALONG, of={}).evidence(
        Drawn(_metrics(LEVELS, rho=RHO)(np.random.default_rng(9), 200_000, NOISE[shape]))  # type: ignore[arg-type]
    )
    assert evidence.statistic is not None
    return math.atanh(evidence.statistic)


@functools.cache
def _pooled_z(shape: str) -> float:
    """Return artanh of the correlation of metrics a and b over many groups of one run."""
    from scipy.stats import spearmanr

    parts = NOISE[shape](np.random.default_rng(9), 4, 1_000_000)
    a, b = math.sqrt(0.5) * (parts[:2] + parts[2:])
    return math.atanh(float(spearmanr(a, RHO * a + math.sqrt(1 - RHO**2) * b).statistic))


def _hills(slope: float, shape: Callable[[np.ndarray], np.ndarray]) -> Draw:
    """Curves along a setting of doubled levels; the logarithm of their best level moves with that of another setting,
    from a place between two levels that every paper draws anew. ``shape`` is the curve over doublings."""

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        middle = 4 + random.uniform(-0.5, 0.5)
        far = {(x, y): math.log2(x) - middle - slope * math.log2(y) for x in WIDTHS for y in RATES}
        return {("y", *key): shape(np.float64(value)) + noise(random, n) for key, value in far.items()}

    return draw


def _even(x: np.ndarray) -> np.ndarray:
    return -1.7 * x**2


def _steep(x: np.ndarray) -> np.ndarray:
    """Falls faster to the left: by 3 and 18 after one and two doublings there, by 1 and 4 to the right."""
    return -2.4 * (np.exp(-1.2 * x) + 1.2 * x - 1)


def _curves(apart: float) -> Draw:
    """Curves of two sets of runs at three steps."""
    return lambda random, n, noise: {(f"y{s}", x): apart * x + noise(random, n) for s in (1, 2, 3) for x in (0, 1)}


def _treatments(share: float) -> Draw:
    """Four treatments in four conditions, of which the interaction has this share of a variance of 1.5."""
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) * math.sqrt(1.5)
    main = math.sqrt(1 - share) * signs[0]
    interaction = math.sqrt(share) * (signs[1][:, None] * signs[2][None, :]) / math.sqrt(1.5)

    def draw(random: np.random.Generator, n: int, noise: Callable[..., np.ndarray]) -> Values:
        return {("y", x, y): main[x] + interaction[x, y] + 2 * y + noise(random, n) for x in range(4) for y in range(4)}

    return draw


def _interacts(margin: float, interest: float | None) -> Rule:
    four = [0, 1, 2, 3]
    return rules.Interacts(
        metric="y", treatments={"data.x": four}, over={"data.y": four}, margin=margin, interest=interest
    )


@functools.cache
def _distance(apart: float, shape: str, margin: float) -> Rule:
    """Return the rule whose margin (or effect of interest) the curves are at."""
    drawn = NOISE[shape](np.random.default_rng(9), 2, 1_000_000)
    mean = float(np.abs(apart + drawn[0] - drawn[1]).mean())
    return rules.Distance(
        metric="y*", steps=[1, 2, 3], of=at(0), to=at(1), than=mean + margin, margin=0.2, interest=0.7
    )


_DIFFERENCE = rules.Difference(metric="y", of=at(0), than=0.0, margin=0.3, interest=1.1)
_OTHER = rules.Difference(metric="y", of=at(1), than=0.0, margin=0.3, interest=1.1)
_PEAK = rules.Peak(metric="y", along=ALONG, of={}, interest=1)
_SOONER = rules.Sooner(metric="y", of=at(0), than=at(1), steps=100, ratio=1.5, interest=3)
_CONTRAST = rules.Contrast(
    metric="y", terms=[{"weight": 1, "of": at(0)}, {"weight": -0.5, "of": at(1)}], margin=0.3, interest=1.1
)
_PLUS_MINUS: dict[str, Any] = {"plus": [{"metrics": ["a", "b"]}], "minus": [{"metrics": ["a", "c"]}]}
_MOVES = rules.PeakSlope(
    metric="y", along={"data.y": RATES}, peak={"data.x": WIDTHS}, of={}, drop=1, margin=0.5, interest=1
)
_NULL_GROUPS, _GROUPS = (_metrics(list(range(20)), rho=rho, shared=0.5) for rho in (0.0, RHO))


def _correlation(shape: str) -> Rule:
    return rules.Correlation(metrics=["a", "b"], over=ALONG, of={}, interest=math.tanh(_mean_z(shape)))


def _correlation_difference(shape: str) -> Rule:
    return rules.CorrelationDifference(**_PLUS_MINUS, over=ALONG, of={}, interest=_mean_z(shape))


def _correlation_of_groups(shape: str) -> Rule:
    return rules.Correlation(metrics=["a", "b"], interest=math.tanh(_pooled_z(shape)), **GROUPS)


def _difference_of_groups(shape: str) -> Rule:
    return rules.CorrelationDifference(**_PLUS_MINUS, interest=_pooled_z(shape), **GROUPS)


def _tau_of_interest(shape: str) -> Rule:
    return rules.Ranks(metric="m", interest=_tau(shape), **GRID)


EVERY, NORMAL, FIVE = "every", "normal", "five"
# rule, its side, the rule itself or of a noise, the numbers of a seed on the edge of that side, and the columns: every
# one, normal noise alone where its shape does not matter, or five runs of each group or configuration
CASES: list[tuple[str, str, Rule | Callable[[str], Rule], Draw, str]] = [
    ("Difference", "supports", _DIFFERENCE, _one(0.3), EVERY),
    ("Difference", "contradicts", _DIFFERENCE, _one(1.1), EVERY),
    ("Contrast", "supports", _CONTRAST, _levels([0.3, 0]), EVERY),
    ("Contrast", "contradicts", _CONTRAST, _levels([1.1, 0]), EVERY),
    ("Equivalence", "supports", rules.Equivalence(metric="y", of=at(0), to=0.0, margin=2), _one(2), EVERY),
    ("Equivalence", "contradicts", rules.Equivalence(metric="y", of=at(0), to=0.0, margin=2), _one(2), EVERY),
    ("Slope", "supports", rules.Slope(metric="y", along=ALONG, of={}), _levels([0] * 5), EVERY),
    ("Slope", "contradicts", rules.Slope(metric="y", along=ALONG, of={}, interest=1), _levels([0, 1, 2, 3, 4]), EVERY),
    ("Order", "supports", rules.Order(metric="y", of=[at(0), at(1), at(2)]), _levels([0, 0, 9]), EVERY),
    ("Order", "contradicts", rules.Order(metric="y", of=[at(0), at(1), at(2)], interest=1), _levels([0, 1, 2]), EVERY),
    ("All", "supports", rules.All(parts=[_DIFFERENCE, _OTHER]), _levels([0.3, 9]), EVERY),
    ("All", "contradicts", rules.All(parts=[_DIFFERENCE, _OTHER]), _levels([1.1, 1.1]), EVERY),
    ("Any", "supports", rules.Any(parts=[_DIFFERENCE, _OTHER]), _levels([0.3, 0.3]), EVERY),
    ("Any", "contradicts", rules.Any(parts=[_DIFFERENCE, _OTHER]), _levels([1.1, -9]), EVERY),
    ("Peak", "supports", _PEAK, _levels([0, 3, 3, 3, 3]), EVERY),
    ("Peak", "supports, flat", _PEAK, _levels([0] * 5), EVERY),
    ("Peak", "contradicts", _PEAK, _levels([0, 0, 1, 0, 0]), EVERY),
    ("Trend", "supports", rules.Trend(metric="y", along=ALONG, of={}, tau=0.5, margin=5), _extremes(5), EVERY),
    (
        "Trend", "contradicts",
        rules.Trend(metric="y", along=ALONG, of={}, tau=0.5, margin=5, interest=6), _extremes(6), EVERY,
    ),
    ("PeakSlope", "supports", _MOVES, _hills(0.5, _even), EVERY),
    ("PeakSlope", "contradicts", _MOVES, _hills(1, _even), EVERY),
    ("PeakSlope", "supports, steep on one side", _MOVES, _hills(0.5, _steep), EVERY),
    ("PeakSlope", "contradicts, steep on one side", _MOVES, _hills(1, _steep), EVERY),
    ("Interacts", "supports", _interacts(0.5, None), _treatments(0.5), EVERY),
    ("Interacts", "contradicts", _interacts(0.2, 0.5), _treatments(0.5), EVERY),
    ("Distance", "supports", lambda shape: _distance(APART, shape, 0.2), _curves(APART), EVERY),
    ("Distance", "supports, noise alone", lambda shape: _distance(0, shape, 0.2), _curves(0), EVERY),
    ("Distance", "contradicts", lambda shape: _distance(APART, shape, 0.7), _curves(APART), EVERY),
    ("Correlation", "supports", rules.Correlation(metrics=["a", "b"], over=ALONG, of={}), _pairs, EVERY),
    ("Correlation", "contradicts", _correlation, _metrics(LEVELS, rho=RHO), EVERY),
    (
        "CorrelationDifference", "supports",
        rules.CorrelationDifference(**_PLUS_MINUS, over=ALONG, of={}), _pairs, EVERY,
    ),
    ("CorrelationDifference", "contradicts", _correlation_difference, _metrics(LEVELS, rho=RHO), EVERY),
    ("Correlation, groups", "supports", rules.Correlation(metrics=["a", "b"], **GROUPS), _NULL_GROUPS, FIVE),
    ("Correlation, groups", "contradicts", _correlation_of_groups, _GROUPS, FIVE),
    (
        "CorrelationDifference, groups", "supports",
        rules.CorrelationDifference(**_PLUS_MINUS, **GROUPS), _NULL_GROUPS, FIVE,
    ),
    ("CorrelationDifference, groups", "contradicts", _difference_of_groups, _GROUPS, FIVE),
    ("Ranks", "supports", rules.Ranks(metric="m", **GRID), _on_grid(), FIVE),
    ("Ranks", "contradicts", _tau_of_interest, _on_grid(rho=RHO, shared=0), FIVE),
    ("Ranks, difference", "supports", rules.Ranks(metric="m", than_metric="n", **GRID), _on_grid(), FIVE),
    ("Ranks, Ψ", "supports", rules.Ranks(metric="m", score="psi", **GRID), _on_grid(), FIVE),
    (
        "Ranks, sign error", "supports",
        rules.Ranks(metric="m", score="sign_error", margin=0.5, test_size=10_000, **GRID), _on_grid(), FIVE,
    ),
    ("RanksWrongly", "supports", rules.RanksWrongly(metrics=["m"], test_size=10_000, **GRID), _on_grid(), FIVE),
    (
        "RanksDiffer", "supports",
        rules.RanksDiffer(
            metrics=["m", "n", "o"], axes=["data.x", "data.y"], margin=0.9, test_size=10_000, **GRID
        ),
        _on_grid(), FIVE,
    ),
    (
        "Proportion", "supports",
        rules.Proportion(metric="y", of=at(0), op=">", bound=0, share=0.5), _shares(0.5), NORMAL,
    ),
    (
        "Proportion", "contradicts",
        rules.Proportion(metric="y", of=at(0), op=">", bound=0, share=0.5, interest=0.9), _shares(0.9), NORMAL,
    ),
    ("Sooner", "supports", _SOONER, _times(1.5), NORMAL),
    ("Sooner", "contradicts", _SOONER, _times(3), NORMAL),
]  # fmt: skip


def shown(case: int, shape: str, n: int) -> bool:
    """Tell whether a cell of the table has a number."""
    columns = CASES[case][4]
    return columns == EVERY or (columns == NORMAL and shape == NORMAL) or (columns == FIVE and n == SEEDS[0])


def papers(case: int, times: int = TIMES) -> int:
    """Return how many papers are simulated for a cell: a quarter for groups and grids, which take long."""
    return times // 4 if CASES[case][4] == FIVE else times


def rate(case: int, shape: str, n: int, times: int = TIMES) -> float:
    """Return how often a side of a rule decides at the level of the first look, where it should not."""
    name, side, rule, draw, _ = CASES[case]
    rule, times = rule(shape) if callable(rule) else rule, papers(case, times)
    random = np.random.default_rng(zlib.crc32(f"{name} {side} {shape} {n}".encode()))
    ps = [_p(rule, side, draw(random, n, NOISE[shape])) for _ in range(times)]
    return sum(p <= level(1) for p in ps) / times


def _p(rule: Rule, side: str, values: Values) -> float:
    found: float | None = getattr(rule.evidence(Drawn(values)), side.partition(",")[0])  # type: ignore[arg-type]
    return 1.0 if found is None else found


def looks(family: int, wrong: str, shape: str, times: int = TIMES // 2) -> float:
    """Return how often any of ``family`` claims, all at the edge, has a false verdict at any look."""
    effect = 0.0 if wrong == REPLICATED else 1.0
    found: dict[str, Rule] = {
        str(i): rules.Difference(metric="y", of=at(i), than=0.0, interest=1.0) for i in range(family)
    }
    random = np.random.default_rng(zlib.crc32(f"{family} {wrong} {shape}".encode()))
    false = 0
    for _ in range(times):
        some: Any = Drawn({("y", i): effect + NOISE[shape](random, LOOKS[-1]) for i in range(family)})
        false += any(verdict.status == wrong for verdict in verdicts(found, some, family=family))
    return false / times


def told(share: float, most: float, times: int) -> str:
    """Return a rate in percent, in bold if it exceeds ``most`` by more than three Monte-Carlo errors.

    >>> told(0.02, 0.025, 1000), told(0.08, 0.025, 1000)
    ('2.0', '**8.0**')
    """
    text = f"{100 * share:.1f}"
    return f"**{text}**" if share > most + 3 * math.sqrt(most * (1 - most) / times) else text


HEAD = """\
# Error rates of the rules of claims

Written by `python scripts/error_rates.py`, which simulates every rule where it should not decide.

Each number is the share, in percent, of simulated papers in which a side of a rule decides at 2.5 %, the level of
the first look, although the effect lies just on its edge: *supports* at the margin, *contradicts* at the effect of
interest. So 2.5 is what a rule may reach; conjunctions lie below it. The noise of a set of runs has variance 1.
{times:,} papers a cell: a true 2.5 is shown with a Monte-Carlo error of {error:.1f}; **bold** is more than three
of them above it.

"""
LIMITS = """
Heavy tails: Student's t with 3 degrees. Ties: each number is one of three. Skew: exponential. `Proportion` and
`Sooner` count and rank, so that the shape of the noise does not matter. `Exact` is no statement about chance.
`Distance` is one of curves that lie two standard deviations apart; of curves that differ by noise alone, distances
are skewed. `PeakSlope` is one of parabolas that fall by 1.7 within a doubling, and of curves that fall by 3 to the
left and by 1 to the right, with drop 1. `Interacts` is one of four treatments in four conditions. Groups are 20, of
five runs each (in place of n seeds) that share half of their variance; a quarter of the papers are simulated for them.
`Ranks`, `RanksWrongly` and `RanksDiffer` have 25
configurations likewise, in a grid of five by five, but at the interest independent runs; the measures of `RanksDiffer`
are noise alone, the limit of equal orders.

**A limit.** A t test of five to sixteen numbers that are all skewed to one side errs more often than its level on one
of its sides. Differences paired by seed are skewed only where the two sets of runs differ in shape; a metric near its
bound, such as an accuracy near 1, that is compared with a number can be: take `Proportion`, or a logarithm. Numbers
that take three values alone exceed the level by less.

## A family of claims over the looks

The share, in percent, of simulated papers with at least one false verdict of a kind at any of the looks at 8, 16 and 32
seeds, all claims at the edge. At most 4.4 by Holm's correction and the levels 2.5, 1.25 and 0.625.

"""


def page(times: int = TIMES) -> str:
    """Return the page."""
    most = sum(level(look) for look in (1, 2, 3))
    edges, families = [], []
    for case, (name, side, *_) in enumerate(CASES):
        cells = [
            told(rate(case, shape, n, times), level(1), papers(case, times)) if shown(case, shape, n) else ""
            for shape in NOISE
            for n in SEEDS
        ]
        edges.append([name, side, *cells])
    for family in (1, 5):
        for wrong in (REPLICATED, NOT_REPLICATED):
            cells = [told(looks(family, wrong, shape, times // 2), most, times // 2) for shape in NOISE]
            families.append([str(family), wrong, *cells])
    head = HEAD.format(times=times, error=100 * math.sqrt(level(1) * (1 - level(1)) / times))
    columns = [f"{shape}, n = {n}" for shape in NOISE for n in SEEDS]
    return (
        head + table(["rule", "side", *columns], edges) + LIMITS + table(["claims", "false verdict", *NOISE], families)
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return rows as a Markdown table."""
    rule = "|:--|:--" + "|--:" * (len(head) - 2) + "|"
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
