"""The claims of blier2018: numbers as the paper has them replicate each; those that violate it do not."""

import random

from tests.helpers.experiments import rows, trained

ACCURACY = "test/performance/accuracy"
BITS, RATIO, PER_LABEL = (f"train/information/prequential_{name}" for name in ("bits", "ratio", "bits_per_label"))
UNIFORM = 6643.856  # 2,000 log₂ 10
LENGTH = {"cnn": 2.3, "mlp": 2.45, "linear": 2.8}
RIGHT = {"cnn": 0.72, "mlp": 0.53, "linear": 0.31}


def shuffled(run):
    return run["data.inputs"] == "shuffled_pixels"


def numbers(run, *, length=None, **changes):
    """The metrics of a run if every claim held."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    model, of_chance = run["model"], float(run["data.label_noise"]) == 1
    bits = 3.325 if of_chance else LENGTH[model] + 0.12 * (shuffled(run) and model == "cnn") + noise(0, 0.01)
    bits = bits if length is None else length(run, bits, noise)
    found = {
        ACCURACY: (0.1 if of_chance else RIGHT[model]) + noise(0, 0.01),
        PER_LABEL: bits,
        BITS: 2000 * bits,
        RATIO: 2000 * bits / UNIFORM,
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def backwards(run, bits, noise):
    """Networks with fewer errors have the longer code."""
    return bits if float(run["data.label_noise"]) == 1 else 5 - LENGTH[run["model"]] + noise(0, 0.01)


WRONG = {
    "C1 true labels take more bits than the uniform code": ("C1", {"length": lambda run, bits, noise: bits + 1.5}),
    "C1 random labels are compressed": (
        "C1",
        {"length": lambda run, bits, noise: 3.3 if float(run["data.label_noise"]) == 1 else bits},
    ),
    "C2 the order is reversed": ("C2", {"length": backwards}),
    "C2 all take the same": ("C2", {"length": lambda run, bits, noise: 2.5 + noise(0, 0.01)}),
    "C2 errors are in another order": (
        "C2",
        {ACCURACY: lambda run, value, noise: 1 - RIGHT[run["model"]] + noise(0, 0.01)},
    ),
    "C4 shuffling changes nothing": (
        "C4",
        {"length": lambda run, bits, noise: LENGTH[run["model"]] + noise(0, 0.005)},
    ),
    "C4 shuffling lengthens the MLP's": (
        "C4",
        {"length": lambda run, bits, noise: bits + 0.2 * (shuffled(run) and run["model"] == "mlp")},
    ),
}


def test_every_row_trains_and_measures_what_its_claims_need(tmp_path):
    steps = "callbacks.codes.measures.prequential_code.steps=5"
    for overrides in rows("blier2018"):
        few = ["trainer.max_steps=5", "data.test_size=100", "data.train_size=200", steps]
        found = trained(tmp_path, "experiment=blier2018", *overrides, *few, "seed=1000")
        assert all(found[key] is not None for key in (ACCURACY, BITS, RATIO, PER_LABEL))
        assert found["train/information/two_part_bits"] is not None
