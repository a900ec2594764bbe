"""papyan2020: numbers that violate a claim do not replicate it; a few steps of each row train."""

import math
import random

import pytest

from tests.helpers.experiments import rows, trained

TRAIN, TEST = "train/representation/", "test/representation/"
NC1, ANGLES, NORMS, DUALITY, MISMATCH = (
    f"{TRAIN}{name}"
    for name in ("neural_collapse", "collapse_angles", "collapse_norms", "collapse_duality", "collapse_mismatch")
)
FITTED = {NC1: "nc1_fitted", ANGLES: "angles_fitted", NORMS: "norms_fitted", DUALITY: "duality_fitted"}
ACCURACY = "test/performance/accuracy"


def numbers(run, *, of="", fall=None, metric=NC1, mismatch=0.0, test=3.0, accuracy=0.1, without=0.1):
    """The numbers of a run if every claim held. ``fall``: of ``metric`` from when it is fitted to the end, as a factor,
    in the row ``of``. ``mismatch``: NC4. ``test``: NC1 of test data. ``accuracy``: with random labels. ``without``: NC1
    at the end without weight decay."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    row = (
        "random" if run["data.label_noise"] else "plain" if run["model.normalization"] == "none" else
        "decay" if run["regularization.l2.strength"] else "no decay"
    )  # fmt: skip
    falls = {NC1: 20.0, ANGLES: 2.0, NORMS: 4.0, DUALITY: 4.0}
    if fall is not None and row == of:
        falls[metric] = fall
    start = {NC1: 0.1, ANGLES: 0.1, NORMS: 0.06, DUALITY: 0.03}
    found = {
        MISMATCH: mismatch,
        f"{TEST}neural_collapse": test,
        ACCURACY: (accuracy if row == "random" else 0.7) + noise(0, 0.005),
    }
    for key, value in start.items():
        found[f"train/trajectory/{FITTED[key]}"] = value * math.exp(noise(0, 0.05))
        found[key] = value / falls[key] * math.exp(noise(0, 0.05))
    if row == "no decay":
        found[NC1] = without * math.exp(noise(0, 0.05))
    return found


WRONG = {
    "C1 it falls to a fifth": ("C1", {"of": "decay", "fall": 5}),
    "C2 the angles stay": ("C2", {"of": "decay", "fall": 1, "metric": ANGLES}),
    "C2 the norms part": ("C2", {"of": "decay", "fall": 0.5, "metric": NORMS}),
    "C2 the last layer turns away": ("C2", {"of": "decay", "fall": 0.5, "metric": DUALITY}),
    "C3 means and answers differ": ("C3", {"mismatch": 0.05}),
    "C4 test data collapse": ("C4", {"test": 0.01}),
    "C5 random labels do not collapse": ("C5", {"of": "random", "fall": 1.2}),
    "C5 they are learned": ("C5", {"accuracy": 0.2}),
    "C6 it stays without batch norm": ("C6", {"of": "plain", "fall": 0.8}),
    "C7 weight decay does nothing": ("C7", {"without": 0.006}),
}


@pytest.mark.parametrize("row", rows("papyan2020"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=100", "data.batch_size=20", "trainer.max_steps=10", "model.width=20", "model.depth=2",
           "callbacks.gap.every_n_epochs=1", "callbacks.train_collapse.every_n_epochs=1", "trainer.accelerator=cpu",
           "callbacks.test_collapse.every_n_epochs=1", "callbacks.trajectory.metrics.fitted.at_least=0.01",
           "callbacks.trajectory.metrics.nc1_fitted.when.at_least=0.01")  # fmt: skip
    found = trained(tmp_path, "experiment=papyan2020", *row, *few)
    for key in (NC1, ANGLES, NORMS, DUALITY, MISMATCH):
        assert found[key] >= 0
    assert found["train/trajectory/nc1_fitted"] > 0
    assert found[f"{TEST}neural_collapse"] > 0
