import dataclasses

import pytest

from genbench.claims.verdict import Evidence, final, judge, level


def evidence(supports=1.0, contradicts=1.0, n=8, **more):
    return Evidence(supports=supports, contradicts=contradicts, n=n, words="measured", **more)


def verdict(*claims, family=None, look=1):
    found = [(str(i), *(claim if isinstance(claim, tuple) else (claim, claim))) for i, claim in enumerate(claims)]
    return judge(found, family=family or len(claims), look=look)


def statuses(*claims, **settings):
    return [each.status for each in verdict(*claims, **settings)]


def test_each_side_decides_at_the_level_of_the_look():
    assert statuses(evidence(0.025)) == ["replicated"]
    assert statuses(evidence(0.0251)) == ["undecided"]
    assert statuses(evidence(1.0, 0.025)) == ["not replicated"]
    assert statuses(evidence(0.0125), look=2) == statuses(evidence(0.00625), look=3) == ["replicated"]
    assert statuses(evidence(0.0126), look=2) == statuses(evidence(0.00626), look=3) == ["undecided"]


def test_the_levels_of_all_looks_sum_to_less_than_five_percent():
    assert sum(map(level, (1, 2, 3))) == pytest.approx(0.04375)
    with pytest.raises(ValueError, match=r"^look is 4; accepted: 1, 2, 3$"):
        level(4)


def test_holm_over_the_family_for_each_side():
    """Sorted p times 3, 2, 1: 0.008 · 3 and 0.012 · 2 are below 0.025, 0.03 is not; the contradictions are corrected on
    their own."""
    found = verdict(evidence(0.012), evidence(0.03), evidence(0.008, 0.5))
    assert [each.status for each in found] == ["replicated", "undecided", "replicated"]
    assert [each.supports for each in found] == pytest.approx([0.024, 0.03, 0.024])
    assert statuses(evidence(1.0, 0.012), evidence(0.012)) == ["not replicated", "replicated"]


def test_what_was_not_measured_counts_in_the_family():
    assert statuses(evidence(0.02), family=2) == ["undecided"]
    assert statuses(evidence(0.02), evidence(None, None)) == ["undecided", "undecided"]
    assert statuses(evidence(0.012), evidence(float("nan"), None)) == ["replicated", "undecided"]
    assert statuses(evidence(0.02), evidence(0.0001, missing=("seed 1",))) == ["undecided", "undecided"]


def test_a_family_is_no_smaller_than_its_claims():
    with pytest.raises(ValueError, match=r"^family is 1; accepted: a number of at least 2"):
        verdict(evidence(), evidence(), family=1)
    with pytest.raises(ValueError, match="two claims have one id"):
        judge([("a", evidence(), evidence())] * 2, family=2)


def test_both_shown_is_replicated_and_small():
    found = verdict(evidence(0.001, 0.001, interest=True))[0]
    assert (found.status, found.words) == ("replicated", "measured, smaller than the effect of interest")


def test_few_seeds_and_missing_runs_decide_nothing():
    few = verdict(evidence(0.0001, n=4))[0]
    assert (few.status, few.supports) == ("undecided", 1)
    assert few.words == "4 seeds say something about it; a verdict needs 5"
    missing = verdict(evidence(0.0001, missing=("seed 3 of model=mlp",)))[0]
    assert (missing.status, missing.words) == ("undecided", "1 run is missing (seed 3 of model=mlp)")


def test_verdicts_that_hang_on_diverged_runs_are_undecided():
    lost = ("seed 1: diverged",)
    found = verdict((evidence(0.001, n=7, unknown=lost), evidence(0.2, unknown=lost)))[0]
    assert found.status == "undecided"
    assert found.words.startswith("measured: without them replicated, at the worst undecided, ")
    assert found.words.endswith("; 1 number is unknown (seed 1: diverged)")
    same = verdict((evidence(0.001, n=7, unknown=lost), evidence(0.002, unknown=lost)))[0]
    assert same.status == "replicated"
    assert same.words == "measured; 1 number is unknown (seed 1: diverged), which changes nothing"


def test_exact_claims_are_outside_the_family():
    exact = evidence(None, None, n=1, exact=True)
    found = judge([("a", exact, exact), ("b", evidence(0.025), evidence(0.025))], family=1)
    assert [each.status for each in found] == ["replicated", "replicated"]
    assert (found[0].supports, found[0].contradicts) == (None, None)


def test_exact_claims_fail_by_one_run_and_wait_for_missing_ones():
    def exact(**more):
        return evidence(None, None, exact=True, **more)

    claims = (
        exact(violations=("seed 2",), missing=("seed 1",)),
        exact(missing=("seed 1",)),
        exact(unknown=("seed 1",)),
        exact(n=0),
    )
    found = judge([(str(i), each, each) for i, each in enumerate(claims)], family=0)
    assert [each.status for each in found] == ["not replicated", "undecided", "undecided", "undecided"]
    assert found[0].words == "1 run violates it (seed 2)"


def test_a_decided_claim_is_final():
    looks = [
        verdict(evidence(0.001, statistic=1.0), evidence(0.9)),
        verdict(evidence(0.9, 0.001, statistic=2.0), evidence(1.0, 0.001), look=2),
        verdict(dataclasses.replace(evidence(0.9, n=20), words="measured again"), evidence(0.001), look=3),
    ]
    # n is of groups, or without the seeds that diverged
    first, second = final(looks, [8, 16, 32])
    assert (first.status, first.look, first.evidence) == ("replicated", 1, looks[2][0].evidence)
    assert first.words == (
        "measured again; decided, with its p, at the look of 8 seeds, while that of 32 by itself says: undecided"
    )
    assert (second.status, second.look) == ("not replicated", 2)


def test_between_looks_the_last_verdict_stands():
    half = dataclasses.replace(evidence(0.9), missing=("seed 12",))
    first, second = verdict(evidence(0.2), half), verdict(half, half, look=2)
    assert final([first, second], [8, 16]) == [first[0], first[1]]
