"""The claims of blier2018: numbers as the paper has them replicate each; those that violate it do not."""

import random

from tests.helpers.experiments import rows, trained

ERROR, FITTED = "test/performance/error", "train/performance/accuracy"
BITS, RATIO, PER_LABEL = (f"train/information/prequential_{name}" for name in ("bits", "ratio", "bits_per_label"))
NOISY, ZERO = "train/information/variational_bits", "train/information/variational_zero_bits"
UNIFORM = 6643.856  # 2,000 log₂ 10
LENGTH = {"cnn": 2.3, "mlp": 2.45, "linear": 2.8}
WRONG_ANSWERS = {"cnn": 0.28, "mlp": 0.47, "linear": 0.69}


def shuffled(run):
    return run["data.inputs"] == "shuffled_pixels"


def of_chance(run):
    return float(run["data.label_noise"]) == 1


def numbers(run, *, length=None, **changes):
    """The metrics of a run if every claim held."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    model = run["model"]
    bits = 3.325 if of_chance(run) else LENGTH[model] + 0.12 * (shuffled(run) and model == "cnn") + noise(0, 0.01)
    bits = bits if length is None else length(run, bits, noise)
    found = {
        ERROR: (0.9 if of_chance(run) else WRONG_ANSWERS[model]) + noise(0, 0.01),
        FITTED: 0.98 + noise(0, 0.005),
        PER_LABEL: bits,
        BITS: 2000 * bits,
        RATIO: 2000 * bits / UNIFORM,
        NOISY: 2000 * (bits if of_chance(run) else 1.2 * bits) + noise(0, 10) + 30,
        ZERO: 2000 * (bits if of_chance(run) else 1.5 * bits) + noise(0, 10) + 30,
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def backwards(run, bits, noise):
    """Networks with fewer errors have the longer code."""
    return bits if of_chance(run) else 5 - LENGTH[run["model"]] + noise(0, 0.01)


def of_the_cnn(change):
    return lambda run, value, noise: change(value) if run["model"] == "cnn" else value


def of_random_labels(change):
    return lambda run, value, noise: change(value) if of_chance(run) else value


WRONG = {
    "C1 true labels take more bits than random ones": (
        "C1",
        {"length": lambda run, bits, noise: bits + 1.5 * (bits < 3)},
    ),
    "C1 those of the CNN take as many": (
        "C1",
        {RATIO: lambda run, value, noise: 1 + noise(0, 0.01) if run["model"] == "cnn" else value},
    ),
    "C2 the order is reversed": ("C2", {"length": backwards}),
    "C2 all take the same": ("C2", {"length": lambda run, bits, noise: 2.5 + noise(0, 0.01)}),
    "C2 errors are in another order": (
        "C2",
        {ERROR: lambda run, value, noise: 1 - WRONG_ANSWERS[run["model"]] + noise(0, 0.01)},
    ),
    "C3 variational codes are a little longer": ("C3", {ZERO: lambda run, value, noise: 0.8 * value}),
    "C3 that of the CNN is as short": ("C3", {ZERO: of_the_cnn(lambda value: value / 1.5)}),
    "C4 shuffling changes nothing": (
        "C4",
        {"length": lambda run, bits, noise: LENGTH[run["model"]] + noise(0, 0.005)},
    ),
    "C5 random labels are not fitted": ("C5", {FITTED: lambda run, value, noise: value - 0.3}),
    "C6 random labels are compressed": ("C6", {BITS: of_random_labels(lambda value: 6600)}),
    "C6 noisy weights compress them": ("C6", {NOISY: of_random_labels(lambda value: 6600)}),
    "C7 a prior at the initial weights makes the code as short": (
        "C7",
        {NOISY: lambda run, value, noise: value / 1.25},
    ),
    "C7 that of the CNN is shorter": ("C7", {NOISY: of_the_cnn(lambda value: value / 1.3)}),
}


def test_every_row_trains_and_measures_what_its_claims_need(tmp_path):
    few = ["trainer.max_steps=5", "data.test_size=100", "data.train_size=200"]
    few.append("callbacks.codes.measures.prequential_code.steps=5")
    for overrides in rows("blier2018"):
        plain = "callbacks.noisy=null" in overrides
        noisy = [f"callbacks.noisy.measures.variational_{name}.steps=16" for name in ("code", "zero")] * (not plain)
        found = trained(tmp_path, "experiment=blier2018", *overrides, *few, *noisy, "seed=1000")
        needed = {ERROR, FITTED, BITS, RATIO, PER_LABEL, "train/information/two_part_bits"}
        assert all(found[key] is not None for key in needed | ({NOISY, ZERO} if not plain else set()))
