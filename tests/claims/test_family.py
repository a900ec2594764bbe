import math

import numpy as np
import pytest
from scipy import stats

from genbench.claims.family import seeds_needed, verdicts
from genbench.claims.rules import Any, Difference, Equivalence, Exact, Proportion, Sooner
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import Evidence, MeanTest, ShareTest
from tests.helpers.claims import ACCURACY, at, record, sweep

NORMAL = stats.norm.ppf((np.arange(32) + 0.5) / 32)[np.random.default_rng(5).permutation(32)]


def runs(effect, spread, seeds=32):
    """Return runs whose difference between levels 1 and 0 has this mean and spread."""
    return ClaimRuns(
        record(seed, 0.5 + level * (effect + spread * float(NORMAL[seed])), x=level)
        for level in (0, 1)
        for seed in range(seeds)
    )


BETTER = Difference(metric=ACCURACY, of=at(1), than=at(0))


def p(effect, spread, n):
    return stats.ttest_1samp(effect + spread * NORMAL[:n], 0, alternative="greater").pvalue


def only(some, **settings):
    return verdicts({"better": BETTER}, some, **{"family": 1, **settings})[0]


def test_a_claim_is_decided_at_the_first_look_that_shows_it():
    clear = only(runs(0.05, 0.02))
    assert (clear.status, clear.look, clear.evidence.n) == ("replicated", 1, 32)
    assert clear.supports == pytest.approx(p(0.05, 0.02, 8))
    effect = 0.0075
    assert p(effect, 0.02, 8) > 0.025
    assert p(effect, 0.02, 16) > 0.0125
    late = only(runs(effect, 0.025))
    assert (late.status, late.look) == ("undecided", 3)
    assert late.supports == pytest.approx(p(effect, 0.025, 32))
    assert "next look" not in late.words


def test_between_looks_the_last_verdict_stands():
    for seeds in (8, 11, 15):
        found = only(runs(0.005, 0.02, seeds))
        assert (found.status, found.look, found.evidence.n) == ("undecided", 1, 8)
        assert found.words.endswith("; next look at 16 seeds, if they are run")


def test_an_unfinished_look_is_undecided_and_names_what_is_missing():
    found = only(runs(0.05, 0.001, 6))
    assert found.status == "undecided"
    assert found.words == (
        "4 runs are missing (seed 6 of data.x=1; seed 7 of data.x=1; seed 6 of data.x=0; and 1 more)"
    )


def test_a_decided_verdict_stays_whatever_later_seeds_say():
    first = [record(seed, 0.5 + level * (0.1 + 0.001 * seed), x=level) for level in (0, 1) for seed in range(8)]
    later = [record(seed, 0.5 - level * (0.3 + 0.001 * seed), x=level) for level in (0, 1) for seed in range(8, 32)]
    found = only(ClaimRuns(first + later))
    assert (found.status, found.look, found.evidence.n) == ("replicated", 1, 32)
    assert found.evidence.statistic < 0
    assert found.words.endswith("at the look of 8 seeds, while that of 32 by itself says: not replicated")


def test_other_looks_and_seeds():
    found = only(runs(0.05, 0.02), looks=[5], seeds=[9, 3, 4, 20, 7])
    values = 0.05 + 0.02 * NORMAL[[9, 3, 4, 20, 7]]
    assert found.supports == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)


@pytest.mark.parametrize("looks", [[], [8, 8], [16, 8], [0, 8], [8, 16, 32, 64]])
def test_looks_are_ascending(looks):
    with pytest.raises(ValueError, match=r"^looks is .*; accepted: one to three numbers of seeds, ascending$"):
        only(runs(0.05, 0.02), looks=looks)
    with pytest.raises(ValueError, match=r"^seeds is \[1, 1\]; accepted: 2 different seeds, or null$"):
        only(runs(0.05, 0.02), looks=[2], seeds=[1, 1])


def test_the_family_does_not_shrink_with_what_is_missing():
    rules = {"better": BETTER, "absent": Difference(metric=ACCURACY, of=at(7), than=at(0))}
    found = verdicts(rules, runs(0.05, 0.02), family=2)
    assert found[0].supports == pytest.approx(2 * p(0.05, 0.02, 8))
    assert (found[1].status, found[1].look) == ("undecided", 1)


def test_exact_claims_fail_at_once():
    rules = {"exact": Exact(metric=ACCURACY, of=at(0), than=0.4, tolerance=0.01)}
    found = verdicts(rules, runs(0, 0, 3), family=0)[0]
    assert (found.status, found.look) == ("not replicated", 1)


def test_exact_claims_are_about_all_runs_so_far():
    rules = {"exact": Exact(metric=ACCURACY, of={}, than=0.5, op="<=")}
    fine = [record(seed, 0.5) for seed in range(8)]
    (found,) = verdicts(rules, ClaimRuns(fine), family=0)
    assert (found.status, found.look) == ("replicated", 1)
    for seeds in (range(8, 16), [10]):  # the second look, and before it
        (found,) = verdicts(rules, ClaimRuns([*fine, *(record(seed, 0.6) for seed in seeds)]), family=0)
        assert (found.status, found.look) == ("not replicated", 2)
        assert f"seed {seeds[0]} of the runs: off by 0.1" in found.words


def power(n, distance, spread, level):
    """Return the probability that a one-sided t test of n values shows an effect that lies ``distance`` beyond."""
    critical = stats.t.ppf(1 - level, n - 1)
    return stats.nct.sf(critical, n - 1, distance * math.sqrt(n) / spread)


