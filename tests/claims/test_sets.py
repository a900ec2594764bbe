"""Named sets of runs: a name in place of settings, in the rule and in its digest."""

import copy
import pickle

import pytest

from genbench.claims.registration import judged, read, register
from genbench.claims.runs import NamedSet, merged, named
from tests.helpers.claims import ACCURACY, at, record

RULES = "genbench.claims.rules"
SETS = {"first": at(1), "small nets": {"model": "mlp", "model.width": 32}, "none": {"regularization": "none"}}
NETS = {**SETS["small nets"], **SETS["none"]}
BOTH = {"set": ["small nets", "none"]}
DIFFERENCE = {"_target_": f"{RULES}.Difference", "metric": ACCURACY}
CASES = {  # a rule by names, the same by settings, and its words by names
    "a name": (
        {**DIFFERENCE, "of": "first", "than": "small nets"},
        {**DIFFERENCE, "of": at(1), "than": SETS["small nets"]},
        f"{ACCURACY} of first exceeds {ACCURACY} of small nets by more than 0",
    ),
    "a name and more": (
        {**DIFFERENCE, "of": {"set": "small nets", "data.x": 2}, "than": 0.5},
        {**DIFFERENCE, "of": {**SETS["small nets"], "data.x": 2}, "than": 0.5},
        f"{ACCURACY} of small nets, data.x=2 exceeds 0.5 by more than 0",
    ),
    "several names": (
        {"_target_": f"{RULES}.Equivalence", "metric": ACCURACY, "of": "first", "to": BOTH, "margin": 1},
        {"_target_": f"{RULES}.Equivalence", "metric": ACCURACY, "of": at(1), "to": NETS, "margin": 1},
        f"{ACCURACY} of first is within 1 of {ACCURACY} of small nets, none",
    ),
    "a list": (
        {"_target_": f"{RULES}.Order", "metric": ACCURACY, "of": ["first", "none", {"model": "cnn"}]},
        {"_target_": f"{RULES}.Order", "metric": ACCURACY, "of": [at(1), SETS["none"], {"model": "cnn"}]},
        f"{ACCURACY} of none exceeds {ACCURACY} of first by more than 0 and {ACCURACY} of model=cnn exceeds {ACCURACY} "
        "of none by more than 0",
    ),
    "parts": (
        {"_target_": f"{RULES}.All", "parts": [{**DIFFERENCE, "of": "none", "than": "first"}] * 2},
        {"_target_": f"{RULES}.All", "parts": [{**DIFFERENCE, "of": SETS["none"], "than": at(1)}] * 2},
        "; and ".join([f"{ACCURACY} of none exceeds {ACCURACY} of first by more than 0"] * 2),
    ),
    "terms": (
        {"_target_": f"{RULES}.Contrast", "metric": ACCURACY,
         "terms": [{"weight": 1, "of": "first"}, {"weight": -1, "of": "none"}]},
        {"_target_": f"{RULES}.Contrast", "metric": ACCURACY,
         "terms": [{"weight": 1, "of": at(1)}, {"weight": -1, "of": SETS["none"]}]},
        f"+1 × {ACCURACY} of first -1 × {ACCURACY} of none exceeds 0",
    ),
    "pairs": (
        {"_target_": f"{RULES}.CorrelationDifference", "plus": [{"metrics": ["a", "b"], "of": "first"}],
         "minus": [{"metrics": ["a", "c"], "of": "none"}], "over": {"data.y": [1, 2, 3, 4]}, "of": {}},
        {"_target_": f"{RULES}.CorrelationDifference", "plus": [{"metrics": ["a", "b"], "of": at(1)}],
         "minus": [{"metrics": ["a", "c"], "of": SETS["none"]}], "over": {"data.y": [1, 2, 3, 4]}, "of": {}},
        "z(a, b; first) minus z(a, c; none) over data.y = 1, 2, 3, 4 of the runs exceeds 0",
    ),
    "a list of settings": (
        {"_target_": f"{RULES}.Exact", "metric": "a", "of": {}, "over": ["first", "none"], "than": "b"},
        {"_target_": f"{RULES}.Exact", "metric": "a", "of": {}, "over": [at(1), SETS["none"]], "than": "b"},
        "a equals b in every run of first and of none",
    ),
    "what is sooner": (
        {"_target_": f"{RULES}.Sooner", "metric": "a", "of": "first", "than": "none", "steps": 9},
        {"_target_": f"{RULES}.Sooner", "metric": "a", "of": at(1), "than": SETS["none"], "steps": 9},
        "a of none exceeds that of first by more than a factor of 1",
    ),
    "a metric that is called like a set": (
        {"_target_": f"{RULES}.Exact", "metric": "a", "of": "first", "than": "none"},
        {"_target_": f"{RULES}.Exact", "metric": "a", "of": at(1), "than": "none"},
        "a equals none in every run of first",
    ),
}  # fmt: skip


def block(rule, sets=SETS):
    return {"sets": sets, "rules": {"C1": {"statement": "A.", **rule}}}


@pytest.mark.parametrize("case", CASES)
def test_a_set_stands_for_its_settings_in_the_rule_and_in_the_digest(case):
    by_name, by_settings, words = CASES[case]
    before = copy.deepcopy(by_name)
    found, plain = read(block(by_name)), read(block(by_settings, None))
    assert by_name == before
    assert found.digest == plain.digest
    assert found.claims[0].rule == plain.claims[0].rule
    assert found.claims[0].rule.words == words
    assert register({"claims": block(by_name)})["claims"]["digest"] == plain.digest


