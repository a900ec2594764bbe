import copy
import importlib
import sys
from dataclasses import replace

import pytest

from genbench.claims import registration, rules
from genbench.claims.registration import check, conditions, judged, read, register
from tests.helpers.claims import ACCURACY, at, record

RULES = "genbench.claims.rules"
BETTER = {
    "_target_": f"{RULES}.Difference",
    "statement": "Level 1 is better than level 0.",
    "source": "Doe 2020",
    "metric": ACCURACY,
    "of": at(1),
    "than": at(0),
}
BOUNDED = {
    "_target_": f"{RULES}.Exact",
    "statement": "Accuracy is at most 1.",
    "metric": ACCURACY,
    "of": at(1),
    "op": "<=",
    "than": 1,
}
ALONG = {"data.x": [0, 1, 2]}
STEPS = {"trainer.max_steps": [50, 100]}
GRID = {"data.x": [0, 1, 2, 3]}
PAIR = {"metric": ACCURACY, "of": at(1), "than": at(0)}
RANKED = {"gap": ACCURACY, "of": {}, "over": {"data.x": [0, 1, 2, 3, 4], "data.y": [0, 1, 2, 3]}}
EVERY = [  # each rule, with its settings
    ("Difference", PAIR),
    ("Equivalence", {"metric": ACCURACY, "of": at(1), "to": at(0), "margin": 0.1}),
    ("Order", {"metric": ACCURACY, "of": [at(0), at(1)]}),
    ("Exact", {"metric": ACCURACY, "of": at(1), "than": 1}),
    ("Proportion", {"metric": ACCURACY, "of": at(1), "op": ">=", "bound": 0.5, "share": 0.5}),
    ("Sooner", {"metric": ACCURACY, "of": at(1), "than": at(0), "steps": 100}),
    ("Trend", {"metric": ACCURACY, "of": {}, "along": ALONG, "tau": 0.2}),
    ("Slope", {"metric": ACCURACY, "of": {}, "along": ALONG}),
    ("Peak", {"metric": ACCURACY, "of": {}, "along": ALONG}),
    (
        "PeakSlope",
        {
            "metric": ACCURACY,
            "of": {},
            "along": {"trainer.max_steps": [50, 100]},
            "peak": {"data.x": [1, 2, 3]},
            "drop": 0.1,
        },
    ),
    ("Correlation", {"metrics": [ACCURACY, "loss"], "of": {}, "over": GRID}),
    (
        "CorrelationDifference",
        {"plus": [{"metrics": [ACCURACY, "loss"]}], "minus": [{"metrics": [ACCURACY, "norm"]}], "of": {}, "over": GRID},
    ),
    ("All", {"parts": [{"_target_": f"{RULES}.Difference", **PAIR}]}),
    ("Contrast", {"metric": ACCURACY, "terms": [{"weight": 1, "of": at(1)}, {"weight": -2, "of": at(0)}]}),
    ("Distance", {"metric": "error_at_*", "steps": [1, 2], "of": at(1), "to": at(0), "than": 0.5}),
    ("Interacts", {"metric": ACCURACY, "treatments": {"data.x": [0, 1]}, "over": STEPS}),
    ("Any", {"parts": [{"_target_": f"{RULES}.Difference", **PAIR}]}),
    ("Ranks", {"metric": "norm", **RANKED}),
    ("RanksWrongly", {"metrics": ["norm"], "test_size": 1000, **RANKED}),
    ("RanksDiffer", {"metrics": ["a", "b", "c"], "axes": ["data.x", "data.y"], "test_size": 1000, **RANKED}),
]


def block(**rules):
    return {"looks": [5, 10], "rules": rules or {"C1": BETTER, "C2": BOUNDED}}


def runs(effect=0.1, seeds=range(5), digest=None):
    found = []
    for seed in seeds:
        for level in (0, 1):
            item = record(seed, 0.5 + level * effect + 0.001 * level * (seed % 3), x=level)
            item["provenance"] = {} if digest is None else {"claims": digest}
            found.append(item)
    return found


def planned(claims, *, levels=(0, 1), seeds=range(5), **changes):
    items = [record(seed, {}, x=level, **changes) for level in levels for seed in seeds]
    return [(claims, item["config"], item["choices"]) for item in items]


