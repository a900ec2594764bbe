"""izmailov2018: numbers that violate a claim do not replicate it; a few steps of each row train."""

import math
import random

import pytest

from tests.helpers.experiments import rows, trained

ACCURACY, VALIDATION = "test/performance/accuracy", "val/performance/accuracy"
TRAIN = "train/performance/cross_entropy"
LAMBDA, SHARPNESS = "train/flatness/lambda_1", "train/flatness/average_sharpness"


def numbers(run, *, cosine=0.02, last=0.02, sharp=2.0, rise=2.0, loss=1.5):
    """The numbers of a run if every claim held. By how much SWA is more accurate than the ``cosine`` and its ``last``
    weights; λ₁ (``sharp``) and mean rise of the loss (``rise``) of the cosine over those of SWA; ``loss``: the train
    loss of SWA over that of the cosine. The higher rate is the better one."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    swa, by_cosine = run["regularization"] == "l2+swa", run["scheduler"] == "cosine"
    accuracy = 0.92 - (0 if swa else cosine if by_cosine else last) - (0.02 if run["optimizer.lr"] == 0.1 else 0)
    return {
        ACCURACY: accuracy + noise(0, 0.003),
        VALIDATION: accuracy + noise(0, 0.005),
        LAMBDA: 4 * (1 if swa else sharp) * math.exp(noise(0, 0.1)),
        SHARPNESS: 0.001 * (1 if swa else rise) * math.exp(noise(0, 0.1)),
        TRAIN: 0.02 * (loss if swa else 1) * math.exp(noise(0, 0.05)),
    }


WRONG = {
    "C1 the cosine is as good": ("C1", {"cosine": 0}),
    "C2 the average adds nothing": ("C2", {"last": 0}),
    "C3 λ₁ is the same": ("C3", {"sharp": 1}),
    "C3 the loss rises as much": ("C3", {"rise": 1}),
    "C4 its train loss is lower": ("C4", {"loss": 0.8}),
}


@pytest.mark.parametrize("row", rows("izmailov2018"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=125", "data.test_size=50", "data.batch_size=20", "trainer.max_steps=12", "trainer.accelerator=cpu", "model.width=4")  # fmt: skip  # noqa: E501
    found = trained(tmp_path, "experiment=izmailov2018", *row, *few)
    assert all(found[key] > 0 for key in (ACCURACY, TRAIN, LAMBDA))
    assert math.isfinite(found[SHARPNESS])
    assert VALIDATION in found


@pytest.mark.parametrize("scale", ["izmailov2018_paper", "izmailov2018_middle"])
def test_a_few_steps_at_larger_scales(scale, small, tmp_path):
    few = (f"data.path={small}", "data.hub=null", "data.train_size=50", "data.batch_size=10", "model.width=4",
           "trainer.max_steps=5", "trainer.accelerator=cpu", "callbacks.flatness.examples=10")  # fmt: skip
    found = trained(tmp_path, f"experiment={scale}", *rows(scale)[0], *few)
    assert found[TRAIN] > 0
    assert math.isfinite(found[LAMBDA])
