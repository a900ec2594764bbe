"""streams, a study of genbench's own: numbers that violate a claim do not replicate it; each row trains a few steps."""

import random

import pytest

from tests.helpers.experiments import rows, trained

STOPPED, CONTINUED = "test/trajectory/stopped_", "test/trajectory/continued_"
BACK, TEST = "test/robustness/drift_shear_0", "test/performance/accuracy"
DRIFT = {  # stopped on start and end; at the end: on the end, and back on the start
    ("cnn", 0.75, 3.0): (0.85, 0.53, 0.92, 0.945),
    ("cnn", 0.75, 0.75): (0.85, 0.53, 0.65, 0.956),
    ("cnn", 3.0, 3.0): (0.70, 0.65, 0.905, 0.925),
    ("mlp", 0.75, 3.0): (0.66, 0.55, 0.78, 0.80),
    ("mlp", 0.75, 0.75): (0.66, 0.55, 0.69, 0.80),
    ("mlp", 3.0, 3.0): (0.64, 0.62, 0.775, 0.79),
}


def numbers(run, *, row=None, part=0, value=None, cnn=0.60, fresh=0.65, mlp=0.447):
    """The numbers of a run if every claim held. ``value``: of a ``part`` of a ``row`` of DRIFT. ``cnn``, ``mlp``: the
    accuracy after a warm start; ``fresh``: of the CNN of 4,000 steps."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    if run["data"] == "mnist1d_frozen":
        warm, model = run["regularization"] == "warm_start", run["model"]
        found = {"cnn": cnn if warm else 0.65, "mlp": mlp if warm else 0.447}[model]
        if model == "cnn" and not warm and run["trainer.max_steps"] == 4000:
            found = fresh
        return {TEST: found + noise(0, 0.005)}
    place = (run["model"], run.get("data.signals.start.shear", 0.75), run.get("data.signals.end.shear", 3.0))
    found = list(DRIFT[place])
    if place == row:
        found[part] = value
    keys = (f"{STOPPED}0", f"{STOPPED}5", f"{CONTINUED}5", BACK)
    return {key: each + noise(0, 0.003) for key, each in zip(keys, found, strict=True)}


CNN, MLP = ("cnn", 0.75, 3.0), ("mlp", 0.75, 3.0)
WRONG = {
    "C1 the CNN loses little": ("C1", {"row": CNN, "part": 1, "value": 0.80}),
    "C1 the MLP loses nothing": ("C1", {"row": MLP, "part": 1, "value": 0.66}),
    "C2 it does not keep up": ("C2", {"row": CNN, "part": 2, "value": 0.80}),
    "C3 the steps do it": ("C3", {"row": ("cnn", 0.75, 0.75), "part": 2, "value": 0.9}),
    "C4 it forgets": ("C4", {"row": MLP, "part": 3, "value": 0.7}),
    "C5 a fresh one is better": ("C5", {"row": ("cnn", 3.0, 3.0), "part": 2, "value": 0.95}),
    "C6 the warm start costs nothing": ("C6", {"cnn": 0.65}),
    "C6 more steps do as much": ("C6", {"fresh": 0.6}),
    "C7 it costs the MLP too": ("C7", {"mlp": 0.38}),
}


@pytest.mark.parametrize("row", rows("streams"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.batch_size=20", "trainer.accelerator=cpu", "trainer.max_steps=20")
    if "data=mnist1d_frozen" in row:
        found = trained(tmp_path, "experiment=streams", *row, *few, "data.train_size=60", "data.test_size=50")
        assert 0 <= found[TEST] <= 1
        return
    few += ("data.train_size=100", "data.test_size=50", "callbacks.drift.every_n_epochs=2",
            "callbacks.drift.measures.drift.examples=50", "callbacks.trajectory.metrics.stopped.steps=[10,10]",
            "callbacks.trajectory.metrics.continued.steps=[10,20]")  # fmt: skip
    found = trained(tmp_path, "experiment=streams", *row, *few)
    assert found[f"{STOPPED}0"] == found[f"{CONTINUED}0"]
    assert found[f"{CONTINUED}1"] == found["test/robustness/drift_shear_1"]
