"""Reducers of a part of a curve, on curves worked by hand."""

import pytest

from genbench.measures import Estimate
from genbench.measures.phases import Falls, Median, Rises, Tau
from genbench.measures.trajectory import First, Largest

RATIO, LOSS, HOLED = "train/flatness/stability_ratio", "train/optimization/objective", "train/flatness/lambda_1"
CURVES = {
    RATIO: [(2, 0.3), (4, 0.6), (6, 0.5), (8, 1.1), (10, 0.9), (12, 1.3), (14, 1.0)],
    LOSS: [(step, value) for step, value in enumerate([9, 8, 7, 6, 5, 4, 3, 2, 5, 1, 4, 0, 0], 1)],
    HOLED: [(2, 0.3), (8, 1.0), (10, None), (12, 2.0)],
}
CROSSING = First(metric=RATIO, at_least=1)  # at step 8
MISSED = First(metric=RATIO, at_least=2)


def test_the_median_from_a_step_on():
    assert Median(metric=RATIO, start=CROSSING)(CURVES).value == pytest.approx((1.0 + 1.1) / 2)  # of 1.1, .9, 1.3, 1
    assert Median(metric=RATIO, start=Largest(metric=RATIO))(CURVES).value == pytest.approx((1.0 + 1.3) / 2)
    unknown = Median(metric=HOLED, start=CROSSING)(CURVES)
    assert unknown == Estimate(None, note=f"{HOLED} is null in 1 of 3 measurements from step 8")


def test_shares_of_windows_that_rise_and_fall():
    # from step 8 on: 2, 5, 1, 4, 0, 0
    assert Rises(metric=LOSS, start=CROSSING)(CURVES).value == 2 / 5
    assert Falls(metric=LOSS, start=CROSSING)(CURVES).value == 2 / 5  # the last is neither
    assert Rises(metric=LOSS, start=CROSSING, over=2)(CURVES).value == 0
    assert Falls(metric=LOSS, start=CROSSING, over=2)(CURVES).value == 1
    assert Rises(metric=RATIO, start=CROSSING, over=2)(CURVES).value == 1 / 3
    found = Rises(metric=RATIO, start=CROSSING)(CURVES)
    assert found == Estimate(None, note=f"{RATIO} is not measured 1 steps apart from step 8 on")


def test_kendall_s_tau_until_a_step():
    assert Tau(metric=RATIO, end=CROSSING)(CURVES).value == pytest.approx(4 / 6)  # one of six pairs is discordant
    assert Tau(metric=RATIO, end=CROSSING, start=5)(CURVES).value == pytest.approx(1)
    assert Tau(metric=LOSS, end=CROSSING)(CURVES).value == pytest.approx(-1)
    assert "undefined" in Tau(metric=RATIO, end=CROSSING, start=8)(CURVES).note
    assert Tau(metric=HOLED, end=Largest(metric=HOLED))(CURVES).note == f"{HOLED} is null in 1 of 4 " + (
        "measurements from step 1 to 12"
    )


@pytest.mark.parametrize("kind", [Median, Rises, Falls])
def test_without_the_step_there_is_no_number(kind):
    note = f"not reached: {RATIO} at least 2 in 14 steps"
    assert kind(metric=LOSS, start=MISSED)(CURVES) == Estimate(None, note=note)
    assert Tau(metric=LOSS, end=MISSED)(CURVES) == Estimate(None, note=note)


def test_they_read_the_metric_of_the_step_too():
    assert Rises(metric=LOSS, start=CROSSING).metrics == Tau(metric=LOSS, end=CROSSING).metrics == (LOSS, RATIO)


@pytest.mark.parametrize("kind", [Median, Rises, Falls])
def test_wrong_settings_are_refused(kind):
    with pytest.raises(ValueError, match="metric is 'loss'; accepted: split/family/name"):
        kind(metric="loss", start=CROSSING)
    with pytest.raises(ValueError, match="start is 3; accepted: First, Largest, Smallest, Fall"):
        kind(metric=LOSS, start=3)
    with pytest.raises(ValueError, match="end is 3; accepted: First"):
        Tau(metric=LOSS, end=3)


@pytest.mark.parametrize("over", [0, 1.5, True])
def test_a_window_of_no_steps_is_refused(over):
    with pytest.raises(ValueError, match="over is "):
        Rises(metric=LOSS, start=CROSSING, over=over)
