"""Which of the settings that were tried for a set of runs decides."""

import math

import numpy as np
import pytest

from genbench.claims import registration
from genbench.claims.choice import Choice, choice_of
from genbench.claims.runs import ClaimRuns
from tests.helpers.claims import ACCURACY, record

VAL = "val/performance/accuracy"
MAX = Choice(VAL, "max")


def tried(*settings, method="l2"):
    """Return records: for each setting x = 0, 1, … the (validation, test) accuracy of each seed; None: it diverged."""
    return [
        record(seed, {}, status="diverged", x=x, method=method)
        if numbers is None
        else record(seed, dict(zip((VAL, ACCURACY), numbers, strict=True)), x=x, method=method)
        for x, seeds in enumerate(settings)
        for seed, numbers in enumerate(seeds)
    ]


def sample(records, choice=MAX, where=None, **options):
    return ClaimRuns(records, choice=choice).sample(ACCURACY, where or {"data.method": "l2"}, **options)


def test_the_setting_that_validates_best_decides_whatever_it_tests():
    worse = [(0.5, 0.9)] * 3
    better = [(0.6, 0.1), (0.7, 0.2), (0.6, 0.3)]
    assert sample(tried(worse, better)).low.tolist() == [0.1, 0.2, 0.3]
    assert sample(tried(worse, better), Choice(VAL, "min")).low.tolist() == [0.9] * 3


def test_a_seed_does_not_choose_for_itself():
    """Seed 0 was lucky with setting 0, by which alone it would win."""
    lucky = [(1.0, 0.9), (0.4, 0.4), (0.4, 0.4)]
    steady = [(0.5, 0.5)] * 3
    assert sample(tried(lucky, steady)).low.tolist() == [0.5, 0.4, 0.4]  # means of the others: .4 < .5; .7 > .5


def test_luck_chooses_nothing_in_expectation():
    """Ten settings that do not differ, whose validation is their test accuracy."""
    rng = np.random.default_rng(0)
    means, naive = [], []
    for _ in range(300):
        values = rng.normal(0.5, 0.05, (10, 8))
        settings = [[(value, value) for value in row] for row in values]
        means.append(sample(tried(*settings)).low.mean())
        naive.append(values.mean(1).max())
    error = np.std(means) / math.sqrt(len(means))
    assert abs(np.mean(means) - 0.5) < 3 * error
    assert np.mean(naive) - 0.5 > 10 * error  # what choosing by all seeds would have found


def test_of_equal_settings_the_first_decides():
    assert sample(tried([(0.5, 0.1)] * 2, [(0.5, 0.2)] * 2)).low.tolist() == [0.1, 0.1]


def test_a_setting_with_a_run_that_diverged_comes_last():
    """The seed itself knows nothing of that, and chooses it."""
    good, bad = [(0.4, 0.4)] * 3, [(0.9, 0.9), None, (0.9, 0.9)]
    found = sample(tried(bad, good), bounds=(0, 1))
    assert found.low.tolist() == [0.4, 0.0, 0.4]
    assert found.unknown == ("seed 1 of data.method=l2: diverged",)


def test_a_run_that_the_chosen_setting_lacks_is_missing():
    records = tried([(0.9, 0.9)] * 3, [(0.5, 0.5)] * 3)
    del records[1]
    assert sample(records).missing == ("seed 1 of data.method=l2",)


def test_without_a_choice_they_are_refused():
    with pytest.raises(ValueError, match=r"mixes configurations: data\.x is 0 and 1"):
        sample(tried([(0.5, 0.5)], [(0.6, 0.6)]), None)


def test_two_runs_of_one_setting_and_seed_are_still_refused():
    records = tried([(0.5, 0.5)] * 2, [(0.6, 0.6)] * 2)
    with pytest.raises(ValueError, match="holds seed 0 twice"):
        sample([*records, {**records[2], "run_id": "0" * 12}])


def claims(**changes):
    rule = {
        "statement": "Tuned l2 is better than the tuned plain network.",
        "_target_": "genbench.claims.rules.Difference",
        "metric": ACCURACY,
        "of": {"data.method": "l2"},
        "than": {"data.method": "none"},
        "interest": 0.05,
    }
    return {"rules": {"better": rule}, **changes}


CHOOSE = {"metric": VAL, "best": "max"}


def test_claims_judge_the_chosen_settings():
    rng = np.random.default_rng(1)

    def setting(mean):
        return [(mean + noise, mean + noise) for noise in rng.normal(0, 0.01, 8)]

    records = [
        *tried(setting(0.5), setting(0.6), setting(0.3)),
        *tried(setting(0.4), setting(0.5), setting(0.3), method="none"),
    ]
    found = registration.read(claims(choose=CHOOSE))
    records = [{**each, "provenance": {"claims": found.digest}} for each in records]
    (verdict,) = registration.judged(found, records)
    assert verdict.status == "replicated"
    assert verdict.evidence.statistic == pytest.approx(0.1, abs=0.02)
    (without,) = registration.judged(registration.read(claims()), records)
    assert "mixes configurations" in without.words


def test_the_choice_is_registered_and_told():
    plain, chosen = registration.read(claims()), registration.read(claims(choose=CHOOSE))
    assert plain.digest == registration.read(claims(choose=None)).digest
    assert len({plain.digest, chosen.digest, registration.read(claims(choose={**CHOOSE, "best": "min"})).digest}) == 3
    assert chosen.choice.words == (
        "Of the settings that were tried for a set of runs, a seed counts with the one that has the highest mean "
        "val/performance/accuracy over the other seeds."
    )


def test_runs_that_will_not_have_the_metric_are_refused_before_they_are_trained():
    block = claims(choose=CHOOSE)
    methods = [(method, x) for method in ("l2", "none") for x in (0, 1)]
    planned = [
        (block, {"data": {"method": method, "x": x}, "seed": seed}, {}) for method, x in methods for seed in range(8)
    ]
    keys = [frozenset({ACCURACY, VAL})] * len(planned)
    registration.check(planned, metrics=keys)
    with pytest.raises(ValueError, match=f"a claim names the metric '{VAL}', which no run of data.method=l2 will have"):
        registration.check(planned, metrics=[frozenset({ACCURACY})] * len(planned))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("max", "claims.choose is 'max'; accepted: {metric: a metric, best: max or min}, or null"),
        ({"metric": VAL}, "claims.choose is .*; accepted: {metric: a metric, best: max or min}, or null"),
        ({**CHOOSE, "best": "most"}, "claims.choose.best is 'most'; accepted: max, min"),
    ],
)
def test_what_is_not_accepted_is_named(node, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        choice_of(node)
