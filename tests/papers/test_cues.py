"""cues, a study of genbench's own: numbers that violate a claim do not replicate it; each row trains a few steps."""

import random

import pytest

from tests.helpers.experiments import rows, trained

ACCURACY, ERROR = "test/performance/accuracy", "test/performance/soft_error"
FOUND = {  # in order, blocks shuffled, points shuffled
    "mlp": (0.66, 0.655, 0.655),
    "cnn": (0.93, 0.80, 0.60),
    "gru": (0.91, 0.71, 0.57),
    "transformer": (0.87, 0.865, 0.55),
}
KINDS = ("original", "shuffled_blocks", "shuffled_pixels")


def numbers(run, *, model="", kind="", accuracy=None, cnn=0.8, mlp=0.3, wide=0.6):
    """The numbers of a run if every claim held. ``accuracy``: of ``model`` on inputs of a ``kind``. ``cnn``, ``mlp``:
    the exponents of their errors in the number of examples. ``wide``: the accuracy of the widest CNN with shuffled
    points."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    name, inputs = run["model"], run["data.inputs"]
    found = FOUND[name][KINDS.index(inputs)]
    if (name, inputs) == (model, kind):
        found = accuracy
    if (name, run["model.width"], inputs) == ("cnn", 60, "shuffled_pixels"):
        found = wide
    exponent = {"cnn": cnn, "mlp": mlp}.get(name, 0.5)
    error = (1 - FOUND[name][0]) * (run["data.train_size"] / 4000) ** -exponent
    return {ACCURACY: found + noise(0, 0.003), ERROR: error * (1 + noise(0, 0.01))}


WRONG = {
    "C1 the GRU is no better": ("C1", {"model": "gru", "kind": "original", "accuracy": 0.7}),
    "C2 the CNN stays ahead": ("C2", {"model": "cnn", "kind": "shuffled_pixels", "accuracy": 0.7}),
    "C2 the transformer stays ahead": ("C2", {"model": "transformer", "kind": "shuffled_pixels", "accuracy": 0.7}),
    "C3 the MLP loses": ("C3", {"model": "mlp", "kind": "shuffled_pixels", "accuracy": 0.6}),
    "C3 the MLP loses on blocks": ("C3", {"model": "mlp", "kind": "shuffled_blocks", "accuracy": 0.6}),
    "C4 the transformer loses": ("C4", {"model": "transformer", "kind": "shuffled_blocks", "accuracy": 0.8}),
    "C4 the CNN loses nothing": ("C4", {"model": "cnn", "kind": "shuffled_blocks", "accuracy": 0.93}),
    "C5 the GRU uses nothing within": ("C5", {"model": "gru", "kind": "shuffled_blocks", "accuracy": 0.58}),
    "C6 the CNN's exponent is small": ("C6", {"cnn": 0.4}),
    "C6 the MLP's is as large": ("C6", {"mlp": 0.8}),
    "C7 a wide CNN needs no order": ("C7", {"wide": 0.93}),
}


@pytest.mark.parametrize("row", rows("cues"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = (
        "data.train_size=60",
        "data.test_size=50",
        "data.batch_size=20",
        "trainer.max_steps=4",
        "trainer.accelerator=cpu",
    )
    found = trained(tmp_path, "experiment=cues", *row, *few)
    assert 0 <= found[ACCURACY] <= 1
    assert 0 < found[ERROR] < 1
