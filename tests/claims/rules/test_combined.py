import random

import pytest
from hydra.utils import instantiate

from genbench.claims import rules
from genbench.claims.rules import (
    All,
    Any,
    Correlation,
    CorrelationDifference,
    Difference,
    Equivalence,
    Exact,
    Order,
    Peak,
    Proportion,
    Ranks,
    Slope,
    Sooner,
    Trend,
)
from genbench.claims.runs import ClaimRuns
from genbench.claims.verdict import judge
from tests.helpers.claims import ACCURACY, at, record, runs

A = [0.71, 0.73, 0.70, 0.75, 0.72, 0.74, 0.73, 0.71]
B = [0.62, 0.60, 0.63, 0.64, 0.61, 0.66, 0.60, 0.62]
SOME = {"x0": A, "x1": B}
STRONG = Difference(metric=ACCURACY, of=at(0), than=at(1), interest=0.5)
WEAK = Difference(metric=ACCURACY, of=at(0), than=at(1), margin=0.1)


def test_all_hold_by_the_largest_and_fail_by_the_smallest_p():
    found, parts = All(parts=[STRONG, WEAK]).evidence(runs(**SOME)), [r.evidence(runs(**SOME)) for r in (STRONG, WEAK)]
    assert found.supports == max(part.supports for part in parts)
    assert found.contradicts == 2 * min(part.contradicts for part in parts)
    assert found.n == 8


def test_any_holds_by_the_smallest_and_fails_by_the_largest_p():
    rule = rules.Any(parts=[STRONG, WEAK])
    found, parts = rule.evidence(runs(**SOME)), [r.evidence(runs(**SOME)) for r in (STRONG, WEAK)]
    assert found.supports == 2 * min(part.supports for part in parts)
    assert found.contradicts == max(part.contradicts for part in parts)


def exact(level, **settings):
    return Exact(**{"metric": ACCURACY, "of": at(level), "than": 0.7, "tolerance": 0.1, **settings})


def test_exact_claims_hold_in_every_run():
    found = exact(0).evidence(runs(**SOME))
    assert (found.exact, found.violations, found.supports, found.n) == (True, (), None, 8)
    assert found.statistic == pytest.approx(0.05)
    violated = exact(0, tolerance=0.04).evidence(runs(**SOME))
    assert violated.violations == ("seed 3 of data.x=0: off by 0.05",)
    both = Exact(metric=ACCURACY, of={}, over={"data.x": [0, 1]}, than=0.7, tolerance=0.1).evidence(runs(**SOME))
    assert both.words == "in all 16 runs, off by at most 0.1"
    assert violated.words == "in 7 of 8 runs, off by at most 0.05"
    assert exact(0).evidence(runs(x0=[*A, None])).unknown == ("seed 8 of data.x=0: diverged",)
    assert exact(0).evidence(runs(seeds=range(9), x0=A)).missing == ("seed 8 of data.x=0",)


@pytest.mark.parametrize(
    ("op", "than", "held"), [("<=", 0.7, False), ("<=", 0.74, True), (">=", 0.7, True), (">=", 0.72, False)]
)
def test_exact_bounds(op, than, held):
    found = exact(0, op=op, than=than, tolerance=0.01).evidence(runs(**SOME))
    assert (found.violations == ()) is held


@pytest.mark.parametrize(
    ("settings", "rule", "finding"),
    [
        ({"op": ">=", "than": 0.5}, "is at least 0.5 in every run of data.x=0", "in all 8 runs, by at least 0.2"),
        ({"op": "<=", "than": 0.75}, "is at most 0.75 in every run of data.x=0", "in all 8 runs"),
        ({"op": "<=", "than": 0.74, "tolerance": 0.02}, "is at most 0.74 in every run of data.x=0, to within 0.02",
         "in all 8 runs, off by at most 0.01"),
        ({"op": ">=", "than": 0.705}, "is at least 0.705 in every run of data.x=0",
         "in 7 of 8 runs, off by at most 0.005"),
        ({"of": {}, "over": [at(0), at(1)], "op": ">=", "than": 0.1},
         "is at least 0.1 in every run of data.x=0 and of data.x=1", "in all 16 runs, by at least 0.5"),
        ({"of": {}, "over": {"data.x": [0, 1]}, "than": 0.6, "tolerance": 1},
         "equals 0.6 in every run over data.x = 0, 1, to within 1", "in all 16 runs, off by at most 0.15"),
    ],
)  # fmt: skip
def test_exact_claims_say_what_they_mean(settings, rule, finding):
    given = Exact(**{"metric": ACCURACY, "of": at(0), **settings})
    assert given.words == f"{ACCURACY} {rule}"
    assert given.evidence(runs(**SOME)).words == finding


