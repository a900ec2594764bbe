import numpy as np
import pytest

from genbench.claims import runs as runs_module
from genbench.claims.runs import ClaimRuns, named
from tests.helpers.claims import ACCURACY, at, record, runs


def test_a_metric_by_seed_of_the_runs_with_some_settings():
    found = runs(x0=[0.7, 0.8], x1=[0.5, 0.6]).sample(ACCURACY, at(1))
    assert found.low.tolist() == found.high.tolist() == [0.5, 0.6]
    assert (found.missing, found.unknown, found.scale) == ((), (), 0.6)
    assert found.low.dtype == np.float64


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_setting_is_compared_as_it_is_shown(value):
    assert runs(x0=[0.7], x1=[0.5]).sample(ACCURACY, at(value)).low.tolist() == [0.7]


def test_choices_and_lists_of_values_select_runs():
    records = [
        record(0, 0.1, choices={"regularization": ["l2", "mixup"]}),
        record(1, 0.2, choices={"regularization": ["l2"]}),
        record(1, 0.3, choices={"regularization": ["sam"]}),
    ]
    some = ClaimRuns(records)
    assert some.sample(ACCURACY, {"regularization": "l2+mixup"}).low[0] == 0.1
    assert some.sample(ACCURACY, {"regularization": ["l2+mixup", "sam"]}).low.tolist() == [0.1, 0.3]


def test_seconds_are_a_metric():
    assert runs(x0=[0.7]).sample("seconds.fit", {}).low.tolist() == [2.0]


def test_missing_failed_diverged_and_null_are_told_apart():
    records = [
        record(0, 0.5),
        record(1, {}, status="diverged"),
        record(2, {ACCURACY: None}),
        record(3, {}, status="failed"),
    ]
    found = ClaimRuns(records, seeds=range(5)).sample(ACCURACY, {}, bounds=(0, 1))
    assert found.missing == ("seed 3 of the runs (failed)", "seed 4 of the runs")
    assert found.unknown == ("seed 1 of the runs: diverged", f"seed 2 of the runs: {ACCURACY} is null")
    np.testing.assert_array_equal(found.low, [0.5, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found.high, [0.5, 1, 1, np.nan, np.nan])


def test_a_number_without_bounds_lies_anywhere():
    found = ClaimRuns([record(0, 0.5), record(1, {}, status="diverged")]).sample(ACCURACY, {})
    assert (found.low[1], found.high[1]) == (-np.inf, np.inf)


def test_a_number_that_is_too_large_is_none():
    found = ClaimRuns([record(0, 1e200), record(1, 0.5)]).sample(ACCURACY, {})
    assert found.unknown == (f"seed 0 of the runs: {ACCURACY} is too large to be averaged",)


def test_other_seeds_are_not_read():
    some = runs(x0=[0.7, 0.8, 0.9])
    assert some.of([2, 0]).sample(ACCURACY, at(0)).low.tolist() == [0.7, 0.9]
    assert some.seeds == (0, 1, 2)


def test_an_unknown_metric_names_the_nearest():
    message = r"^a claim names the metric 'test/performance/acuracy'; did you mean 'test/performance/accuracy'\?$"
    with pytest.raises(ValueError, match=message):
        runs(x0=[0.7]).sample("test/performance/acuracy", {})


def test_an_unknown_setting_names_the_nearest():
    message = r"^a claim names the setting 'data.sed', which no run has; did you mean 'data.seed'\?$"
    with pytest.raises(ValueError, match=message):
        runs(x0=[0.7]).sample(ACCURACY, {"data.sed": 1})


def test_runs_that_differ_in_another_setting_are_refused():
    message = (
        rf"^{ACCURACY} of model=mlp mixes configurations: data.x is 0 and 1; name them where the claim selects runs$"
    )
    with pytest.raises(ValueError, match=message):
        runs(x0=[0.7, 0.8], x1=[0.5, 0.6]).sample(ACCURACY, {"model": "mlp"})
    with pytest.raises(ValueError, match=r"mixes configurations: data.x is 2 and 3"):
        ClaimRuns([record(0, 0.5, x=2), record(1, 0.5, x=3)]).sample(ACCURACY, {})


def test_two_runs_of_a_seed_are_refused():
    twice = [record(0, 0.5), {**record(0, 0.6), "run_id": "other"}]
    with pytest.raises(ValueError, match=r"holds seed 0 twice \(\w+, other\)"):
        ClaimRuns(twice).sample(ACCURACY, {})
    named = [{**run, "experiment": name} for run, name in zip(twice, ("mine", "another"), strict=True)]
    with pytest.raises(ValueError, match=r"holds seed 0 twice \(\w+ of mine, other of another\): their experiments, "):
        ClaimRuns(named).sample(ACCURACY, {})


def test_no_records_are_missing_runs():
    assert ClaimRuns([], seeds=[3]).sample(ACCURACY, at(0)).missing == ("seed 3 of data.x=0",)


def test_settings_in_words():
    assert named({"data.x": 0.10, "model": ["mlp", "cnn"]}) == "data.x=0.1, model=mlp or cnn"


def test_the_runs_of_settings_are_found_once_for_all_their_metrics(monkeypatch):
    found = []
    plain = runs_module.differing
    monkeypatch.setattr(runs_module, "differing", lambda *given: found.append(1) or plain(*given))
    some = ClaimRuns([record(seed, {"a": 1.0, "b": 2.0}, x=1) for seed in range(4)])
    assert [some.sample(metric, {"data.x": 1}).low.tolist() for metric in "ab"] == [[1.0] * 4, [2.0] * 4]
    assert len(found) == 1
    few = some.of(range(2))
    assert few.sample("a", {"data.x": 1}).low.tolist() == [1.0] * 2
    assert len(found) == 2
