import math

import numpy as np
import pytest
from scipy import stats

from genbench.claims.rules import Correlation, CorrelationDifference
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import record

LEVELS = [0, 1, 2, 3, 4, 5]
DRAWN = np.random.default_rng(3).normal(size=(3, 6, 8))
VALUES = {"a": DRAWN[0], "b": 0.9 * DRAWN[0] + DRAWN[1], "c": 0.3 * DRAWN[0] + DRAWN[2]}  # [settings, seeds]
OVER = {"data.x": LEVELS}


def runs(values=VALUES):
    return ClaimRuns(
        record(seed, {name: float(of[x, seed]) for name, of in values.items()}, x=x)
        for x in LEVELS
        for seed in range(8)
    )


def fisher(a, b):
    largest = 1 - 6 / (6**3 - 6)
    rhos = [stats.spearmanr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)]
    return np.arctanh(np.clip(rhos, -largest, largest)).tolist()


def greater(values, bound):
    return stats.ttest_1samp(values, bound, alternative="greater").pvalue


def less(values, bound):
    return stats.ttest_1samp(values, bound, alternative="less").pvalue


def test_correlations_are_tested_over_seeds_by_fishers_z():
    found = Correlation(metrics=["a", "b"], over=OVER, of={}, margin=0.2, interest=0.9).evidence(runs())
    z = fisher(VALUES["a"], VALUES["b"])
    assert found.supports == pytest.approx(greater(z, math.atanh(0.2)))
    assert found.contradicts == pytest.approx(less(z, math.atanh(0.9)))
    assert found.statistic == pytest.approx(math.tanh(np.mean(z)))
    assert found.n == 8


def test_a_negative_correlation():
    rule = Correlation(metrics=["a", "b"], over=[{"data.x": x} for x in LEVELS], of={}, sign=-1)
    found = rule.evidence(runs({**VALUES, "b": -VALUES["b"]}))
    assert found.supports == pytest.approx(greater(fisher(VALUES["a"], VALUES["b"]), 0))


def test_perfect_correlations_are_finite_and_equal():
    found = Correlation(metrics=["a", "d"], over=OVER, of={}).evidence(runs({**VALUES, "d": 2 * VALUES["a"]}))
    assert found.supports == 2**-8
    assert found.statistic == pytest.approx(1 - 6 / 210)


def test_a_constant_metric_has_no_correlation():
    flat = VALUES["b"].copy()
    flat[:, 2] = 0.5
    rule = Correlation(metrics=["a", "b"], over=OVER, of={})
    found = rule.evidence(runs({**VALUES, "b": flat}))
    z = np.delete(fisher(VALUES["a"], VALUES["b"]), 2)
    assert found.supports == pytest.approx(greater(z, 0))
    assert found.unknown == ("seed 2: a metric is equal in all settings",)
    worst = rule.evidence(runs({**VALUES, "b": flat}), worst=True)
    assert worst.supports == pytest.approx(greater([*z, -math.atanh(1 - 6 / 210)], 0))
    all_flat = rule.evidence(runs({**VALUES, "b": np.ones((6, 8))}))
    assert (all_flat.supports, all_flat.n, all_flat.statistic) == (None, 0, None)


def test_a_difference_of_correlations_is_tested_over_seeds():
    rule = CorrelationDifference(
        plus=[{"metrics": ["a", "b"]}], minus=[{"metrics": ["a", "c"]}], over=OVER, of={}, margin=0.1, interest=2
    )
    found = rule.evidence(runs())
    z = np.array(fisher(VALUES["a"], VALUES["b"])) - fisher(VALUES["a"], VALUES["c"])
    assert found.supports == pytest.approx(greater(z, 0.1))
    assert found.contradicts == pytest.approx(less(z, 2))
    assert found.statistic == pytest.approx(z.mean())
    assert (
        rule.words
        == "z(a, b) minus z(a, c) over data.x = 0, 1, 2, 3, 4, 5 of the runs exceeds 0.1 (of interest from 2)"
    )


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"^metrics is 'a'; accepted: two metrics$"):
        Correlation(metrics="a", over=OVER, of={})
    with pytest.raises(ValueError, match=r"^over is \{'data.x': \[1, 2, 3\]\}; accepted: .*at least 4 in all$"):
        Correlation(metrics=["a", "b"], over={"data.x": [1, 2, 3]}, of={})
    with pytest.raises(ValueError, match=r"^margin is 1; accepted: a number in \(-1, 1\)$"):
        Correlation(metrics=["a", "b"], over=OVER, of={}, margin=1)
    with pytest.raises(ValueError, match=r"^sign is 0; accepted: 1, -1$"):
        Correlation(metrics=["a", "b"], over=OVER, of={}, sign=0)
    with pytest.raises(ValueError, match=r"^plus and minus have fewer than two pairs"):
        CorrelationDifference(plus=[{"metrics": ["a", "b"]}], over=OVER, of={})
    with pytest.raises(ValueError, match=r"^plus holds \{'metric': 1\}; accepted: a list of pairs"):
        CorrelationDifference(plus=[{"metric": 1}], over=OVER, of={})


SIZES = list(range(20))


