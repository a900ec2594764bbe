"""Reducers of curves, on curves worked by hand."""

import pytest

from genbench.measures import Estimate
from genbench.measures.trajectory import At, Fall, First, Largest, Mean, Smallest, Value

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
        (Value, {"metric": ACC, "when": 7}, "when is 7; accepted: First, Largest, Smallest, Fall"),
    ],
)
def test_settings_are_checked(reducer, settings, error):
    with pytest.raises(ValueError, match=error):
        reducer(**settings)