def test_seeds_needed_is_the_least_number_of_enough_power():
    rule = Difference(metric=ACCURACY, of=at(1), than=at(0), interest=0.02)
    evidence = rule.evidence(runs(0.01, 0.02).of(range(8)))
    spread = np.std(0.01 + 0.02 * NORMAL[:8], ddof=1) * math.sqrt(7 / stats.chi2.ppf(0.2, 7))
    n = seeds_needed(evidence, level=0.025 / 3)
    assert power(n, 0.02, spread, 0.025 / 3) >= 0.8 > power(n - 1, 0.02, spread, 0.025 / 3)


def test_seeds_needed_for_equivalence_shows_both_sides():
    rule = Equivalence(metric=ACCURACY, of=at(1), to=at(0), margin=0.02)
    spread = np.std(0.02 * NORMAL[:8], ddof=1) * math.sqrt(7 / stats.chi2.ppf(0.2, 7))
    n = seeds_needed(rule.evidence(runs(0, 0.02).of(range(8))), level=0.025)
    assert power(n, 0.02, spread, 0.025) >= 0.9 > power(n - 1, 0.02, spread, 0.025)


def test_seeds_needed_for_a_share():
    """The critical count is the least k with P(X ≥ k) ≤ 0.025 at one half; k = n + 1 where there is none."""
    rule = Proportion(metric=ACCURACY, of=at(0), op=">", bound=0, share=0.5, interest=0.8)
    n = seeds_needed(rule.evidence(runs(0, 0.1).of(range(8))), level=0.025)

    def share_power(n):
        least = next(k for k in range(n + 2) if stats.binom.sf(k - 1, n, 0.5) <= 0.025)
        return stats.binom.sf(least - 1, n, 0.8)

    assert share_power(n) >= 0.8
    assert all(share_power(fewer) < 0.8 for fewer in range(5, n))


def evidence(*tests):
    return Evidence(supports=1.0, contradicts=1.0, n=8, words="", tests=tests)


def test_seeds_needed_of_several_tests_is_the_largest():
    small, large = MeanTest(1.0, 0.5, 8), MeanTest(1.0, 1.5, 8)
    one, other = seeds_needed(evidence(small), level=0.025), seeds_needed(evidence(large), level=0.025)
    assert one < other == seeds_needed(evidence(small, large), level=0.025)


def test_seeds_needed_where_one_of_several_is_enough_divides_the_level():
    few, many = (Difference(metric=ACCURACY, of=at(1), than=at(0), interest=interest) for interest in (0.03, 0.02))
    some = runs(0.005, 0.02).of(range(8))
    either = Any(parts=[few, many]).evidence(some)
    assert seeds_needed(either, level=0.025) == seeds_needed(many.evidence(some), level=0.0125)
    nested = Any(parts=[Any(parts=[few, many]), few]).evidence(some)
    assert seeds_needed(nested, level=0.025) == seeds_needed(many.evidence(some), level=0.025 / 4)
    later = Sooner(metric=ACCURACY, of=at(1), than=at(0), steps=10, interest=2)
    assert Any(parts=[few, later]).evidence(some).tests == ()


def test_seeds_needed_without_an_answer():
    assert seeds_needed(evidence(MeanTest(0.01, 1.0, 8)), level=0.025) is None  # more than 200
    assert seeds_needed(evidence(ShareTest(0.5, 0.51)), level=0.025) is None
    with pytest.raises(ValueError, match=r"^the claim has no effect of interest"):
        seeds_needed(evidence(MeanTest(None, 1.0, 8)), level=0.025)
    with pytest.raises(ValueError, match=r"^1 seeds do not say how much seeds differ"):
        seeds_needed(evidence(MeanTest(0.01, None, 1)), level=0.025)
    with pytest.raises(ValueError, match=r"^the number of seeds is known for tests of means and of shares"):
        seeds_needed(evidence(), level=0.025)
    with pytest.raises(ValueError, match=r"^level is 0; accepted"):
        seeds_needed(evidence(), level=0)


def test_an_undecided_claim_says_how_many_seeds_would_decide_it():
    rule = Difference(metric=ACCURACY, of=at(1), than=at(0), interest=0.02)
    some = runs(0.005, 0.02, 8)
    found = verdicts({"better": rule}, some, family=3)[0]
    n = seeds_needed(rule.evidence(some), level=0.0125 / 3)
    assert found.status == "undecided"
    assert n <= 32
    assert found.words.endswith(
        f"; next look at 16 seeds, if they are run; about {n} seeds would decide for or against it"
    )
    few = verdicts({"better": rule}, some, family=3, looks=[8, 9])[0]
    assert few.words.endswith("seeds would decide for or against it, more than the last look has")
    many = verdicts({"better": Difference(metric=ACCURACY, of=at(1), than=at(0), interest=0.001)}, some, family=3)[0]
    said = "more than 200 seeds would decide for or against it, more than the last look has"
    assert many.words.endswith(f"; next look at 16 seeds, if they are run; {said}")


def test_seeds_that_have_not_decided_a_claim_are_not_said_to():
    rule = Equivalence(metric=ACCURACY, of=at(1), to=at(0), margin=0.1)
    alike = ClaimRuns(sweep(x0=[0.5] * 10, x1=[0.6] * 10))  # as far apart as the margin
    found = verdicts({"alike": rule}, alike, family=1, looks=[5, 10])[0]
    assert seeds_needed(rule.evidence(alike), level=0.0125) <= 10
    assert found.words.endswith("neither is shown at the one-sided level 0.0125")


def test_seeds_needed_without_spread_are_those_of_the_sign_test():
    assert seeds_needed(evidence(MeanTest(0.1, 0.0, 8)), level=0.025) == 6
    assert seeds_needed(evidence(MeanTest(1e9, 1e-9, 8)), level=0.025) == 5