def test_exact_claims_about_two_metrics():
    some = ClaimRuns(record(seed, {"bound": 0.4 + seed, "error": 0.4}) for seed in range(3))
    assert Exact(metric="bound", of={}, op=">=", than="error").evidence(some).violations == ()
    equal = Exact(metric="bound", of={}, than="error", tolerance=1).evidence(some)
    assert equal.violations == ("seed 2 of the runs: off by 2",)


def test_settings_of_exact_are_checked():
    with pytest.raises(ValueError, match=r"^op is '<'; accepted: ==, <=, >=$"):
        exact(0, op="<")
    with pytest.raises(
        ValueError, match=r"^than is None; accepted: a number in \(-inf, inf\) \(or the name of a metric\)$"
    ):
        exact(0, than=None)
    with pytest.raises(ValueError, match=r"^tolerance is -1; accepted: a number in \[0, inf\)$"):
        exact(0, tolerance=-1)


def test_all_of_exact_parts_is_exact():
    found = All(parts=[exact(0), exact(1, tolerance=0.2)]).evidence(runs(**SOME))
    assert (found.exact, found.violations, found.supports) == (True, (), None)


def test_an_exact_part_decides_alone_that_not_all_hold():
    found = All(parts=[STRONG, exact(0)]).evidence(runs(**SOME))
    assert found.supports == STRONG.evidence(runs(**SOME)).supports
    violated = All(parts=[STRONG, exact(0, tolerance=0.01)]).evidence(runs(**SOME))
    assert (violated.supports, violated.contradicts) == (1, 0)
    with pytest.raises(ValueError, match=r"^a part of Any is Exact; accepted: rules that have a p$"):
        rules.Any(parts=[STRONG, exact(0)]).evidence(runs(**SOME))


@pytest.mark.parametrize("parts", [[], "ab", [1], None])
def test_parts_are_rules(parts):
    with pytest.raises(ValueError, match=r"^parts is .*; accepted: a list of rules$"):
        All(parts=parts)


def test_a_node_of_yaml_makes_a_rule():
    node = {
        "_target_": "genbench.claims.rules.All",
        "parts": [
            {"_target_": "genbench.claims.rules.Difference", "metric": ACCURACY, "of": at(0), "than": at(1)},
            {"_target_": "genbench.claims.rules.Trend", "metric": ACCURACY, "along": {"data.x": [0, 1, 2]}, "of": {},
             "tau": 0.8, "bounds": [0, 1]},
        ],
    }  # fmt: skip
    assert instantiate({**node, "_convert_": "all"}) == All(parts=[
            Difference(metric=ACCURACY, of=at(0), than=at(1)),
            Trend(metric=ACCURACY, along={"data.x": [0, 1, 2]}, of={}, tau=0.8, bounds=(0, 1)),
        ])  # fmt: skip


# each rule, and the accuracy of a level and a seed where it is replicated, where it is violated, and where there is no
# effect while an interest is set
LEVELS = [0, 1, 2, 3]
ALONG = {"data.x": LEVELS}


def noise(level, seed):
    return random.Random(repr((level, seed))).gauss(0, 0.02)


def rising(level, seed):
    return 0.2 + 0.2 * level + noise(level, seed)


def falling(level, seed):
    return 0.8 - 0.2 * level + noise(level, seed)


def flat(level, seed):
    return 0.5 + noise(level, seed)


def hill(level, seed):
    return 0.4 + 0.3 * (level in (1, 2)) + noise(level, seed)


def equal(level, seed):
    return 0.5


