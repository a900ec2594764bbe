"""greydanus2020: numbers that violate a claim do not replicate it; five steps of each row train."""

import random

import pytest

from tests.helpers.experiments import judged, rows, trained

ACCURACY, LOSS, LEAST = "test/performance/accuracy", "test/performance/cross_entropy", "test/trajectory/least_loss"
README = {"original": (0.32, 0.68, 0.94, 0.91), "shuffled_pixels": (0.32, 0.68, 0.56, 0.57)}
NOTEBOOK = {"original": (0.315, 0.651, 0.923, 0.891), "shuffled_pixels": (0.315, 0.66, 0.587, 0.533)}
MODELS = ("linear", "mlp", "cnn", "gru")


def numbers(run, *, of="", moved=0.0, table=None, loss=3.0):
    """The numbers of a run if every claim held: half way between the two published tables, or those of ``table``.
    ``moved``: added to the accuracy of the model and inputs that ``of`` names. ``loss``: of the MLP at the end."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    model, inputs = run["model"], run["data.inputs"]
    place = MODELS.index(model)
    found = [published[inputs][place] for published in ((README, NOTEBOOK) if table is None else (table,))]
    accuracy = sum(found) / len(found) + (moved if of == f"{model} {inputs}" else 0) + noise(0, 0.002)
    return {ACCURACY: accuracy, LOSS: (loss if model == "mlp" else 0.5) + noise(0, 0.05), LEAST: 0.3}


WRONG = {
    "C1 the MLP is no better than logistic regression": ("C1", {"of": "mlp original", "moved": -0.35}),
    "C1 the GRU is no better than the MLP": ("C1", {"of": "gru original", "moved": -0.25}),
    "C2 the GRU is better": ("C2", {"of": "gru original", "moved": 0.1}),
    "C3 the CNN falls less": ("C3", {"of": "cnn shuffled_pixels", "moved": 0.25}),
    "C3 the GRU falls less": ("C3", {"of": "gru shuffled_pixels", "moved": 0.25}),
    "C4 the MLP falls": ("C4", {"of": "mlp shuffled_pixels", "moved": -0.06}),
    "C4 logistic regression rises": ("C4", {"of": "linear shuffled_pixels", "moved": 0.06}),
    "C5 the CNN stays ahead": ("C5", {"of": "cnn shuffled_pixels", "moved": 0.2}),
    "C6a one number is 5 points off": ("C6a", {"of": "gru shuffled_pixels", "moved": -0.07}),
    "C6b one number is 5 points off": ("C6b", {"of": "cnn original", "moved": 0.06}),
    "C7 the loss stays": ("C7", {"loss": 0.4}),
}


def test_the_two_published_tables_differ_by_more_than_the_margin():
    assert judged("greydanus2020", lambda run: numbers(run, table=README))["C6b"].status == "not replicated"
    assert judged("greydanus2020", lambda run: numbers(run, table=NOTEBOOK))["C6a"].status == "not replicated"


@pytest.mark.parametrize("row", rows("greydanus2020"), ids=str)
def test_five_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=100", "data.batch_size=10", "trainer.max_steps=5", "trainer.accelerator=cpu")
    found = trained(tmp_path, "experiment=greydanus2020", *row, *few)
    assert 0 < found[ACCURACY] < 1
    assert found[LEAST] <= found[LOSS]
    parameters = {"linear": 410, "mlp": 15210, "cnn": 5210, "gru": 5134}
    assert found["weights/norm/params"] == next(n for model, n in parameters.items() if f"model={model}" in row)
