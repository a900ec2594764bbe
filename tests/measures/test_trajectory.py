"""Reducers of curves, on curves worked by hand."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from genbench.measures import Estimate
from genbench.measures.trajectory import Along, At, Fall, First, Largest, Mean, Smallest, Value, Wasserstein

ACC, LOSS = "test/performance/accuracy", "train/performance/cross_entropy"
CURVES = {
    ACC: [(5, 0.1), (10, 0.6), (15, 0.9), (20, 0.9), (25, 0.4)],
    LOSS: [(5, 2.0), (10, 0.5), (20, 0.25)],
    "val/performance/accuracy": [(5, None), (10, 0.5), (20, 0.3)],
    "val/gap/accuracy": [(5, None), (10, None)],
    "train/performance/soft_error": [],
}


def test_values_at_registered_steps():
    assert At(metric=ACC, steps=[10, 25])(CURVES) == {"at_10": Estimate(0.6), "at_25": Estimate(0.4)}
    found = At(metric=LOSS, steps=[15, 30])(CURVES)
    assert found["at_15"] == Estimate(None, note=f"{LOSS} is not measured at step 15, but at 10 and 20")
    assert found["at_30"] == Estimate(None, note=f"{LOSS} is not measured at step 30, but at 20")
    (null,) = At(metric="val/performance/accuracy", steps=[5])(CURVES).values()
    assert null == Estimate(None, note="val/performance/accuracy is null at step 5")


def test_the_first_step_at_a_level_and_the_measurements_between_which_it_lies():
    assert First(metric=ACC, at_least=0.6)(CURVES) == Estimate(10, interval=(5, 10))
    assert First(metric=ACC, at_least=0.61)(CURVES) == Estimate(15, interval=(10, 15))
    assert First(metric=ACC, at_least=0.1)(CURVES) == Estimate(5, interval=(0, 5))
    assert First(metric=LOSS, at_most=0.25)(CURVES) == Estimate(20, interval=(10, 20))
    assert First(metric=LOSS, at_most=0.2)(CURVES) == Estimate(
        None, note=f"not reached: {LOSS} at most 0.2 in 20 steps"
    )
    assert First(metric=ACC, at_least=1)(CURVES) == Estimate(None, note=f"not reached: {ACC} at least 1 in 25 steps")
    unknown = First(metric="val/gap/accuracy", at_least=0)(CURVES)
    assert unknown == Estimate(None, note="val/gap/accuracy is null in every measurement")


def test_a_level_that_is_not_reached_is_censored_at_the_last_measurement():
    reached = First(metric=ACC, at_least=0.6, censor=True)(CURVES)
    assert reached == {"": Estimate(10, interval=(5, 10)), "censored": Estimate(0.0)}
    missed = First(metric=LOSS, at_most=0.2, censor=True)(CURVES)
    note = f"not reached: {LOSS} at most 0.2 in 20 steps"
    assert missed == {"": Estimate(20, note=note), "censored": Estimate(1.0, note=note)}
    unknown = First(metric="val/gap/accuracy", at_least=0, censor=True)(CURVES)
    assert {key: each.value for key, each in unknown.items()} == {"": None, "censored": None}


def test_means_over_steps():
    assert Mean(metric=ACC, steps=[5, 10])(CURVES).value == pytest.approx(0.35)
    assert Mean(metric=ACC)(CURVES).value == pytest.approx(2.9 / 5)
    assert Mean(metric=ACC, steps=[5, 11])(CURVES).note == f"{ACC} is not measured at step 11, but at 10 and 15"
    assert Mean(metric="val/performance/accuracy")(CURVES).value is None
    assert Mean(metric="train/performance/soft_error")(CURVES).value is None


def test_the_largest_and_smallest_value_and_the_first_step_that_has_it():
    assert Largest(metric=ACC)(CURVES) == {"": Estimate(0.9), "step": Estimate(15)}
    assert Smallest(metric=ACC)(CURVES) == {"": Estimate(0.1), "step": Estimate(5)}
    assert Largest(metric="val/performance/accuracy")(CURVES) == {"": Estimate(0.5), "step": Estimate(10)}
    assert Largest(metric="val/gap/accuracy")(CURVES)["step"].value is None


def test_the_value_of_one_metric_where_another_is_chosen():
    assert Value(metric=ACC, when=First(metric=LOSS, at_most=0.3))(CURVES) == Estimate(0.9)
    assert Value(metric=LOSS, when=Largest(metric="val/performance/accuracy"))(CURVES) == Estimate(0.5)
    missed = Value(metric=ACC, when=First(metric=LOSS, at_most=0.1))(CURVES)
    assert missed == Estimate(None, note=f"not reached: {LOSS} at most 0.1 in 20 steps")
    elsewhere = Value(metric=LOSS, when=Smallest(metric=ACC))
    assert elsewhere(CURVES) == Estimate(2.0)
    assert elsewhere.metrics == (LOSS, ACC)
    assert Value(metric=LOSS, when=Largest(metric=ACC))(CURVES).value is None  # at 15 the loss was not measured


def test_the_fall_from_a_smoothed_peak_to_the_end():
    # means of three: 1.6/3, 2.4/3, 2.2/3
    found = Fall(metric=ACC, window=3)(CURVES)
    assert found[""].value == pytest.approx(0.2 / 3)
    assert found["step"].value == 15
    assert Fall(metric=ACC, window=1)(CURVES)[""].value == pytest.approx(0.5)
    assert Fall(metric=LOSS, window=1)(CURVES) == {"": Estimate(1.75), "step": Estimate(5)}
    assert Fall(metric=LOSS, window=1, start=10)(CURVES) == {"": Estimate(0.25), "step": Estimate(10)}
    rising = {ACC: [(1, 0.0), (2, 0.5), (3, 1.0)]}
    assert Fall(metric=ACC, window=1)(rising) == {"": Estimate(0.0), "step": Estimate(3)}
    few = Fall(metric=LOSS, window=5)(CURVES)
    assert few[""].note == f"{LOSS} has 3 measurements, fewer than the window of 5"
    assert "null in 1 of 3" in Fall(metric="val/performance/accuracy", window=1)(CURVES)[""].note


QUANTILES = "train/margin/margin_q*"


def quantiles(*distributions, steps, percentiles):
    """Curves of the percentiles of some distributions, one a step."""
    found = {QUANTILES.replace("*", f"{q:g}"): [] for q in percentiles}
    for step, values in zip(steps, distributions, strict=True):
        for curve, value in zip(found.values(), np.percentile(values, percentiles, method="hazen"), strict=True):
            curve.append((step, float(value)))
    return found


def test_the_distance_between_distributions_by_hand():
    # quartiles' middles: −1, 0, 2 and 3 move by 1, 1, 0 and −2
    curves = {
        QUANTILES.replace("*", q): [(1, a), (2, b), (4, b)]
        for q, a, b in (("12.5", -1.0, 0.0), ("37.5", 0.0, 1.0), ("62.5", 2.0, 2.0), ("87.5", 3.0, 1.0))
    }
    reducer = Wasserstein(metric=QUANTILES, percentiles=[12.5, 37.5, 62.5, 87.5], steps=[1, 2, 4])
    assert reducer.metrics == tuple(curves)
    assert reducer(curves) == {"at_2": Estimate(1.0), "at_4": Estimate(0.0)}


def test_the_distance_between_distributions_is_scipys():
    """Of 20 examples the middles of 20 shares are the examples themselves; of 2,000 ten shares come close."""
    rng = np.random.default_rng(0)
    few, many = [[i * 5 + 2.5 for i in range(20)], [i * 10 + 5 for i in range(10)]]
    for n, percentiles, tolerance in ((20, few, 1e-12), (2000, many, 0.03)):
        a, b = rng.normal(size=n), rng.gamma(2.0, size=n)
        curves = quantiles(a, b, steps=[5, 10], percentiles=percentiles)
        found = Wasserstein(metric=QUANTILES, percentiles=percentiles, steps=[5, 10])(curves)
        assert found["at_10"].value == pytest.approx(wasserstein_distance(a, b), rel=tolerance)


def test_a_distribution_that_shifts_moves_as_far_as_it_shifts_and_back():
    values = np.random.default_rng(1).exponential(size=50)
    shifted = quantiles(values, values - 0.7, values, steps=[1, 2, 3], percentiles=[10, 30, 50, 70, 90])
    found = Wasserstein(metric=QUANTILES, percentiles=[10, 30, 50, 70, 90], steps=[1, 2, 3])(shifted)
    assert [each.value for each in found.values()] == pytest.approx([0.7, 0.7], rel=1e-12)


def test_no_distance_where_a_quantile_is_missing():
    curves = quantiles([1.0, 2], [2.0, 3], steps=[1, 2], percentiles=[25, 75])
    reducer = Wasserstein(metric=QUANTILES, percentiles=[25, 75], steps=[1, 2, 4])
    found = reducer(curves)
    assert found["at_2"].value == pytest.approx(1.0)
    assert found["at_4"] == Estimate(None, note="train/margin/margin_q25 is not measured at step 4, but at 2")
    curves["train/margin/margin_q75"][0] = (1, None)
    assert reducer(curves)["at_2"] == Estimate(None, note="train/margin/margin_q75 is null at step 1")


@pytest.mark.parametrize(
    ("reducer", "settings", "error"),
    [
        (At, {"metric": "accuracy", "steps": [1]}, "metric is 'accuracy'; accepted: split/family/name"),
        (At, {"metric": ACC, "steps": []}, r"steps is \[\]; accepted: a list of optimizer steps"),
        (At, {"metric": ACC, "steps": [1, 0]}, r"steps\[1\] is 0; accepted: an integer of at least 1"),
        (At, {"metric": ACC, "steps": [3, 3]}, r"steps is \[3, 3\]; accepted: each step once"),
        (First, {"metric": ACC}, "at_least is None and at_most None; accepted: a number for one of the two"),
        (
            First,
            {"metric": ACC, "at_least": 1, "at_most": 1},
            "at_least is 1 and at_most 1; accepted: a number for one",
        ),
        (First, {"metric": ACC, "at_least": "1"}, "at_least is '1'; accepted: a number"),
        (Fall, {"metric": ACC, "window": 4}, "window is 4; accepted: an odd number"),
        (
            Wasserstein,
            {"metric": ACC, "percentiles": [50], "steps": [1, 2]},
            r"accepted: a name with one \* in place of the percentile",
        ),
        (
            Wasserstein,
            {"metric": QUANTILES, "percentiles": [10, 50, 90], "steps": [1, 2]},
            r"percentiles is \[10, 50, 90\]; accepted: the middles of equal shares, of 3 16.6667, 50, …",
        ),
        (Wasserstein, {"metric": QUANTILES, "percentiles": [], "steps": [1, 2]}, r"percentiles is \[\]"),
        (Wasserstein, {"metric": QUANTILES, "percentiles": [50], "steps": [2]}, r"steps is \[2\]; accepted: at least"),
        (Wasserstein, {"metric": QUANTILES, "percentiles": [50], "steps": [2, 1]}, r"steps is \[2, 1\]; accepted: at"),
        (Value, {"metric": ACC, "when": 7}, "when is 7; accepted: First, Largest, Smallest, Fall"),
    ],
)
def test_settings_are_checked(reducer, settings, error):
    with pytest.raises(ValueError, match=error):
        reducer(**settings)


def test_a_family_along_steps_has_each_number_at_its_step():
    curves = {f"test/robustness/drift_{k}": [(10, 0.9 - 0.1 * k), (20, 0.8 - 0.1 * k)] for k in range(3)}
    found = Along(metric="test/robustness/drift_*", steps=[10, 20, 20])(curves)
    assert {k: each.value for k, each in found.items()} == pytest.approx({"0": 0.9, "1": 0.7, "2": 0.6})
    missing = Along(metric="test/robustness/drift_*", steps=[10, 15])(curves)["1"]
    assert missing.value is None
    assert missing.note == "test/robustness/drift_1 is not measured at step 15, but at 10 and 20"


@pytest.mark.parametrize(
    ("metric", "steps"), [("test/robustness/drift", [1]), ("drift_*", [1]), ("a/b/c_*", []), ("a/b/c_*", [0])]
)
def test_a_family_needs_numbers_and_steps(metric, steps):
    with pytest.raises(ValueError, match="accepted: "):
        Along(metric=metric, steps=steps)
