"""kalimeris2019: numbers that violate a claim do not replicate it; a few steps of each row train at both scales."""

import random

import pytest

from tests.helpers.experiments import rows, trained

SHARE, THEN, END = "test/trajectory/share_then", "test/trajectory/explained_then", "test/information/linear_explained"
INFORMATION, INFORMATION_THEN = "test/information/answer_information", "test/trajectory/information_then"


def numbers(
    run, *, share=0.9, kept=0.7, fitted=1.0, more=2.5, noisy=(0.9, 0.6), neighbour=0.45, better=0.1, parity=0.4
):
    """The numbers of a run if every claim held.

    Args:
        share: that the linear classifier explains, of halves.
        kept: of what it explained, at the end.
        fitted: the train accuracy.
        more: the ratio of the information at the end.
        noisy: the first two with noise.
        neighbour: the share that the nearest neighbour explains.
        better: by which its accuracy is above that of the linear classifier.
        parity: the share with even and odd digits.
    """
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    if run["data"] == "mnist1d_parity":
        share = parity
    elif run["data.label_noise"]:
        share, kept = noisy
    share += noise(0, 0.01)
    return {
        SHARE: share,
        INFORMATION_THEN: 0.06,
        THEN: 0.06 * share,
        END: 0.06 * share * (kept + noise(0, 0.02)),
        INFORMATION: 0.06 * more * (1 + noise(0, 0.02)),
        "train/performance/accuracy": fitted - abs(noise(0, 0.002)),
        "test/trajectory/neighbour_then": neighbour + noise(0, 0.01),
        "test/information/neighbour_accuracy": 0.65 + better + noise(0, 0.003),
        "test/information/linear_accuracy": 0.65,
    }


WRONG = {
    "C1 half is explained": ("C1", {"share": 0.5}),
    "C2 a third is left": ("C2", {"kept": 0.33}),
    "C2 the train error is not zero": ("C2", {"fitted": 0.9}),
    "C3 no more is learned": ("C3", {"more": 1.0}),
    "C4 half is explained": ("C4", {"noisy": (0.5, 0.6)}),
    "C4 a quarter is left": ("C4", {"noisy": (0.9, 0.25)}),
    "C5 the neighbour explains as much": ("C5", {"neighbour": 0.9}),
    "C5 the neighbour is worse": ("C5", {"better": -0.1}),
    "C6 the same share": ("C6", {"parity": 0.9}),
}


@pytest.mark.parametrize("row", rows("kalimeris2019"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    few = ("data.train_size=100", "data.test_size=200", "data.batch_size=20", "trainer.max_steps=4")
    steps = ("callbacks.explained.every_n_steps=2", "callbacks.neighbour.every_n_steps=2")
    found = trained(tmp_path, "experiment=kalimeris2019", *row, *few, *steps)
    assert found[END] <= found["test/information/linear_information"] + 1e-9
    lead = found["test/performance/accuracy"] - found["test/information/linear_accuracy"]
    assert found["test/information/linear_lead"] == pytest.approx(lead)


@pytest.mark.parametrize("row", rows("kalimeris2019_paper"), ids=str)
def test_a_few_steps_on_images(row, small, tmp_path):
    few = (
        f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=8", "model.width=4",
        "trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks.explained.every_n_steps=[2,4]",
    )  # fmt: skip
    found = trained(tmp_path, "experiment=kalimeris2019_paper", *few, *row)
    assert 0 <= found["test/information/linear_accuracy"] <= 1