def test_a_block_is_read_with_its_defaults():
    found = read(block())
    assert [claim.id for claim in found.claims] == ["C1", "C2"]
    assert found.claims[0].statement == "Level 1 is better than level 0."
    assert (found.claims[0].source, found.claims[1].source) == ("Doe 2020", None)
    assert found.claims[0].rule.words == f"{ACCURACY} of data.x=1 exceeds {ACCURACY} of data.x=0 by more than 0"
    assert (found.family, found.seeds, found.looks, found.pilots) == (1, tuple(range(10)), (5, 10), ())
    assert read({**block(), "looks": [8, 16, 32]}).digest == read({"rules": block()["rules"]}).digest


def test_exact_claims_alone_have_looks_at_any_number_of_seeds():
    assert read({**block(C2=BOUNDED), "looks": [1, 2]}).looks == (1, 2)


MOSTLY = {"_target_": f"{RULES}.Proportion", "metric": ACCURACY, "of": at(1), "op": ">=", "bound": 0.5}
RISING = {"_target_": f"{RULES}.Trend", "metric": ACCURACY, "of": {}, "along": ALONG, "tau": 0.2}


@pytest.mark.parametrize(
    ("rule", "looks", "enough"),
    [
        ({**MOSTLY, "share": 0.5}, [5], [6]),  # 2⁻⁵ > 0.025 > 2⁻⁶
        ({**MOSTLY, "share": 0.9}, [8, 16, 32], [8, 16, 49]),  # 0.9³² > 0.00625 > 0.9⁴⁹
        (RISING, [5], [5, 7]),
        ({"_target_": f"{RULES}.All", "parts": [RISING]}, [5], [6]),
    ],
)
def test_a_share_that_not_even_all_seeds_could_show_is_refused(rule, looks, enough):
    claims = block(C1={"statement": "A.", **rule})
    message = r"^claims.looks is .*; accepted with claims.rules.C1: more seeds, as a share above 0.\d is not shown by"
    with pytest.raises(ValueError, match=message):
        read({**claims, "looks": looks})
    assert read({**claims, "looks": enough}).looks == tuple(enough)


