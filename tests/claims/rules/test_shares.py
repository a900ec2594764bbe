import itertools
import math

import numpy as np
import pytest
from scipy import stats

from genbench.claims.rules import Proportion, Sooner
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, at, record, runs


def test_a_proportion_is_tested_by_the_binomial():
    some = runs(x0=[0.99, 0.995, 1.0, 0.98, 1.0, 1.0, 0.999, 1.0])  # seven of eight
    found = Proportion(metric=ACCURACY, of=at(0), op=">=", bound=0.99, share=0.5, interest=0.95).evidence(some)
    assert found.supports == pytest.approx(9 / 256)
    assert found.contradicts == pytest.approx(1 - 0.95**8)
    assert found.statistic == 7 / 8
    assert found.interval == pytest.approx(tuple(stats.binomtest(7, 8).proportion_ci(0.95)))
    assert found.words == "in 7 of 8 seeds"


@pytest.mark.parametrize(("op", "held"), [(">=", 2), (">", 1), ("<=", 4), ("<", 3)])
def test_conditions(op, held):
    some = runs(x0=[0.1, 0.2, 0.3, 0.5, 0.7])
    assert Proportion(metric=ACCURACY, of=at(0), op=op, bound=0.5, share=0.5).evidence(some).statistic == held / 5


def test_none_and_all():
    rule = Proportion(metric=ACCURACY, of=at(0), op=">", bound=0.5, share=0.5)
    assert rule.evidence(runs(x0=[0.9] * 6)).supports == pytest.approx(2**-6)
    none = rule.evidence(runs(x0=[0.1] * 6))
    assert (none.supports, none.contradicts) == pytest.approx((1, 2**-6))
    empty = rule.evidence(runs(x0=[None]))
    assert (empty.supports, empty.contradicts, empty.n) == (None, None, 0)


def test_a_diverged_run_is_left_out_or_does_not_hold_or_does():
    some = runs(x0=[None, 0.9, 0.9, 0.9, 0.9])
    rule = Proportion(metric=ACCURACY, of=at(0), op=">", bound=0.5, share=0.5)
    assert rule.evidence(some).supports == pytest.approx(2**-4)
    worst = rule.evidence(some, worst=True)
    assert worst.supports == stats.binomtest(4, 5, 0.5, alternative="greater").pvalue
    assert worst.contradicts == 1
    always = Proportion(metric=ACCURACY, of=at(0), op=">=", bound=0, share=0.5, bounds=[0, 1])
    assert (always.evidence(some).n, always.evidence(some, worst=True).supports) == (4, pytest.approx(2**-5))


def test_settings_of_a_proportion_are_checked():
    with pytest.raises(ValueError, match=r"^op is '=='; accepted: >=, >, <=, <$"):
        Proportion(metric=ACCURACY, of=at(0), op="==", bound=0.5, share=0.5)
    with pytest.raises(ValueError, match=r"^share is 1; accepted: a number in \[0, 1\)$"):
        Proportion(metric=ACCURACY, of=at(0), op=">", bound=0.5, share=1)
    with pytest.raises(ValueError, match=r"^interest is 2; accepted: a number in \(0.5, 1\]"):
        Proportion(metric=ACCURACY, of=at(0), op=">", bound=0.5, share=0.5, interest=2)


def log_rank(ours, theirs):
    """Return observed less expected events of ours, the log-rank statistic, from the table at each time."""
    times = sorted({t for t in (*ours, *theirs) if math.isfinite(t)})
    total = 0.0
    for t in times:
        risk = sum(x >= t for x in ours), sum(x >= t for x in theirs)
        events = sum(x == t for x in ours), sum(x == t for x in theirs)
        total += events[0] - sum(events) * risk[0] / sum(risk)
    return total


def swapped(ours, theirs):
    for swaps in itertools.product((False, True), repeat=len(ours)):
        pairs = [(b, a) if swap else (a, b) for a, b, swap in zip(ours, theirs, swaps, strict=True)]
        yield log_rank(*zip(*pairs, strict=True))


def pairs(ours, theirs):
    """Return runs whose steps to a level are these; None is never, "diverged" a diverged run."""
    records = []
    for level, times in ((0, ours), (1, theirs)):
        for seed, time in enumerate(times):
            diverged = time == "diverged"
            records.append(
                record(
                    seed, {} if diverged else {"steps": time}, status="diverged" if diverged else "completed", x=level
                )
            )
            records[-1]["config"]["trainer"]["max_steps"] = 1000
    return ClaimRuns(records)


