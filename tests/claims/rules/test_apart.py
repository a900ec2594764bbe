"""No run is compared with itself: its verdict would be about nothing."""

import re

import pytest

from genbench.claims import rules
from genbench.claims.registration import check
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import at, record

RUNS = ClaimRuns([record(s, {"y": s + x, "y1": x, "y2": s, "z": s - x}, x=x) for s in range(8) for x in range(5)])
SAME = {"data.x": 0, "model": "mlp"}  # the runs of data.x=0, by other settings
SHARED = "data.x=0 and data.x=0, model=mlp share the run of seed 0; accepted: other runs in each, as no run says "
OVER = [*map(at, range(4)), SAME]
AGAIN = {"data.x": [0, 1, 2, 3, 0]}
REPEATED = SHARED.replace(", model=mlp", "")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (rules.Difference(metric="y", of=at(0), than=SAME), SHARED),
        (rules.Difference(metric="y", of=at(0), than=SAME, than_metric="y"), SHARED),
        (rules.Equivalence(metric="y", of=at(0), to=SAME, margin=1), SHARED),
        (rules.Order(metric="y", of=[SAME, at(0)]), SHARED),
        (
            rules.Contrast(metric="y", terms=[{"weight": 1, "of": at(0)}, {"weight": 2, "of": SAME, "metric": "y"}]),
            SHARED,
        ),
        (rules.Distance(metric="y*", steps=[1, 2], of=at(0), to=SAME, than=1), SHARED),
        (rules.Sooner(metric="y", of=at(0), than=SAME, steps=9), SHARED),
        (rules.Exact(metric="y", of={}, over=OVER, than="z"), SHARED),
        (rules.Correlation(metrics=["y", "z"], over=OVER, of={}), SHARED),
        (rules.Correlation(metrics=["y", "z"], over=AGAIN, of={}), REPEATED),
        (
            rules.CorrelationDifference(
                plus=[{"metrics": ["y", "z"]}], minus=[{"metrics": ["z", "y"]}], over={"data.x": [0, 1, 2, 3]}, of={}
            ),
            REPEATED,
        ),
    ],
)
def test_sets_that_share_a_run_are_refused(rule, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        rule.evidence(RUNS)


def test_groups_of_a_correlation_share_no_run_either():
    found = ClaimRuns([record(s, {"y": s + x, "z": s - x}, x=x) for s in range(2) for x in range(20)])
    rule = rules.Correlation(metrics=["y", "z"], over=[*map(at, range(20)), SAME], of={}, groups="data.x")
    with pytest.raises(ValueError, match=f"^{re.escape(SHARED)}"):
        rule.evidence(found)
    ranks = rules.Ranks(metric="y", gap="z", over=[*map(at, range(20)), SAME], of={})
    with pytest.raises(ValueError, match=f"^{re.escape(SHARED)}"):
        ranks.evidence(found)


def test_one_run_may_have_several_metrics_and_sets_may_overlap_in_none_of_a_seed():
    assert rules.Difference(metric="y", of=at(0), than=SAME, than_metric="z").evidence(RUNS).n == 8
    terms = [{"weight": 1, "of": at(0)}, {"weight": -1, "of": SAME, "metric": "z"}]
    assert rules.Contrast(metric="y", terms=terms).evidence(RUNS).n == 8
    rule = rules.Difference(metric="y", of=at(0), than=SAME)
    missing = rule.evidence(ClaimRuns([record(0, {"y": 1.0}, x=0)], [1, 2])).missing
    assert missing == tuple(f"seed {s} of {where}" for where in ("data.x=0", "data.x=0, model=mlp") for s in (1, 2))


@pytest.mark.parametrize(
    ("rule", "settings", "said"),
    [
        (rules.Difference, {"metric": "y", "of": at(0), "than": at(0)}, "than is data.x=0, as of is; accepted: other"),
        (rules.Equivalence, {"metric": "y", "of": at(0), "to": at(0), "margin": 1}, "to is data.x=0, as of is"),
        (
            rules.Distance,
            {"metric": "y*", "steps": [1, 2], "of": at(0), "to": at(0), "than": 1},
            "to is data.x=0, as of is",
        ),
        (rules.Order, {"metric": "y", "of": [at(0), at(0)]}, "of has data.x=0 twice; accepted: other"),
        (rules.Sooner, {"metric": "y", "of": at(0), "than": at(0), "steps": 9}, "than is data.x=0, as of is"),
        (rules.Exact, {"metric": "y", "of": {}, "than": "y"}, "than is 'y', as metric is; accepted: a number or an"),
        (
            rules.Correlation,
            {"metrics": ["y", "y"], "over": {"data.x": [0, 1, 2, 3]}, "of": {}},
            "metrics is ['y', 'y']; accepted: two different metrics",
        ),
    ],
)
def test_equal_settings_are_refused_when_the_rule_is_read(rule, settings, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        rule(**settings)


def test_a_plan_in_which_runs_are_compared_with_themselves_is_refused():
    node = {"statement": "S.", "_target_": "genbench.claims.rules.Difference", "metric": "y", "of": at(0), "than": SAME}
    runs = [
        ({"rules": {"C1": node}}, run["config"], run["choices"]) for run in (record(0, {}, x=0), record(0, {}, x=1))
    ]
    with pytest.raises(ValueError, match=rf"^claims\.rules\.C1: {re.escape(SHARED)}"):
        check(runs)
