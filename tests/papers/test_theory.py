"""The claims of theory: numbers as the papers have them replicate each; those that violate it do not."""

import random

import pytest

from tests.helpers.experiments import rows, trained

VC, RADEMACHER, SPECTRAL, SIGMA = (
    f"train/bound/{name}" for name in ("vc_bound", "rademacher_bound", "spectral_margin_bound", "pac_bayes_bound")
)
OPTIMIZED, VARIANCE, COMPRESSION = (
    f"test/bound/{name}" for name in ("pac_bayes_optimized", "pac_bayes_variance", "compression_bound")
)
KL, PINSKER, QUANTIZED = f"{OPTIMIZED}_kl", f"{OPTIMIZED}_pinsker", "test/bound/compression_error"
ERROR, LOW = "test/performance/error", "test/performance/error_low"
PREQUENTIAL, TWO_PARTS, MIXTURE, UNIFORM, EXCESS = (
    f"train/information/{name}"
    for name in ("prequential_bits", "two_part_bits", "mixture_bits", "mixture_bits_uniform", "mixture_excess")
)
DIMENSION = "regularization.random_subspace.dimension"


def numbers(run, **changes):
    """The metrics of a run if every claim held."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    rand, n = run["data.label_noise"] == 1, run["data.train_size"]
    error = 0.9 if rand else 0.02 * (500 / n) ** 0.5
    found = {ERROR: error * (1 + noise(0, 0.01)), LOW: 0.97 * error}
    if run["regularization"] == "random_subspace":
        d = run[DIMENSION]
        worse = {"cnn": -0.1, "mlp": 0.0}[run["model"]] + (0.2 if run["data.inputs"] != "original" else 0)
        bound = 0.4 + 0.1 * abs(d / 200 - 1) + worse + noise(0, 0.005)
        found |= {
            COMPRESSION: 1.0 if rand else bound,
            QUANTIZED: error if rand else bound - 0.25 + noise(0, 0.005),
            f"{COMPRESSION.removesuffix('bound')}error_low": 0.85 if rand else bound - 0.3,
        }
    else:
        bits = 3.32 * n
        found |= {
            VC: 1.2,
            RADEMACHER: 170.0,
            SPECTRAL: (10 if rand else 1) * 1e5 * (n / 500) ** 0.5 * (1 + noise(0, 0.01)),
            SIGMA: 1.0 if rand else 0.84 + noise(0, 0.005),
            OPTIMIZED: 1.0 if rand else 0.65 + noise(0, 0.005),
            VARIANCE: 1.0 if rand else 0.77 + noise(0, 0.005),
            PINSKER: 2.7 if rand else 0.7,
            KL: (70_000 if rand else 3600) * (1 + noise(0, 0.02)),
            f"{OPTIMIZED}_error_low": 0.88 if rand else 0.01,
            f"{VARIANCE}_error_low": 0.88 if rand else 0.02,
            UNIFORM: bits,
            PREQUENTIAL: bits + 30 if rand else 0.3 * bits + noise(0, 10),
            TWO_PARTS: 2 * bits,
            MIXTURE: bits + 10 if rand else 0.25 * bits,
            EXCESS: -1.0,
        }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items() if key in found}}


def set_to(value):
    return lambda run, found, noise: value + noise(0, 1e-4)


def only(label, value):
    """A number for the runs of one kind of labels alone."""
    return lambda run, found, noise: value + noise(0, 1e-4) if run["data.label_noise"] == label else found


WRONG = {
    "VC says something": ("VC", {VC: set_to(0.5)}),
    "Rademacher says something": ("VC", {RADEMACHER: only(0, 0.6)}),
    "the bound is vacuous": ("DR1", {OPTIMIZED: only(0, 0.95)}),
    "the bound of random labels is below 99 %": ("DR2", {OPTIMIZED: only(1, 0.92)}),
    "the square root is below one": ("DR2", {PINSKER: only(1, 0.95)}),
    "KL is four times as large": ("DR3", {KL: only(1, 14_000)}),
    "KL is as large": ("DR3", {KL: set_to(3600)}),
    "means do not help": ("DR4", {OPTIMIZED: lambda run, found, noise: 0.78 + noise(0, 0.005)}),
    "the sharpness does as well": ("DR4", {SIGMA: only(0, 0.6)}),
    "a bound lies below the error": ("valid", {f"{OPTIMIZED}_error_low": only(0, 0.7)}),
    "a margin bound lies below the error": ("valid", {SPECTRAL: only(0, 0.0)}),
    "a compression bound lies below the error": ("valid", {COMPRESSION: only(0, 0.01)}),
    "a bound of random labels lies below 90 %": ("valid", {SIGMA: only(1, 0.8)}),
    "a compression bound of random labels lies below 90 %": ("valid", {COMPRESSION: only(1, 0.85)}),
    "the margin bound falls": (
        "NK",
        {SPECTRAL: lambda run, found, noise: 1e8 / run["data.train_size"] * (1 + noise(0, 0.01))},
    ),
    "the margin bound stays": ("NK", {SPECTRAL: lambda run, found, noise: 1e5 * (1 + noise(0, 0.01))}),
    "the error rises": ("NK", {ERROR: lambda run, found, noise: run["data.train_size"] / 5000 + noise(0, 0.001)}),
    "the MLP is best": ("L1", {COMPRESSION: lambda run, found, noise: found - 0.3 * (run["model"] == "mlp")}),
    "shuffling changes nothing": ("L1", {COMPRESSION: lambda run, found, noise: 0.4 + noise(0, 0.005)}),
    "random labels are certified": ("L1", {COMPRESSION: only(1, 0.95)}),
    "the bound falls along the dimension": (
        "L2",
        {COMPRESSION: lambda run, found, noise: 1 - run[DIMENSION] / 1000 + noise(0, 0.005)},
    ),
    "the bound is flat": ("L2", {COMPRESSION: lambda run, found, noise: 0.4 + noise(0, 0.005)}),
    "the MLP errs least": ("L4", {QUANTIZED: lambda run, found, noise: found - 0.3 * (run["model"] == "mlp")}),
    "a code beats Shannon": ("code", {PREQUENTIAL: only(1, 100)}),
    "true labels are not compressed": (
        "code",
        {PREQUENTIAL: lambda run, found, noise: 3.33 * run["data.train_size"] + noise(0, 10)},
    ),
    "the mixture is longer": ("mixture", {EXCESS: set_to(1.0)}),
}


@pytest.mark.parametrize("row", rows("theory"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    """It has the numbers that its claims and columns read."""
    chosen = {key: value for key, value in (word.split("=", 1) for word in row) if key != "data.train_size"}
    few = {"posterior": {"pac_bayes_optimized": 16, "pac_bayes_variance": 16}, "codes": {"prequential_code": 2}}
    short = [
        f"++callbacks.{callback}.measures.{name}.steps={steps}"
        for callback, measures in few.items()
        for name, steps in measures.items()
        if chosen.get(f"callbacks.{callback}") != "null"
    ]
    settings = [f"{key}={value}" for key, value in (chosen | {"trainer.max_steps": "300"}).items()]
    found = trained(
        tmp_path, "experiment=theory", *settings, *short, "model.width=20", "data.train_size=100",
        "data.test_size=100", "trainer.accelerator=cpu",
    )  # fmt: skip
    subspace = "regularization=random_subspace" in row
    needed = (
        {COMPRESSION, QUANTIZED} if subspace else {VC, RADEMACHER, SPECTRAL, SIGMA, PREQUENTIAL, TWO_PARTS, MIXTURE}
    )
    assert {name for name in needed if found[name] is None} == set()