CASES = {
    "difference": (Difference(metric=ACCURACY, of=at(3), than=at(0), interest=0.1), rising, falling, flat),
    "ratio": (Difference(metric=ACCURACY, of=at(3), than=at(0), log=True, interest=1.5), rising, falling, flat),
    "equivalence": (Equivalence(metric=ACCURACY, of=at(3), to=at(0), margin=0.05), flat, rising, None),
    "proportion": (
        Proportion(metric=ACCURACY, of=at(3), op=">", bound=0.7, share=0.5, interest=0.9), rising, falling, flat),
    "trend": (Trend(metric=ACCURACY, along=ALONG, of={}, tau=0.8, interest=0.1), rising, falling, flat),
    "slope": (Slope(metric=ACCURACY, along=ALONG, of={}, interest=0.05), rising, falling, flat),
    "order": (Order(metric=ACCURACY, of=[at(0), at(1), at(3)], interest=0.1), rising, falling, flat),
    "correlation": (Correlation(metrics=[ACCURACY, "other"], over=ALONG, of={}, interest=0.85), rising, falling, None),
    "correlation_difference": (
        CorrelationDifference(
            plus=[{"metrics": [ACCURACY, "other"]}], minus=[{"metrics": ["third", "other"]}], over=ALONG, of={},
            interest=0.5), rising, falling, None),
    "peak": (Peak(metric=ACCURACY, along=ALONG, of={}, interest=0.1), hill, rising, flat),
    "sooner": (Sooner(metric=ACCURACY, of=at(0), than=at(3), steps=1, interest=1.5), rising, falling, flat),
    "exact": (Exact(metric=ACCURACY, of={}, over=ALONG, than=0.5, tolerance=0.01), equal, rising, None),
    "all": (
        All(parts=[RISE := Difference(metric=ACCURACY, of=at(3), than=at(0), interest=0.1)]),
        rising, falling, flat),
    "any": (rules.Any(parts=[RISE, RISE]), rising, falling, flat),
}  # fmt: skip


def records(effect, seeds=16):
    return [
        record(seed, {ACCURACY: effect(x, seed), "other": float(x), "third": noise(x, seed)}, x=x)
        for x in LEVELS
        for seed in range(seeds)
    ]


def verdict(rule, some, seeds=16):
    found = ClaimRuns(some, range(seeds))
    evidence = (rule.evidence(found), rule.evidence(found, worst=True))
    return judge([("claim", *evidence)], family=0 if evidence[0].exact else 1)[0]


@pytest.mark.parametrize("name", CASES)
def test_what_holds_is_replicated_and_what_is_violated_is_not(name):
    rule, holds, violates, _ = CASES[name]
    assert verdict(rule, records(holds)).status == "replicated"
    assert verdict(rule, records(violates)).status == "not replicated"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_no_effect_is_not_replicated_where_an_interest_is_set(name):
    rule, _, _, none = CASES[name]
    assert verdict(rule, records(none)).status == "not replicated"


@pytest.mark.parametrize("name", CASES)
def test_missing_runs_leave_it_undecided_and_are_named(name):
    rule, holds, *_ = CASES[name]
    some = [each for each in records(holds) if each["seed"] != 3]
    found = verdict(rule, some)
    assert found.status == "undecided"
    assert "seed 3 of data.x=" in found.words


@pytest.mark.parametrize("name", [name for name in CASES if name != "exact"])
def test_few_seeds_leave_it_undecided(name):
    rule, holds, violates, _ = CASES[name]
    for effect in (holds, violates):
        found = verdict(rule, records(effect, seeds=4), seeds=4)
        assert (found.status, found.words) == ("undecided", "4 seeds say something about it; a verdict needs 5")


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_records_does_not_count(name):
    rule, holds, *_ = CASES[name]
    some = records(holds)
    random.Random(0).shuffle(some)
    first, second = (rule.evidence(ClaimRuns(each, range(16))) for each in (records(holds), some))
    assert first == second


@pytest.mark.parametrize("name", CASES)
def test_equal_numbers_and_one_seed_are_no_error(name):
    rule = CASES[name][0]
    for seeds in (1, 6):
        found = rule.evidence(ClaimRuns(records(equal, seeds), range(seeds)))
        for p in (found.supports, found.contradicts):
            assert p is None or 0 <= p <= 1
        assert found.statistic is None or found.statistic == found.statistic


@pytest.mark.parametrize("name", CASES)
def test_every_run_diverged_is_undecided(name):
    some = [{**each, "status": "diverged", "metrics": {}} for each in records(flat)]
    assert verdict(CASES[name][0], some).status == "undecided"


def test_what_all_parts_say_of_their_runs_is_said_once():
    over = {"model.width": [*range(5)], "seed_of": [*range(5)]}
    shared = {"over": over, "of": {}, "gap": "test/gap/accuracy"}
    one, two = (Ranks(metric=name, **shared) for name in ("a", "b"))
    (about,) = {rule.words.partition(", over ")[2] for rule in (one, two)}
    heads = [rule.words.partition(", over ")[0] for rule in (one, two)]
    assert All(parts=[one, two]).words == f"{heads[0]}; and {heads[1]}; each over {about}"
    both = All(parts=[one, two])
    assert Any(parts=[both, both]).words == "; or ".join([f"[{'; and '.join(heads)}]"] * 2) + f"; each over {about}"
    other = Ranks(metric="b", **{**shared, "of": {"model": "mlp"}})
    assert All(parts=[one, other]).words == f"{one.words}; and {other.words}"