def sooner(**settings):
    return Sooner(**{"metric": "steps", "of": at(0), "than": at(1), "steps": 1000, **settings})


def test_sooner_counts_all_swaps_of_the_log_rank_statistic():
    ours, theirs = [100, 150, 220, 90, None, 130], [200, 140, 400, None, None, 300]
    found = sooner().evidence(pairs(ours, theirs))
    a, b = ([math.inf if t is None else t for t in times] for times in (ours, theirs))
    counted = [value >= log_rank(a, b) - 1e-9 for value in swapped(a, b)]
    assert found.supports == pytest.approx(np.mean(counted))
    assert found.contradicts == pytest.approx(np.mean([value <= log_rank(a, b) + 1e-9 for value in swapped(a, b)]))
    assert found.n == 5  # the pair that never reaches the level says nothing
    assert found.words == "beyond the factor of 1 in 4 seeds, short of it in 1, neither in 1"
    assert found.unknown == ()


def test_times_are_multiplied_by_the_ratio_and_cut_where_one_was_not_seen():
    """Twice 600 lies beyond the 1,000 steps of the other, which was not trained so long."""
    ours, theirs = [100, 150, 220, 90, 600, 300], [300, 400, 430, 180, None, 900]
    found = sooner(ratio=2).evidence(pairs(ours, theirs))
    a, b = [200, 300, 440, 180, math.inf, 600], [300, 400, 430, 180, math.inf, 900]
    assert found.supports == pytest.approx(np.mean([value >= log_rank(a, b) - 1e-9 for value in swapped(a, b)]))
    assert (found.n, found.statistic) == (5, 3 / 4)


def test_equal_times_are_short_of_an_interest():
    found = sooner(interest=2).evidence(pairs([100, 110, 120, 130, 140, 150], [100, 110, 120, 130, 140, 150]))
    assert (found.supports, found.contradicts, found.n) == (1, 2**-6, 6)


def test_nothing_is_said_where_neither_reaches_the_level():
    found = sooner().evidence(pairs([None] * 6, [None] * 6))
    assert (found.supports, found.contradicts, found.n, found.statistic) == (None, None, 0, None)


def test_a_diverged_run_never_reaches_the_level_or_is_left_out():
    some = pairs([100] * 6, [*[200] * 5, "diverged"])
    assert sooner().evidence(some).supports == 2**-5
    assert sooner().evidence(some, worst=True).supports == 2**-6
    assert sooner().evidence(some).unknown == ("seed 5 of data.x=1: diverged",)


def test_a_run_whose_time_was_not_measured_did_not_fail_to_reach_the_level():
    times = {0: [None] * 5, 1: [10] * 5}
    some = [record(seed, {"steps": value}, x=x) for x in times for seed, value in enumerate(times[x])]
    rule = Sooner(metric="steps", of=at(1), than=at(0), steps=100)
    assert (found := rule.evidence(ClaimRuns(some))).unknown == ()
    assert (found.n, found.statistic) == (5, 1.0)
    del some[0]["metrics"]["steps"]
    found = rule.evidence(ClaimRuns(some))
    assert (found.n, found.unknown) == (4, ("seed 0 of data.x=0: steps was not measured",))


def test_settings_of_sooner_are_checked():
    with pytest.raises(ValueError, match=r"^steps is 0; accepted: a number in \(0, inf\)$"):
        sooner(steps=0)
    with pytest.raises(ValueError, match=r"^interest is 1.5; accepted: a number in \(2.0, inf\)"):
        sooner(ratio=2, interest=1.5)


def test_steps_beyond_those_that_the_runs_are_trained_for_are_refused():
    """A level that is reached later is not seen: the other runs would count as never reaching it."""
    found = pairs([900] * 8, [None] * 8)
    assert sooner(ratio=2).evidence(found).n == 0
    with pytest.raises(ValueError, match=r"^steps is 10000, while a run is trained for 1000; accepted: at most 1000$"):
        sooner(ratio=2, steps=10000).evidence(found)
    planned = [{**run, "status": "failed", "metrics": {}, "keys": frozenset("*")} for run in found._records]
    with pytest.raises(ValueError, match=r"^steps is 10000"):
        sooner(steps=10000).evidence(ClaimRuns(planned))
