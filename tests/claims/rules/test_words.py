"""The words of a rule name its smallest effect that matters, on which "not replicated" depends."""

import pytest

from genbench.claims import rules
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import at, record

OVER = {"data.x": list(range(20))}
CURVE = {"metric": "y", "along": {"data.x": [1, 2, 3]}, "of": {}, "interest": 0.5}
PAIRS = {"plus": [{"metrics": ["a", "b"]}], "minus": [{"metrics": ["a", "c"]}], "over": OVER, "of": {}}
RULES = [
    rules.Difference(metric="y", of=at(0), than=at(1), interest=0.5),
    rules.Order(metric="y", of=[at(0), at(1)], interest=0.5),
    rules.Contrast(metric="y", terms=[{"weight": 1, "of": at(0)}, {"weight": -1, "of": at(1)}], interest=0.5),
    rules.Distance(metric="y*", steps=[1, 2], of=at(0), to=at(1), than=1, interest=0.5),
    rules.Proportion(metric="y", of={}, op=">", bound=0, share=0.1, interest=0.5),
    rules.Sooner(metric="y", of=at(0), than=at(1), steps=9, ratio=0.25, interest=0.5),
    rules.Trend(**CURVE, tau=0.6),
    rules.Slope(**CURVE),
    rules.Peak(**CURVE),
    rules.PeakSlope(**CURVE, peak={"data.y": [1, 2, 3]}, drop=0.1),
    rules.Correlation(metrics=["a", "b"], over=OVER, of={}, interest=0.5),
    rules.Correlation(metrics=["a", "b"], over=OVER, of={}, interest=0.5, groups="data.x"),
    rules.CorrelationDifference(**PAIRS, interest=0.5),
    rules.CorrelationDifference(**PAIRS, interest=0.5, groups="data.x"),
    rules.Ranks(metric="y", gap="g", over=OVER, of={}, interest=0.5),
    rules.Ranks(metric="y", than_metric="a", gap="g", over=OVER, of={}, score="psi", interest=0.5),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_interest_stands_behind_the_margin(rule):
    assert " (of interest from 0.5)" in rule.words
    assert rule.words.split(" (of interest")[0].endswith(("0", "0.1", "0.25"))


SETTINGS = [at(0), at(1), at(2), at(3)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (rules.Trend(**CURVE, tau=0.6), "along data.x = 1, 2, 3 "),
        (rules.Peak(**CURVE), "inside data.x = 1, 2, 3, above"),
        (rules.Slope(**CURVE), "on data.x, data.x = 1, 2, 3, of the runs"),
        (rules.Slope(**{**CURVE, "along": OVER}), "data.x = 0 … 19 (20 levels)"),
        (rules.PeakSlope(**CURVE, peak={"data.y": [1, 2, 4]}, drop=0.1), "inside data.y = 1, 2, 4 (the mean of log"),
        (
            rules.PeakSlope(**CURVE, peak={"data.y": [1, 2, 4]}, drop=0.1),
            "weighs exp(-x/0.1)) on log data.x, data.x = 1",
        ),
        (
            rules.Correlation(metrics=["a", "b"], over=SETTINGS, of={}),
            "4 settings (data.x=0; data.x=1; data.x=2; data.x=3)",
        ),
        (
            rules.Exact(metric="a", of=at(1), over={"data.y": [1, 2]}, than=0),
            "every run of data.x=1 over data.y = 1, 2",
        ),
        (rules.Exact(metric="a", of={}, over=[at(0), at(1)], than=0), "every run of data.x=0 and of data.x=1"),
    ],
)
def test_the_runs_that_decide_can_be_told_from_the_words_alone(rule, said):
    assert said in rule.words


@pytest.mark.parametrize(
    ("groups", "said"), [(None, "minus the mean rank correlation 0.99"), ("data.x", "minus the rank correlation 0.99")]
)
def test_the_finding_says_that_it_is_of_the_negative_correlation(groups, said):
    found = ClaimRuns(record(s, {"a": x + 0.1 * (s % 2) * (x % 3), "b": -x}, x=x) for s in range(8) for x in range(20))
    rule = rules.Correlation(metrics=["a", "b"], over=OVER, of={}, sign=-1, groups=groups)
    assert rule.evidence(found).words.startswith(said)