def test_a_set_may_be_made_of_earlier_ones():
    sets = {**SETS, "both": BOTH, "wide": {"set": "both", "model.depth": 3}}
    found = {each.name: dict(each) for each in read(block({**DIFFERENCE, "of": "wide", "than": 1}, sets)).sets}
    assert found["both"] == NETS
    assert found["wide"] == {**NETS, "model.depth": 3}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"of": "frist", "than": 1}, r"\.of is 'frist', which is no set of claims\.sets; did you mean 'first'\?"),
        ({"of": "first", "than": "nome"}, r"\.than is 'nome', which is no set of claims\.sets; did you mean 'none'\?"),
        ({"of": {"set": "zzz"}, "than": 1}, r"\.of\.set is 'zzz', which .*; accepted: first, small nets, none"),
        ({"of": {"set": ["first", 1]}, "than": 1}, r"\.of\.set is 1, which is no set of claims\.sets; accepted: first"),
        ({"of": {"set": []}, "than": 1}, r"\.of\.set is \[\]; accepted: the name of a set of claims\.sets, or a list"),
        ({"of": "first", "than": {"set": None}}, r"\.than\.set is None; accepted: the name of a set"),
    ],
)
def test_what_is_no_set_is_named(rule, message):
    with pytest.raises(ValueError, match=rf"^claims\.rules\.C1{message}"):
        read(block({**DIFFERENCE, **rule}))


def test_the_path_of_a_part_and_claims_without_sets_are_named():
    part = {**DIFFERENCE, "of": "frist", "than": 1}
    with pytest.raises(ValueError, match=r"^claims\.rules\.C1\.parts\.0\.of is 'frist', which is no set"):
        read(block({"_target_": f"{RULES}.All", "parts": [part]}))
    message = r"^claims\.rules\.C1\.of is 'mlp', which is no set of claims\.sets; accepted: settings and their values$"
    with pytest.raises(ValueError, match=message):
        read(block({**DIFFERENCE, "of": "mlp", "than": 1}, None))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], r"claims\.sets is \[\]; accepted: a name for each set, and its settings"),
        ({"a/b": at(1)}, r"claims\.sets has the name 'a/b'; accepted: text without /, such as MLP 3 x 128"),
        ({3: at(1)}, r"claims\.sets has the name 3; accepted: text"),
        ({"a": {}}, r"claims\.sets\.a is \{\}; accepted: settings and their values"),
        ({"a": "b"}, r"claims\.sets\.a is 'b'; accepted: settings and their values"),
        ({"a": {"set": "b"}, "b": at(1)}, r"claims\.sets\.a\.set is 'b', which is no set of claims\.sets; accepted: "),
    ],
)
def test_what_is_wrong_with_a_set(sets, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read(block({**DIFFERENCE, "of": at(1), "than": 1}, sets))


def test_missing_runs_are_those_of_the_set():
    claims = read({**block({**DIFFERENCE, "of": "first", "than": 0.5}), "looks": [5]})
    found = [{**record(seed, 0.9, x=1), "provenance": {}} for seed in range(4)]
    (verdict,) = judged(claims, found)
    assert verdict.words.endswith("1 run is missing (seed 4 of first)")


def test_the_name_of_a_set_outlives_copies_and_additions():
    some = NamedSet({"model": "mlp"}, "MLP")
    assert [named(each) for each in (copy.deepcopy(some), pickle.loads(pickle.dumps(some)))] == ["MLP", "MLP"]
    assert named(merged(some, {})) == "MLP"
    assert named(merged({"seed": 1}, some, {"data.x": 2})) == "seed=1, MLP, data.x=2"
    assert named(dict(some)) == "model=mlp"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {**DIFFERENCE, "of": {"set": ["A", "B"]}, "than": 1},
            r"\.of: A and B give model two values, 'a' and 'b'; accepted: one",
        ),
        (
            {**DIFFERENCE, "of": {"set": "A", "model": "b"}, "than": 1},
            r"\.of: A and model=b give model two values, 'a' and 'b'; accepted: one",
        ),
        (
            {"_target_": f"{RULES}.Exact", "metric": "a", "of": "A", "over": ["A", "B"], "than": 1},
            r": A and B give model two values",
        ),
        (
            {"_target_": f"{RULES}.Correlation", "metrics": ["a", "b"], "of": "A", "over": {"model": ["a", "b", 1, 2]}},
            r": A and model=b give model two values",
        ),
        (
            {
                "_target_": f"{RULES}.CorrelationDifference",
                "plus": [{"metrics": ["a", "b"], "of": "B"}, {"metrics": ["a", "c"], "of": "A"}],
                "over": {"data.x": [1, 2, 3, 4]},
                "of": "A",
            },
            r": A and B give model two values",
        ),
        (
            {"_target_": f"{RULES}.Slope", "metric": "a", "along": {"data.x": [1, 2]}, "of": {"set": "A", "data.x": 1}},
            r": A, data\.x=1 and data\.x=2 give data\.x two values, 1 and 2",
        ),
        (
            {
                "_target_": f"{RULES}.PeakSlope",
                "metric": "a",
                "along": {"data.y": [1, 2]},
                "peak": {"data.x": [1, 2, 3]},
                "drop": 1,
                "of": at(1),
            },
            r": data\.x=1 and data\.x=2 give data\.x two values, 1 and 2",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(rule, message):
    """One of the two would be hidden, while the words name both."""
    with pytest.raises(ValueError, match=rf"^claims\.rules\.C1{message}"):
        read(block(rule, {"A": {"model": "a"}, "B": {"model": "b"}}))


def test_a_set_made_of_contradicting_ones_is_refused():
    sets = {"A": {"model": "a"}, "B": {"set": "A", "model": "b"}}
    with pytest.raises(ValueError, match=r"^claims\.sets\.B: A and model=b give model two values, 'a' and 'b'"):
        read(block({**DIFFERENCE, "of": "A", "than": 1}, sets))
