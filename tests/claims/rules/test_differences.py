import math

import numpy as np
import pytest
from scipy import stats

from genbench.claims.registration import judged, read
from genbench.claims.rules import Difference, Equivalence, Order
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, at, record, runs, sweep

A = [0.71, 0.73, 0.70, 0.75, 0.72, 0.74, 0.73, 0.71]
B = [0.62, 0.60, 0.63, 0.64, 0.61, 0.66, 0.60, 0.62]
D = np.array(A) - np.array(B)


def greater(values, bound):
    return stats.ttest_1samp(values, bound, alternative="greater").pvalue


def less(values, bound):
    return stats.ttest_1samp(values, bound, alternative="less").pvalue


def test_a_difference_is_tested_at_the_margin_and_at_the_interest():
    rule = Difference(metric=ACCURACY, of=at(0), than=at(1), margin=0.05, interest=0.12)
    found = rule.evidence(runs(x0=A, x1=B))
    assert found.supports == pytest.approx(greater(D, 0.05))
    assert found.contradicts == pytest.approx(less(D, 0.12))
    assert found.statistic == pytest.approx(D.mean())
    assert found.interval == pytest.approx(stats.t.interval(0.95, 7, loc=D.mean(), scale=stats.sem(D)))
    assert (found.n, found.interest) == (8, True)
    assert found.words == "mean difference 0.1012 [0.08259, 0.1199], n = 8"
    assert rule.words == (
        f"{ACCURACY} of data.x=0 exceeds {ACCURACY} of data.x=1 by more than 0.05 (of interest from 0.12)"
    )


def test_without_an_interest_what_is_short_of_the_margin_contradicts():
    found = Difference(metric=ACCURACY, of=at(0), than=at(1), margin=0.2).evidence(runs(x0=A, x1=B))
    assert found.contradicts == pytest.approx(less(D, 0.2))
    assert not found.interest


def test_a_difference_from_a_number_and_of_two_metrics():
    found = Difference(metric=ACCURACY, of=at(0), than=0.5, margin=0.2).evidence(runs(x0=A))
    assert found.supports == pytest.approx(greater(A, 0.7))
    records = [record(seed, {"a": a, "b": b}) for seed, (a, b) in enumerate(zip(A, B, strict=True))]
    two = Difference(metric="a", of={}, than_metric="b").evidence(ClaimRuns(records))
    assert two.supports == pytest.approx(greater(D, 0))


def test_a_share_of_what_others_have():
    rule = Difference(metric=ACCURACY, of=at(1), than=at(0), factor=0.8, margin=0.01)
    found = rule.evidence(runs(x0=A, x1=B))
    assert found.supports == pytest.approx(greater(np.array(B) - 0.8 * np.array(A), 0.01))
    assert rule.words == f"{ACCURACY} of data.x=1 exceeds 0.8 times {ACCURACY} of data.x=0 by more than 0.01"
    some = runs(x0=[None, *A[1:]], x1=B)
    bounded = Difference(metric=ACCURACY, of=at(1), than=at(0), factor=0.8, bounds=[0, 1]).evidence(some, worst=True)
    assert bounded.supports == pytest.approx(greater([B[0] - 0.8, *(np.array(B) - 0.8 * np.array(A))[1:]], 0))


def test_ratios_are_differences_of_logarithms():
    rule = Difference(metric=ACCURACY, of=at(0), than=at(1), log=True, margin=1.1, interest=1.25)
    found = rule.evidence(runs(x0=A, x1=B))
    logs = np.log(A) - np.log(B)
    assert found.supports == pytest.approx(greater(logs, math.log(1.1)))
    assert found.contradicts == pytest.approx(less(logs, math.log(1.25)))
    assert found.statistic == pytest.approx(stats.gmean(np.array(A) / B))
    assert found.interval == pytest.approx(np.exp(stats.t.interval(0.95, 7, loc=logs.mean(), scale=stats.sem(logs))))
    assert Difference(metric=ACCURACY, of=at(0), than=at(1), log=True).margin == 1


def test_what_has_no_logarithm_is_unknown():
    found = Difference(metric=ACCURACY, of=at(0), than=at(1), log=True).evidence(runs(x0=[*A, 0.0], x1=[*B, 0.5]))
    assert found.n == 8
    of = "test/performance/accuracy of seed 8 of data.x=0"
    assert found.unknown == (f"{of} is 0, which has no logarithm",)


