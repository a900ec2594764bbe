"""sgd, a study of genbench's own: numbers that violate a claim do not replicate it; a few steps of each row train."""

import random

import pytest

from tests.helpers.experiments import rows, trained

LR, BATCH, MOMENTUM, NOISE = "optimizer.lr", "data.batch_size", "optimizer.momentum", "data.label_noise"
ACCURACY, SHARPNESS = "test/performance/accuracy", "train/flatness/lambda_1"
GAIN = {0.0031: 0.06, 0.0125: 0.12}  # of a noise scale


def kind(run):
    """The kind of a run: that of its grid, and of plain runs whether they are of gradient descent."""
    if run["model"] == "mlp":
        return "mlp"
    if run["regularization"] == "gradient_norm":
        return "penalty"
    if run[MOMENTUM]:
        return "momentum"
    if run.get(NOISE):
        return "wrong labels"
    if run["trainer.max_steps"] == 6000:
        return "steps"
    return "descent" if run[BATCH] == 512 else "batches"


def numbers(run, *, of=None, points=0.0, batches_only=False, sharper=1.0):
    """The numbers of a run if every claim held. ``of``: the kind of the runs that ``points`` are added to, or kind,
    batch size and rate; ``batches_only``: not to those of gradient descent; ``sharper``: multiplies the sharpness of
    small batches."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    own = kind(run)
    rate = run[LR] * (10 if own == "momentum" else 1)
    batches = 32 if own == "penalty" else run[BATCH]
    gain = 0 if batches == 512 else GAIN.get(round(rate / batches, 4), 0.01)
    found = 0.45 + (gain / 4 if own == "mlp" else gain) + (0.08 if rate == 0.4 and batches == 512 else 0)
    if of in (own, (own, run[BATCH], run[LR])) and not (batches_only and batches == 512):
        found += points
    sharpness = (sharper if batches == 8 else 1) * 0.2 / rate
    return {ACCURACY: found + noise(0, 0.004), SHARPNESS: sharpness * (1 + abs(noise(0, 0.05)))}


WRONG = {
    "C1 gradient descent is as good": ("C1", {"of": ("batches", 8, 0.1), "points": -0.12}),
    "C1 with wrong labels it is as good": ("C1", {"of": "wrong labels", "points": -0.09, "batches_only": True}),
    "C2 the rate does nothing": ("C2", {"of": ("descent", 512, 0.4), "points": -0.08}),
    "C3 a lower rate is better": ("C3", {"of": ("batches", 8, 0.025), "points": 0.05}),
    "C3 a higher rate is better": ("C3", {"of": ("batches", 128, 0.4), "points": 0.05}),
    "C3 a higher rate is worse at the larger scale": ("C3", {"of": ("batches", 32, 0.4), "points": -0.05}),
    "C4 momentum is worse": ("C4", {"of": "momentum", "points": -0.05}),
    "C5 the penalty does nothing": ("C5", {"of": "penalty", "points": -0.06}),
    "C5 the penalty does more": ("C5", {"of": "penalty", "points": 0.05}),
    "C6 they are as sharp": ("C6", {"sharper": 1 / 16}),
    "C6 the sharper one is worse": ("C6", {"of": ("batches", 8, 0.025), "points": -0.05}),
    "C7 the MLP gains as much": ("C7", {"of": "mlp", "points": 0.09, "batches_only": True}),
    "C8 more steps help": ("C8", {"of": "steps", "points": 0.05}),
    "C8 more steps harm": ("C8", {"of": "steps", "points": -0.05}),
}


@pytest.mark.parametrize("row", rows("sgd"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=64", "trainer.max_steps=6", "trainer.accelerator=cpu")
    smaller = [word.replace("batch_size=512", "batch_size=64") for word in row if not word.startswith("trainer.")]
    found = trained(tmp_path, "experiment=sgd", *smaller, *few)
    assert found["train/optimization/steps" if "callbacks.stop.train_loss=null" not in row else SHARPNESS] > 0
    assert 0 < found[ACCURACY] < 1
    assert found["train/performance/cross_entropy"] > 0.02


def test_the_penalty_is_a_quarter_of_the_rate():
    """Smith et al. 2021, arXiv:2101.12176: SGD follows the flow of the loss + η/4 · mean ‖∂ loss of a batch‖²."""
    (row,) = (row for row in rows("sgd") if "regularization=gradient_norm" in row)
    chosen = dict(word.split("=") for word in row)
    strength = float(chosen["regularization.gradient_norm.strength"])
    assert strength == float(chosen["optimizer.lr"]) / 4
