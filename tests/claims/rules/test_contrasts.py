import re

import numpy as np
import pytest
from scipy import stats

from genbench.claims.rules import Contrast, Distance
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, at, record, runs

A, B = [0.71, 0.73, 0.70, 0.75, 0.72], [0.62, 0.60, 0.63, 0.64, 0.61]
C, D = [0.40, 0.43, 0.41, 0.39, 0.42], [0.38, 0.40, 0.40, 0.37, 0.41]
STEPS = [10, 20, 40]


def greater(values, bound):
    return stats.ttest_1samp(values, bound, alternative="greater").pvalue


def less(values, bound):
    return stats.ttest_1samp(values, bound, alternative="less").pvalue


def test_a_contrast_is_a_weighted_sum_in_each_seed():
    terms = [{"weight": weight, "of": at(x)} for x, weight in enumerate([1, -1, -2, 2])]
    rule = Contrast(metric=ACCURACY, terms=terms, margin=0.02, interest=0.09)
    sums = np.array(A) - np.array(B) - 2 * np.array(C) + 2 * np.array(D)
    found = rule.evidence(runs(x0=A, x1=B, x2=C, x3=D))
    assert found.supports == pytest.approx(greater(sums, 0.02))
    assert found.contradicts == pytest.approx(less(sums, 0.09))
    assert found.statistic == pytest.approx(sums.mean())
    assert (found.n, found.interest) == (5, True)
    assert rule.words.startswith(f"+1 × {ACCURACY} of data.x=0 -1 × {ACCURACY} of data.x=1 -2 × ")


def test_a_term_may_have_a_metric_of_its_own():
    records = [record(seed, {"a": a, "b": b}) for seed, (a, b) in enumerate(zip(A, B, strict=True))]
    rule = Contrast(metric="a", terms=[{"weight": 1, "of": {}}, {"weight": -3, "of": {}, "metric": "b"}])
    assert rule.evidence(ClaimRuns(records)).statistic == pytest.approx(np.mean(A) - 3 * np.mean(B))


def test_a_diverged_run_counts_at_its_worst_end():
    terms = [{"weight": 1, "of": at(0)}, {"weight": -1, "of": at(1)}]
    found = Contrast(metric=ACCURACY, terms=terms, bounds=[0, 1]).evidence(runs(x0=A, x1=[None, *B[1:]]), worst=True)
    assert found.supports == pytest.approx(greater([A[0] - 1, *(np.array(A) - np.array(B))[1:]], 0))


def curve(seed, values, *, x, last=None, limit=0.5):
    metrics = {f"test/e_at_{step}": value for step, value in zip(STEPS, values, strict=True)}
    return record(seed, {**metrics, "train/fitted": last, "test/gap": limit}, x=x)


def close(**settings):
    given = {"metric": "test/e_at_*", "steps": STEPS, "of": at(0), "to": at(1), "than": "test/gap", "factor": 0.5}
    return Distance(**{**given, **settings})


def test_the_distance_is_a_mean_over_the_steps_until_a_run_s_own_last():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((5, 3)), rng.random((5, 3))
    lasts = [10, 20, 39, 40, None]  # never: every step counts
    limits = [0.5, 0.6, 0.7, 0.8, 0.9]
    records = [curve(s, ours[s], x=0, last=lasts[s], limit=limits[s]) for s in range(5)]
    records += [curve(s, theirs[s], x=1, last=1, limit=9.0) for s in range(5)]  # those of the others are not read
    counts = [1, 2, 2, 3, 3]
    d = [limits[s] / 2 - np.abs(ours[s] - theirs[s])[: counts[s]].mean() for s in range(5)]
    found = close(until="train/fitted", margin=0.01, interest=0.6).evidence(ClaimRuns(records))
    assert found.statistic == pytest.approx(np.mean(d))
    assert found.supports == pytest.approx(greater(d, 0.01))
    assert found.contradicts == pytest.approx(less(d, 0.6))
    assert found.unknown == ()
    plain = close(than=0.4, factor=1).evidence(ClaimRuns(records))
    assert plain.statistic == pytest.approx(np.mean(0.4 - np.abs(ours - theirs).mean(1)))


def test_curves_that_are_apart_contradict():
    rng = np.random.default_rng(1)
    records = [curve(s, 0.2 + 0.01 * rng.random(3), x=0) for s in range(5)]
    records += [curve(s, 0.7 + 0.01 * rng.random(3), x=1) for s in range(5)]
    assert close().evidence(ClaimRuns(records)).contradicts < 1e-4


def test_a_seed_in_which_no_step_counts_has_no_number():
    records = [curve(s, A[:3], x=x, last=9 if s == 0 else 40) for s in range(5) for x in (0, 1)]
    assert close(until="train/fitted").evidence(ClaimRuns(records)).n == 4


def test_a_diverged_run_is_left_out_or_as_far_apart_as_can_be():
    records = [curve(s, A[:3], x=x) for s in range(5) for x in (0, 1) if (s, x) != (0, 1)]
    records.append(record(0, {}, status="diverged", x=1))
    rule = close(bounds=[0, 1])
    assert rule.evidence(ClaimRuns(records)).n == 4
    worst = rule.evidence(ClaimRuns(records), worst=True)
    assert worst.supports == pytest.approx(greater([-1.0, 0.25, 0.25, 0.25, 0.25], 0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metric": "test/e"}, "metric is 'test/e'; accepted: a name with one * in place of a step"),
        ({"steps": [20, 10]}, "steps is [20, 10]; accepted: different steps in ascending order"),
        ({"steps": [1]}, "steps is [1]; accepted: a list of at least two steps"),
        ({"factor": 0}, "factor is 0; accepted: a number in (0, inf)"),
    ],
)
def test_settings_of_a_distance_are_checked(settings, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        close(**settings)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([], "terms is []; accepted: at least two of {weight: a number, of: settings}"),
        ([{"weight": 0, "of": {}}, {"weight": 1, "of": {}}], "terms[0].weight is 0; accepted: another number"),
        ([{"weight": 1, "of": {}, "wight": 1}] * 2, "terms[0].wight is not a setting; did you mean 'weight'?"),
    ],
)
def test_terms_are_checked(terms, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        Contrast(metric="a", terms=terms)


@pytest.mark.parametrize("wrong", [{"bounds": [0, 0.1]}, {"bounds": [0.9, 2]}])
def test_errors_and_limits_outside_the_bounds_are_refused(wrong):
    found = ClaimRuns([curve(s, A[:3], x=x) for s in range(5) for x in (0, 1)])
    with pytest.raises(ValueError, match=r" in seed 0, outside the bounds \["):
        close(**wrong).evidence(found)