def grouped(slope, *, seeds=3, noise=0.2, diverged=()):
    """Runs of 20 sizes, three seeds each: b follows a along the sizes by the slope, c is noise."""
    random = np.random.default_rng(5)
    a, b, c = random.normal(size=(3, 20, seeds))
    a = np.arange(20)[:, None] / 6 + noise * a
    b = slope * np.arange(20)[:, None] / 6 + noise * b
    values = {"a": a, "b": b, "c": c}
    found = ClaimRuns(
        record(seed, {name: float(of[x, seed]) for name, of in values.items()}, x=x)
        if (x, seed) not in diverged
        else record(seed, {}, status="diverged", x=x)
        for x in SIZES
        for seed in range(seeds)
    )
    return values, found


def jackknife(a, b):
    def z(keep):
        return np.arctanh(stats.spearmanr(a[keep].ravel(), b[keep].ravel()).statistic)

    every = np.arange(20)
    return np.array([20 * z(every) - 19 * z(every != group) for group in every])


BY_SIZE = {"over": {"data.x": SIZES}, "of": {}, "groups": "data.x"}


def test_groups_of_runs_are_the_unit_by_the_jackknife():
    values, found = grouped(0.2)
    one = Correlation(metrics=["a", "b"], margin=0.2, interest=0.95, **BY_SIZE).evidence(found)
    pseudo = jackknife(values["a"], values["b"])
    assert one.supports == pytest.approx(greater(pseudo, math.atanh(0.2)))
    assert one.contradicts == pytest.approx(less(pseudo, math.atanh(0.95)))
    assert (one.n, one.tests) == (20, ())
    assert one.statistic == pytest.approx(math.tanh(pseudo.mean()))
    assert "n = 20 groups; within groups unknown" in one.words  # three runs are no correlation
    rule = CorrelationDifference(plus=[{"metrics": ["a", "b"]}], minus=[{"metrics": ["a", "c"]}], **BY_SIZE)
    both = rule.evidence(found)
    assert both.supports == pytest.approx(greater(pseudo - jackknife(values["a"], values["c"]), 0))
    assert rule.words.endswith("exceeds 0, by groups of data.x, conditional on this grid")
    within = Correlation(metrics=["a", "b"], **BY_SIZE).evidence(grouped(0.2, seeds=5)[1])
    assert "within groups unknown" not in within.words


def test_groups_that_violate_the_claim_contradict_it():
    _, found = grouped(-1.0)
    one = Correlation(metrics=["a", "b"], interest=0.3, **BY_SIZE).evidence(found)
    assert one.supports > 0.99
    assert one.contradicts < 1e-6
    flat = Correlation(metrics=["a", "c"], interest=0.7, **BY_SIZE).evidence(found)
    assert flat.supports > 0.05
    assert flat.contradicts < 0.001


def test_a_diverged_run_of_a_group_is_left_out_and_at_its_worst_decides_nothing():
    _, found = grouped(1.0, diverged={(3, 1)})
    rule = Correlation(metrics=["a", "b"], **BY_SIZE)
    assert (rule.evidence(found).n, rule.evidence(found).supports < 1e-6) == (20, True)
    worst = rule.evidence(found, worst=True)
    assert (worst.supports, worst.contradicts) == (1.0, 1.0)
    _, fewer = grouped(1.0, diverged={(3, seed) for seed in range(3)})
    assert (rule.evidence(fewer).n, rule.evidence(fewer).supports) == (0, None)


def test_groups_are_settings_with_twenty_values():
    for wrong in ("data.y", ["data.x", "data.y"], [], 3):
        with pytest.raises(
            ValueError, match=r"^groups is .*; accepted: a setting of over, or several, with at least 20"
        ):
            Correlation(metrics=["a", "b"], over={"data.x": SIZES}, of={}, groups=wrong)
    with pytest.raises(ValueError, match=r"^groups is 'data.x'; accepted"):
        Correlation(metrics=["a", "b"], over={"data.x": SIZES[:19]}, of={}, groups="data.x")
    grid = {"data.x": SIZES[:5], "data.y": [0, 1, 2, 3]}
    assert Correlation(metrics=["a", "b"], over=grid, of={}, groups=["data.x", "data.y"]).groups == ["data.x", "data.y"]


@pytest.mark.parametrize("points", [4, 5, 12])
def test_what_no_correlation_of_so_many_settings_can_reach_or_miss_is_refused(points):
    """A perfect one was not replicated: it is cut at 1 - 6/(K³ - K)."""
    largest = 1 - 6 / (points**3 - points)
    over = {"data.x": list(range(points))}
    found = ClaimRuns(record(s, {"a": x, "b": 2 * x}, x=x) for s in range(8) for x in range(points))
    below = Correlation(metrics=["a", "b"], over=over, of={}, margin=largest - 1e-6).evidence(found)
    assert (below.supports, below.contradicts) == (2**-8, 1)
    said = rf"is -?[\d.]+; accepted: a number in \(-[\d.]+, [\d.]+\) \(as far as {points} settings can correlate\)$"
    for wrong in ({"margin": largest}, {"margin": 0.999}, {"margin": -largest}, {"interest": largest}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} {said}"):
            Correlation(metrics=["a", "b"], over=over, of={}, **wrong)
    pairs = {"plus": [{"metrics": ["a", "b"]}], "minus": [{"metrics": ["a", "c"]}], "over": over, "of": {}}
    CorrelationDifference(**pairs, margin=2 * math.atanh(largest) - 1e-6)
    for wrong in ({"margin": 2 * math.atanh(largest)}, {"interest": 99}, {"margin": -99}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} {said}"):
            CorrelationDifference(**pairs, **wrong)
