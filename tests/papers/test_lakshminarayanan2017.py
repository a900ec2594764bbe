"""lakshminarayanan2017: numbers that violate a claim do not replicate it; a few steps of each row train."""

import random

import pytest

from tests.helpers.experiments import rows, trained

TEST = "test/performance/"
ACCURACY, NLL, SCALED = (f"{TEST}{name}" for name in ("accuracy", "cross_entropy", "calibrated_cross_entropy"))
BIAS, VARIANCE = f"{TEST}squared_bias2", f"{TEST}squared_variance"
OUTLIERS = "test/robustness/outliers"


def numbers(
    run,
    *,
    gain=0.04,
    scaled=0.08,
    unscaled=1.0,
    variance=4.0,
    bias=1.0,
    outliers=0.09,
    large=0.0,
    nll=0.0,
    large_outliers=0.09,
):
    """The numbers of a run if every claim held. Of eight networks over one: ``gain`` in accuracy, ``scaled`` and
    ``unscaled`` in NLL, ``outliers``. ``variance`` and ``bias``: of one network over those of a mean of four. Of the
    large network beside the ensemble: ``large`` accuracy, ``nll``; its outliers beside one network's."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    one = {ACCURACY: 0.66 + noise(0, 0.004), SCALED: 0.92 + noise(0, 0.004), OUTLIERS: 0.57 + noise(0, 0.008)}
    if run["regularization"] == "ensemble":
        found = {ACCURACY: one[ACCURACY] + gain, SCALED: one[SCALED] - scaled, OUTLIERS: one[OUTLIERS] + outliers}
        start = 2 + noise(0, 0.01)
        return {
            **found,
            f"{ACCURACY}_of_1": one[ACCURACY],
            f"{ACCURACY}_of_8": found[ACCURACY] + noise(0, 0.002),
            f"{SCALED}_of_1": one[SCALED],
            f"{SCALED}_of_8": found[SCALED] + noise(0, 0.002),
            f"{NLL}_of_1": start,
            f"{NLL}_of_8": start - unscaled + noise(0, 0.01),
            VARIANCE: 0.19,
            f"{VARIANCE}_of_4": 0.19 / variance + noise(0, 0.0005),
            BIAS: 0.38,
            f"{BIAS}_of_4": 0.38 / bias + noise(0, 0.002),
        }
    if run["model.width"] == 100:
        return one
    return {
        ACCURACY: one[ACCURACY] + 0.04 + large,
        SCALED: one[SCALED] - 0.08 + nll,
        OUTLIERS: one[OUTLIERS] + large_outliers,
    }


WRONG = {
    "C1 together they are no better": ("C1", {"gain": 0}),
    "C2 scaling gives all of it": ("C2", {"scaled": 0}),
    "C3 most of the gain is left": ("C3", {"unscaled": 0.1}),
    "C4 the members vary together": ("C4", {"variance": 1.5}),
    "C4 the bias falls too": ("C4", {"bias": 1.5}),
    "C5 outliers look alike": ("C5", {"outliers": 0}),
    "C6 the large network errs more": ("C6", {"large": -0.04}),
    "C6 its NLL is higher": ("C6", {"nll": 0.08}),
    "C7 it tells outliers worse": ("C7", {"large_outliers": 0}),
}


@pytest.mark.parametrize("row", rows("lakshminarayanan2017"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=100", "data.test_size=50", "data.batch_size=20", "trainer.max_steps=10", "trainer.accelerator=cpu")  # fmt: skip  # noqa: E501
    found = trained(tmp_path, "experiment=lakshminarayanan2017", *row, *few)
    assert 0 < found[SCALED] < 3
    assert 0 < found[OUTLIERS] < 1
    if "regularization=ensemble" in row:
        assert found[f"{SCALED}_of_8"] == pytest.approx(found[SCALED], rel=1e-5)
        assert found[f"{TEST}squared_risk"] == pytest.approx(found[BIAS] + found[VARIANCE])
        assert found[f"{TEST}squared_risk_of_4"] < found[f"{TEST}squared_risk"]
    else:
        assert f"{SCALED}_of_1" not in found or found[f"{SCALED}_of_1"] is None


@pytest.mark.parametrize("row", rows("lakshminarayanan2017_paper"), ids=str)
def test_a_few_steps_at_the_larger_scale(row, small, tmp_path):
    few = (f"data.path={small}", "data.hub=null", "data.channels=3", "data.train_size=40", "data.batch_size=10",
           "trainer.max_steps=5", "trainer.accelerator=cpu")  # fmt: skip
    assert trained(tmp_path, "experiment=lakshminarayanan2017_paper", *row, *few)[SCALED] > 0