def test_equal_differences_are_tested_by_their_sign():
    some = runs(x0=[0.92, 0.93, 0.94, 0.95, 0.96], x1=[0.90, 0.91, 0.92, 0.93, 0.94])
    found = Difference(metric=ACCURACY, of=at(0), than=at(1), interest=0.1).evidence(some)
    assert (found.supports, found.contradicts) == (2**-5, 2**-5)
    at_margin = Difference(metric=ACCURACY, of=at(0), than=at(1), margin=0.02).evidence(some)
    assert (at_margin.supports, at_margin.contradicts) == (1, 1)


def test_diverged_runs_are_left_out_or_at_their_worst():
    some = runs(x0=[None, *A[1:]], x1=[*B[:-1], None])
    rule = Difference(metric=ACCURACY, of=at(0), than=at(1), bounds=[0, 1])
    without, worst = rule.evidence(some), rule.evidence(some, worst=True)
    assert without.n == 6
    assert without.supports == pytest.approx(greater(D[1:-1], 0))
    low, high = [0 - B[0], *D[1:-1], A[-1] - 1], [1 - B[0], *D[1:-1], A[-1] - 0]
    assert worst.n == 8
    assert worst.supports == pytest.approx(greater(low, 0))
    assert worst.contradicts == pytest.approx(less(high, 0))
    assert worst.unknown == without.unknown == ("seed 0 of data.x=0: diverged", "seed 7 of data.x=1: diverged")
    unbounded = Difference(metric=ACCURACY, of=at(0), than=at(1)).evidence(some, worst=True)
    assert (unbounded.supports, unbounded.contradicts) == (1, 1)


def test_one_seed_and_none():
    one = Difference(metric=ACCURACY, of=at(0), than=at(1)).evidence(runs(x0=[0.7], x1=[0.6]))
    assert (one.supports, one.interval, one.n) == (0.5, None, 1)
    none = Difference(metric=ACCURACY, of=at(0), than=at(1)).evidence(runs(x0=[None], x1=[0.6]))
    assert (none.supports, none.contradicts, none.statistic, none.n) == (None, None, None, 0)
    assert none.words == "no seed gives a number"


def test_equivalence_is_two_one_sided_tests():
    found = Equivalence(metric=ACCURACY, of=at(0), to=at(1), margin=0.12).evidence(runs(x0=A, x1=B))
    assert found.supports == pytest.approx(max(greater(D, -0.12), less(D, 0.12)))
    assert found.contradicts == pytest.approx(min(1, 2 * min(greater(D, 0.12), less(D, -0.12))))
    number = Equivalence(metric=ACCURACY, of=at(0), to=0.65, margin=0.02).evidence(runs(x0=A))
    assert number.contradicts == pytest.approx(2 * greater(np.array(A) - 0.65, 0.02))
    factor = Equivalence(metric=ACCURACY, of=at(0), to=at(1), margin=2, log=True).evidence(runs(x0=A, x1=B))
    assert factor.supports == pytest.approx(less(np.log(A) - np.log(B), math.log(2)))
    assert factor.statistic == pytest.approx(stats.gmean(np.array(A) / B))


def test_equal_numbers_are_equivalent():
    found = Equivalence(metric=ACCURACY, of=at(0), to=at(1), margin=0.01).evidence(runs(x0=A, x1=A))
    assert (found.supports, found.contradicts) == (2**-8, 1)


def test_an_order_is_as_weak_as_its_weakest_step():
    c = [b + 0.01 * (-1) ** i for i, b in enumerate(B)]
    rule = Order(metric=ACCURACY, of=[at(1), at(2), at(0)], interest=0.5)
    found = rule.evidence(runs(x0=A, x1=B, x2=c))
    first, second = np.array(c) - B, np.array(A) - c
    assert found.supports == pytest.approx(max(greater(first, 0), greater(second, 0)))
    assert found.contradicts == pytest.approx(2 * min(less(first, 0.5), less(second, 0.5)))
    assert "data.x=2 above data.x=1: mean difference" in found.words


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": ""}, "metric is ''; accepted: the name of a metric"),
        ({"of": [1]}, r"of is \[1\]; accepted: settings and their values"),
        ({"than": True}, "than is True; accepted: a number, or the settings"),
        ({"than": None}, "than is null; accepted: settings or a number"),
        ({"margin": math.nan}, r"margin is nan; accepted: a number in \(-inf, inf\)"),
        ({"margin": 0.2, "interest": 0.1}, r"interest is 0.1; accepted: a number in \(0.2, inf\) \(beyond the margin"),
        ({"log": 1}, "log is 1; accepted: true, false"),
        ({"log": True, "factor": 2}, "factor is 2; accepted with log: 1"),
        ({"factor": -1}, r"factor is -1; accepted: a number in \(0, inf\)"),
        ({"log": True, "margin": 0}, r"margin is 0; accepted: a number in \(0, inf\) \(a ratio\)"),
        ({"bounds": 1}, "bounds is 1; accepted: the least and the largest"),
        ({"bounds": [1, 0]}, r"bounds\[1\] is 0; accepted: a number in \(1.0, inf\)"),
    ],
)
def test_settings_are_checked_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        Difference(**{"metric": ACCURACY, "of": at(0), "than": at(1), **settings})