def test_one_of_several_parts_may_be_a_share_that_is_not_shown():
    parts = [{**PAIR, "_target_": f"{RULES}.Difference"}, {**MOSTLY, "share": 0.5}]
    whole = {"_target_": f"{RULES}.Any", "statement": "A.", "parts": parts}
    assert read({**block(C1=whole), "looks": [5]}).family == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": {"seed": 3}}, "of names the seed; accepted: other settings, as a rule is over claims.seeds"),
        ({"than": {"data.x": 0, "seed": 3}}, "than names the seed; accepted"),
        ({"of": {"data.x": []}}, r"of.data.x is \[\]; accepted: a value, or a list of values"),
        ({**RISING, "than": None, "along": {"seed": [0, 1, 2]}}, "along names the seed; accepted"),
        ({"_target_": f"{RULES}.Exact", "over": {"seed": [0, 1]}, "than": 1}, "over names the seed; accepted"),
    ],
)
def test_rules_select_runs_by_settings_that_have_values_and_not_by_the_seed(change, message):
    rule = {key: value for key, value in {**BETTER, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"^claims.rules.C1: {message}"):
        read(block(C1=rule))


def test_seeds_are_the_first_or_all():
    assert read({**block(), "seeds": 3}).seeds == tuple(range(3, 13))
    assert read({**block(), "seeds": [9, *range(9)]}).seeds == (9, *range(9))


@pytest.mark.parametrize(("name", "settings"), EVERY, ids=[name for name, _ in EVERY])
def test_every_rule_is_read_and_checked_before_there_are_runs(name, settings):
    claims = block(C1={"_target_": f"{RULES}.{name}", "statement": "A.", **settings})
    assert read(claims).family == (name != "Exact")
    plans = planned(claims, levels=(0, 1, 2, 3))
    if name in ("PeakSlope", "Interacts"):
        plans += [(same, {**config, "trainer": {"max_steps": 50}}, choices) for same, config, choices in plans]
    if name.startswith("Ranks"):
        plans = [each for y in RANKED["over"]["data.y"] for each in planned(claims, levels=range(5), y=y)]
    check(plans)


def test_every_rule_is_tried():

    assert {name for name, _ in EVERY} == {*rules.__all__} - {"Rule"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"look": [5]}, "claims.look is not a setting; did you mean 'looks'?"),
        ({"rules": {}}, "claims.rules is {}; accepted: the id of each claim, and its rule"),
        ({"rules": {"C 1": BETTER}}, "claims.rules has the id 'C 1'; accepted: letters, digits, - and _, such as C1"),
        ({"rules": {"C1": None}}, "claims.rules.C1 is None; accepted: a statement and the _target_ and settings"),
        ({"looks": [10, 5]}, r"claims.looks is \[10, 5\]; accepted: one to three numbers of seeds, ascending"),
        ({"looks": "5"}, "claims.looks is '5'; accepted: a list of integers"),
        (
            {"looks": [4, 8]},
            r"claims.looks is \[4, 8\]; accepted: numbers of at least 5 seeds, as fewer decide no claim",
        ),
        ({"looks": [5.5]}, r"claims.looks\[0\] is 5.5; accepted: an integer from 1 to 10000"),
        ({"looks": [10**9]}, r"claims.looks\[0\] is 1000000000; accepted: an integer from 1 to 10000"),
        ({"seeds": [1, 1, 2]}, r"claims.seeds is \[1, 1, 2\]; accepted: 10 different seeds"),
        ({"seeds": -1}, "claims.seeds is -1; accepted: an integer of at least 0 .the first seed, or a list of seeds."),
        ({"family": 0}, "claims.family is 0; accepted: an integer from 1 to 10000"),
        ({"family": 10**7}, "claims.family is 10000000; accepted: an integer from 1 to 10000"),
        ({"pilots": [100, 3]}, "claims.pilots holds 3, one of claims.seeds; accepted: other seeds than those"),
    ],
)
def test_what_is_wrong_in_a_block(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read({**block(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statement": ""}, ".statement is ''; accepted: one sentence"),
        ({"source": 3}, ".source is 3; accepted: one line, or null"),
        ({"_target_": f"{RULES}.Diference"}, f"._target_ is '{RULES}.Diference', .*; did you mean 'Difference'?"),
        ({"_target_": "Difference"}, f"._target_ is 'Difference', which .*; did you mean '{RULES}.Difference'?"),
        ({"_target_": None}, f"._target_ is missing; accepted: a rule, such as {RULES}.Difference"),
        (
            {"_target_": "zzz"},
            f"._target_ is 'zzz', which is no rule of {RULES}; accepted: All, Any, Contrast",
        ),
        ({"_target_": "genbench.hub.download"}, "._target_ is 'genbench.hub.download', which is no rule"),
        ({"_target_": "no_such.Rule"}, "._target_ is 'no_such.Rule', which cannot be imported: No module named"),
        ({"_target_": "math.sqrt"}, "._target_ is 'math.sqrt', which is no rule; accepted: a class with words"),
        ({"margins": 1}, f".margins is not a setting of {RULES}.Difference; did you mean 'margin'?"),
        ({"margin": "much"}, ": margin is 'much'; accepted: a number in"),
        ({"interest": 0}, ": interest is 0; accepted: a number in"),
        ({"theorem": "yes"}, ".theorem is 'yes'; accepted: true, false"),
        ({"theorem": True}, ".theorem is true; accepted with a rule that has a p: false, as a theorem holds in every"),
    ],
)
def test_what_is_wrong_in_a_claim(change, message):
    with pytest.raises(ValueError, match=f"^claims.rules.C1{message}"):
        read(block(C1={**BETTER, **change}))


def test_a_setting_that_a_rule_needs_and_a_part_of_a_rule_are_named():
    with pytest.raises(ValueError, match=r"^claims.rules.C1.of is missing; .*Difference needs it$"):
        read(block(C1={key: value for key, value in BETTER.items() if key != "of"}))
    part = {"_target_": f"{RULES}.Difference", "metric": ACCURACY, "of": at(1), "that": at(0)}
    whole = {"_target_": f"{RULES}.All", "statement": "A.", "parts": [part]}
    with pytest.raises(ValueError, match=r"^claims.rules.C1.parts.0.that is not a setting .*; did you mean 'than'\?$"):
        read(block(C1=whole))


def test_a_rule_of_ones_own_is_imported_if_it_is_trusted(tmp_path, monkeypatch):
    marker = tmp_path / "imported"
    (tmp_path / "own_claim_rules.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom genbench.claims.rules import Difference as Better\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = block(C1={**BETTER, "_target_": "own_claim_rules.Better"})
    nested = block(
        C1={"_target_": f"{RULES}.All", "statement": "A.", "parts": [{**PAIR, "_target_": "own_claim_rules.Better"}]}
    )
    for each in (own, nested):
        with pytest.raises(ValueError, match=r"is 'own_claim_rules.Better', which is no rule of .*; accepted: --trust"):
            read(each, trust=False)
    assert not marker.exists()
    assert read(own).claims[0].rule == read(block(C1=BETTER)).claims[0].rule
    assert marker.exists()


def test_the_digest_is_of_all_that_could_change_a_verdict(monkeypatch):
    base = block()
    digest = read(base).digest
    changed = [
        {**base, "looks": [5, 11]},
        {**base, "seeds": 1},
        {**base, "family": 2},
        {**base, "pilots": [100]},
        block(C1={**BETTER, "margin": 0.01}, C2=BOUNDED),
        block(C1=BETTER),
        block(other=BETTER, C2=BOUNDED),
    ]
    assert len({digest, *(read(each).digest for each in changed)}) == len(changed) + 1
    told = block(C1={**BETTER, "statement": "Level 1 beats level 0.", "source": None}, C2={**BOUNDED, "theorem": True})
    assert read(told).digest == digest
    monkeypatch.setattr(registration, "VERSION", 2)
    assert read(base).digest != digest


def test_a_configuration_is_registered_once():
    config = {"seed": 0, "claims": block()}
    before = copy.deepcopy(config)
    once = register(config)
    assert config == before
    assert once["claims"]["digest"] == read(block()).digest
    assert once["claims"]["version"] == registration.VERSION
    assert register(once) == once
    assert register({"seed": 0, "claims": None}) == {"seed": 0, "claims": None}
    with pytest.raises(ValueError, match=r"claims.looks is"):
        register({"claims": {**block(), "looks": []}})


def test_planned_runs_have_the_settings_that_claims_name():
    check(planned(block()))
    check(planned(None))
    with pytest.raises(ValueError, match=r"^claims.rules.C1: a claim names the setting 'data.y', .*'data.x'\?$"):
        check(planned(block(C1={**BETTER, "of": {"data.y": 1}})))
    mixed = planned(block(), width=1) + planned(block(), width=2)
    with pytest.raises(ValueError, match=r"^claims.rules.C1: .* mixes configurations: data.width is 1 and 2"):
        check(mixed)


def test_pilot_seeds_are_not_the_sweep_s():
    claims = {**block(), "pilots": [100, 101]}
    check(planned(claims))
    with pytest.raises(ValueError, match=r"^seed=101 is one of claims.pilots; accepted: other seeds, or claims=null"):
        check(planned(claims, seeds=(0, 101)))


def test_all_runs_have_the_same_claims():
    with pytest.raises(ValueError, match=r"^claims differ between the runs"):
        check(planned(block()) + planned(block(C1=BETTER), levels=(2,)))


def test_runs_of_the_rule_are_judged():
    claims = read(block())
    better, bounded = judged(claims, runs(digest=claims.digest))
    assert (better.claim, better.status, better.evidence.n) == ("C1", "replicated", 5)
    assert better.words == "mean difference 0.1008 [0.09976, 0.1018], n = 5"
    assert (bounded.claim, bounded.status) == ("C2", "replicated")
    assert judged(claims, runs(effect=-0.1, digest=claims.digest))[0].status == "not replicated"


def test_a_theorem_holds_or_is_violated():
    claims = read(block(C1=BETTER, C2={**BOUNDED, "theorem": True}))
    assert [claim.theorem for claim in claims.claims] == [False, True]
    assert [each.status for each in judged(claims, runs(digest=claims.digest))] == ["replicated", "holds"]
    beyond = read(block(C1=BETTER, C2={**BOUNDED, "than": 0.1, "theorem": True}))
    assert [each.status for each in judged(beyond, runs(digest=beyond.digest))] == ["replicated", "violated"]
    assert [each.status for each in judged(claims, [])] == ["undecided"] * 2
    changed = read({**block(C1=BETTER, C2={**BOUNDED, "theorem": True}), "changed": ["data.x=3"]})
    assert [each.status for each in judged(changed, runs(digest=changed.digest))] == ["settings changed"] * 2


def test_a_verdict_says_which_runs_were_trained_under_another_rule():
    claims = read(block())
    some = runs(seeds=range(2), digest="another") + runs(seeds=range(2, 5), digest=claims.digest)
    outside = runs(seeds=[50], digest="another")  # of no registered seed
    for verdict in judged(claims, some + outside):
        assert verdict.words.startswith("4 of 10 runs were trained under another rule; ")
    some = runs(seeds=[0])[:1] + runs(seeds=[0], digest=claims.digest)[1:] + runs(seeds=range(1, 5), digest="another")
    assert judged(claims, some)[0].words.startswith(
        "8 of 10 runs were trained under another rule and 1 of 10 runs was trained without a rule; mean"
    )


OWN_RULE = """
from genbench.claims.rules import Difference


class Mine(Difference):
    def evidence(self, runs, *, worst=False):
        return super().evidence(runs, worst=worst)  # NOTE
"""


def test_a_changed_rule_of_one_s_own_is_another_rule(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    for name, text in {
        "first": OWN_RULE,
        "comment": OWN_RULE.replace("NOTE", "a longer note"),
        "changed": OWN_RULE.replace("worst=worst", "worst=False"),
    }.items():
        (tmp_path / "rule_of_mine.py").write_text(text)
        sys.modules.pop("rule_of_mine", None)  # as in the next command
        importlib.invalidate_caches()
        found[name] = read(block(C1={**BETTER, "_target_": "rule_of_mine.Mine"}))
    sys.modules.pop("rule_of_mine", None)
    assert found["first"].digest == found["comment"].digest != found["changed"].digest
    (verdict,) = judged(found["changed"], runs(digest=found["first"].digest))
    assert verdict.words.startswith("10 of 10 runs were trained under another rule; ")


class Failing:
    """A rule of somebody's that fails once there are runs."""

    words = "something"

    def evidence(self, runs, *, worst=False):
        if runs.sample(ACCURACY, at(1)).missing == ():
            raise TypeError("unsupported operand")
        return rules.Exact(metric=ACCURACY, of=at(1), than=1).evidence(runs)


class Broken(Failing):
    def evidence(self, runs, *, worst=False):
        raise TypeError("unsupported operand")


class FailingLate(Failing):
    def evidence(self, runs, *, worst=False):
        if runs.sample(ACCURACY, at(1)).missing == () and len(runs.seeds) == 10:
            raise TypeError("unsupported operand")
        return rules.Difference(metric=ACCURACY, of=at(1), than=2).evidence(runs)


class FailingAtTheWorst(Failing):
    def evidence(self, runs, *, worst=False):
        if worst:
            raise TypeError("unsupported operand")
        return replace(rules.Difference(metric=ACCURACY, of=at(1), than=2).evidence(runs), unknown=("one",))


class Nothing(Failing):
    def evidence(self, runs, *, worst=False):
        return None


def test_an_error_of_a_rule_names_its_claim():
    exact = {key: value for key, value in BOUNDED.items() if key != "statement"}
    either = {"_target_": f"{RULES}.Any", "statement": "A.", "parts": [exact]}
    with pytest.raises(ValueError, match=r"^claims\.rules\.C2: a part of Any is Exact"):
        read(block(C1=BETTER, C2=either))
    broken = {"_target_": f"{__name__}.Broken", "statement": "A."}
    with pytest.raises(ValueError, match=r"^claims\.rules\.C2: TypeError: unsupported operand$"):
        read(block(C1=BETTER, C2=broken))
    empty = {"_target_": f"{__name__}.Nothing", "statement": "A."}
    with pytest.raises(ValueError, match=r"^claims\.rules\.C2: evidence is None; accepted: a genbench\.claims\."):
        read(block(C1=BETTER, C2=empty))


@pytest.mark.parametrize("rule", [Failing, FailingLate, FailingAtTheWorst])
def test_a_rule_that_fails_on_the_runs_leaves_the_other_claims(rule):
    claims = read(block(C1=BETTER, C2={"_target_": f"{__name__}.{rule.__name__}", "statement": "A."}))
    better, failed = judged(claims, runs(seeds=range(10), digest=claims.digest))
    assert better.status == "replicated"
    assert (failed.status, failed.words) == ("undecided", "TypeError: unsupported operand")
    assert not failed.evidence.exact


def test_a_claim_that_cannot_be_judged_leaves_the_others():
    claims = read(block(C1=BETTER, C2={**BETTER, "metric": "test/performance/acuracy"}))
    better, unknown = judged(claims, runs(digest=claims.digest))
    assert better.status == "replicated"
    assert better.supports == pytest.approx(2 * better.evidence.supports)  # the family does not shrink
    assert (unknown.status, unknown.supports) == ("undecided", None)
    assert unknown.words == f"a claim names the metric 'test/performance/acuracy'; did you mean {ACCURACY!r}?"


def test_without_runs_all_claims_are_undecided():
    assert [verdict.status for verdict in judged(read(block()), [])] == ["undecided", "undecided"]


def with_data(seeds, **settings):
    found = runs(seeds=seeds)
    for item in found:
        item["config"] = {**item["config"], "data": {**item["config"]["data"], **settings}}
    return found


@pytest.mark.parametrize(
    ("settings", "fixed"),
    [
        ({}, False),
        ({"seed": 0}, True),
        ({"train_size": 100, "val_fraction": 0, "label_noise": 0}, False),
        ({"train_size": None, "val_fraction": 0, "label_noise": 0}, True),
        ({"train_size": None, "val_fraction": 0.2, "label_noise": 0}, False),
        ({"train_size": None, "val_fraction": 0, "label_noise": 0.2}, False),
    ],
    ids=str,
)
def test_verdicts_are_conditional_on_data_that_no_seed_redraws(settings, fixed):
    said = conditions(read(block()), with_data(range(5), **settings))
    assert said == (["one data set, which the seed does not redraw"] if fixed else [])


def test_one_seed_says_nothing_of_the_data_and_correlations_are_conditional_on_their_grid():
    assert conditions(read(block()), with_data([0], seed=0)) == []
    part = {"_target_": f"{RULES}.Correlation", "metrics": [ACCURACY, "loss"], "of": {}, "over": GRID}
    claims = read(block(C1={"_target_": f"{RULES}.All", "statement": "A.", "parts": [part]}))
    assert conditions(claims, runs()) == ["this grid of settings, for correlations"]


def test_a_command_that_changed_settings_decides_nothing():
    claims = read({**block(), "changed": ["data.x=3 where the experiment has 1"]})
    found = judged(claims, runs(digest=claims.digest))
    assert [verdict.status for verdict in found] == ["settings changed"] * 2
    assert [verdict.status for verdict in judged(read(block()), runs(digest=claims.digest))] == ["replicated"] * 2
    assert claims.digest == read(block()).digest
    with pytest.raises(ValueError, match=r"^claims\.changed is 'all'; accepted: a list of settings in words$"):
        read({**block(), "changed": "all"})


def test_values_that_no_run_of_the_experiment_has_are_refused_and_those_of_another_command_are_not():
    claims = block(C1={**BETTER, "of": at(4)})
    with pytest.raises(
        ValueError, match=r"^claims\.rules\.C1: a claim names data\.x=4, which no run has; accepted: 0, 1$"
    ):
        check(planned(claims))
    (other,) = planned(claims, levels=[4], seeds=[7])
    check(planned(claims), [other[1:]])
    together = block(C1={**BETTER, "of": {**at(1), "model": "cnn"}})
    few = planned(together)
    few[0] = (few[0][0], few[0][1], {"model": "cnn"})
    message = r"^claims.rules.C1: a claim names data.x=1, model=cnn, which no run has together$"
    with pytest.raises(ValueError, match=message):
        check(few)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.y": 1}, r"a claim names the setting 'data\.y', which no run has; did you mean 'data\.x'\?"),
        ({"data.x": 4}, r"a claim names data\.x=4, which no run has; accepted: 0, 1"),
    ],
)
def test_a_set_that_no_claim_uses_is_checked(settings, message):
    check(planned({**block(), "sets": {"first": at(0)}}))
    with pytest.raises(ValueError, match=rf"^claims\.sets\.unused: {message}$"):
        check(planned({**block(), "sets": {"unused": settings}}))


KEYS = frozenset({ACCURACY, "weights/norm/l2", "train/flatness/*"})


def test_a_metric_that_no_planned_run_will_have_is_refused():
    better = {**BETTER, "metric": "test/performance/acuracy"}
    with pytest.raises(
        ValueError,
        match=r"^claims\.rules\.C1: a claim names the metric 'test/performance/acuracy', which no run of data\.x=1 "
        rf"will have; did you mean '{ACCURACY}'\?$",
    ):
        check(planned(block(C1=better)), metrics=[KEYS] * 10)
    check(planned(block()), metrics=[KEYS] * 10)
    check(planned(block(C1=better)))  # nothing is known
    check(planned(block(C1=better)), metrics=[frozenset("*")] * 10)


def test_a_misspelt_time_is_refused():
    claims = block(C1={**BETTER, "metric": "seconds.totl"})
    message = r"names the metric 'seconds\.totl', which no run of data\.x=1 will have; did you mean 'seconds\.total'\?$"
    for metrics in ([KEYS] * 10, None):
        with pytest.raises(ValueError, match=message):
            check(planned(claims), metrics=metrics)


@pytest.mark.parametrize("metric", ["train/flatness/anything", "weights/norm/l2", "seconds.fit", "seconds.total"])
def test_a_metric_that_runs_may_have_is_not_refused(metric):
    check(planned(block(C1={**BETTER, "metric": metric})), metrics=[KEYS] * 10)


def test_a_metric_counts_where_the_claim_looks_for_it():
    """Of runs of several kinds each has its own metrics, and a command may train a part of them."""
    claims = block(C1={**BETTER, "metric": "weights/norm/l2", "than": 0.5})  # of data.x=1
    bare = frozenset({ACCURACY})
    runs = planned(claims)  # level 0, five seeds, and level 1
    check(runs, metrics=[bare] * 5 + [KEYS] * 5)
    check(runs, metrics=[bare] * 9 + [KEYS])
    with pytest.raises(ValueError, match=r"'weights/norm/l2', which no run of data\.x=1 will have"):
        check(runs, metrics=[KEYS] * 5 + [bare] * 5)
    others = [(config, choices) for _, config, choices in planned(claims, levels=(1,))]
    check(planned(claims, levels=(0,)), others, metrics=[bare] * 5)


def test_every_metric_of_a_claim_is_looked_for():
    part = {"_target_": f"{RULES}.Difference", "metric": ACCURACY, "of": at(1), "than": 0.5}
    curves = {"steps": [1, 2], "of": at(1), "to": at(0), "than": 0.5}
    for rule in (
        {"_target_": f"{RULES}.Exact", "metric": ACCURACY, "of": at(1), "than": "test/none/x"},
        {"_target_": f"{RULES}.Equivalence", "metric": ACCURACY, "of": at(1), "to_metric": "test/none/x", "margin": 1},
        {"_target_": f"{RULES}.Correlation", "metrics": [ACCURACY, "test/none/x"], "of": at(1),
         "over": [{"data.x": 1}] * 4},
        {"_target_": f"{RULES}.All", "parts": [part, {**part, "metric": "test/none/x"}]},
        {"_target_": f"{RULES}.Distance", "metric": "test/none/x_at_*", **curves},
    ):  # fmt: skip
        claims = block(C1={**rule, "statement": "A."})
        with pytest.raises(ValueError, match=r"^claims\.rules\.C1: a claim names the metric 'test/none/x"):
            check(planned(claims), metrics=[KEYS] * 10)
    curve = {"_target_": f"{RULES}.Distance", "statement": "A.", "metric": "train/flatness/x_at_*", **curves}
    check(planned(block(C1=curve)), metrics=[KEYS] * 10)