def test_two_metrics_of_one_run_may_be_equivalent():
    claim = Equivalence(metric="a", to_metric="b", of={}, margin=2, log=True)
    close = ClaimRuns([record(seed, {"a": 100 * 1.1**seed, "b": 100.0 * (1 + seed % 2)}) for seed in range(8)])
    found = claim.evidence(close)
    logs = [math.log(1.1**seed / (1 + seed % 2)) for seed in range(8)]
    assert found.statistic == pytest.approx(math.exp(sum(logs) / 8))
    assert found.supports == pytest.approx(stats.ttest_1samp(logs, -math.log(2), alternative="greater").pvalue)
    far = ClaimRuns([record(seed, {"a": 700.0 + seed, "b": 100.0}) for seed in range(8)])
    assert claim.evidence(far).contradicts < 1e-6
    assert claim.words == "a of the runs is within a factor of 2 of b of the same runs"


def test_settings_of_equivalence_and_order_are_checked():
    with pytest.raises(ValueError, match=r"^margin is 0; accepted: a number in \(0, inf\)$"):
        Equivalence(metric=ACCURACY, of=at(0), to=0.1, margin=0)
    with pytest.raises(ValueError, match=r"^margin is 0.5; accepted: a number in \(1, inf\)$"):
        Equivalence(metric=ACCURACY, of=at(0), to=0.1, margin=0.5, log=True)
    with pytest.raises(ValueError, match=r"^to is null; accepted"):
        Equivalence(metric=ACCURACY, of=at(0), to=None, margin=0.5)
    with pytest.raises(ValueError, match=r"^of is .*; accepted: a list of the settings of at least two"):
        Order(metric=ACCURACY, of=[at(0)])
    with pytest.raises(ValueError, match=r"^of has data.x=0 twice; accepted: other runs in each, as none rises above"):
        Order(metric=ACCURACY, of=[at(0), at(1), at(0)])


def test_a_number_outside_the_bounds_decides_nothing():
    """Bounds that are wrong for the runs that were measured are wrong for those that diverged."""
    found = runs(x0=[2.5] * 5 + [2.6] * 3, x1=[None] * 3 + [2.0] * 5)
    with pytest.raises(
        ValueError, match=r"^test/performance/accuracy of data\.x=0 is 2\.5 in seed 0, outside the boun"
    ):
        Difference(metric=ACCURACY, of=at(0), than=at(1), bounds=[0, 1]).evidence(found)
    assert Difference(metric=ACCURACY, of=at(0), than=at(1), bounds=[0, 2.6]).evidence(found).n == 5
    rounded = runs(x0=[0.1 + 0.2] * 5, x1=[0.0] * 5)
    assert Difference(metric=ACCURACY, of=at(0), than=at(1), bounds=[0, 0.3]).evidence(rounded).n == 5


def test_a_claim_with_wrong_bounds_is_undecided_and_says_so():
    node = {"_target_": "genbench.claims.rules.Difference", "metric": ACCURACY, "of": at(0), "than": at(1)}
    claims = read({"rules": {"C1": {"statement": "S.", **node, "bounds": [0, 1]}}})
    found = [{**each, "provenance": {"claims": claims.digest}} for each in sweep(x0=[2.5] * 8, x1=[2.0] * 8)]
    (verdict,) = judged(claims, found)
    said = f"{ACCURACY} of data.x=0 is 2.5 in seed 0, outside the bounds [0, 1] of its claim"
    assert (verdict.status, verdict.words) == ("undecided", said)
