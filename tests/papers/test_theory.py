"""The claims of theory: numbers as the papers have them replicate each; those that violate it do not."""

import math
import random

import pytest

from tests.helpers.experiments import rows, trained

SIGNS, VC, NORMS, SPECTRAL, TERM, INIT, GROWTH, SHARPNESS = (
    f"train/bound/{name}"
    for name in (
        "sign_correlation",
        "vc_bound",
        "rademacher_bound",
        "spectral_margin_bound",
        "spectral_term",
        "spectral_init_margin_bound",
        "spectral_init_over_margin",
        "pac_bayes_bound",
    )
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
    growth = (n / 500) ** 0.3 * (1 + noise(0, 0.01))
    found = {ERROR: error * (1 + noise(0, 0.01)), LOW: 0.97 * error}
    if run["regularization"] == "random_subspace":
        d = run[DIMENSION]
        worse = {"cnn": -0.1, "mlp": 0.0}[run["model"]] + (0.2 if run["data.inputs"] != "original" else 0)
        bound = 0.4 + 0.1 * abs(d / 200 - 1) + worse + noise(0, 0.005)
        found |= {
            COMPRESSION: 0.96 if rand else bound,
            QUANTIZED: error if rand else bound - 0.25 + noise(0, 0.005),
            f"{COMPRESSION.removesuffix('bound')}error_low": 0.85 if rand else bound - 0.3,
        }
    elif run["optimizer"] == "sgd":
        found |= {GROWTH: 1000 * growth, INIT: 1e6}
    else:
        bits = 3.32 * n
        found |= {
            SIGNS: 0.99 if rand else 1.0,
            VC: 1.2,
            NORMS: 170.0,
            SPECTRAL: 1e5,
            TERM: (10 if rand else 1) * 1e5 * growth,
            INIT: 1e4,
            GROWTH: 50 * growth,
            SHARPNESS: 1.0 if rand else 0.84 + noise(0, 0.005),
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


def falling(optimizer, power):
    """As n^-power in the networks of an optimizer."""
    return lambda run, found, noise: (
        run["data.train_size"] ** -power * (1 + noise(0, 0.01)) if run["optimizer"] == optimizer else found
    )


def rising_error(optimizer):
    return lambda run, found, noise: (
        run["data.train_size"] / 5000 + noise(0, 0.001) if run["optimizer"] == optimizer else found
    )


WRONG = {
    "random signs are not fitted": ("Z", {SIGNS: only(1, 0.8)}),
    "the bound by norms says something": ("norms", {NORMS: only(0, 0.6)}),
    "the spectral bound says something": ("norms", {SPECTRAL: only(0, 0.6)}),
    "the spectral bound from the start says something": ("norms", {INIT: only(0, 0.6)}),
    "random labels need no larger norms": ("B", {TERM: lambda run, found, noise: 1e5 * (1 + noise(0, 0.01))}),
    "the bound is vacuous": ("DR1", {OPTIMIZED: only(0, 0.95)}),
    "the square root is below one": ("DR2", {PINSKER: only(1, 0.95)}),
    "KL is four times as large": ("DR3", {KL: only(1, 14_000)}),
    "KL is as large": ("DR3", {KL: set_to(3600)}),
    "means do not help": ("DR4", {OPTIMIZED: lambda run, found, noise: 0.8 + noise(0, 0.005)}),
    "the sharpness does as well": ("DR4", {SHARPNESS: only(0, 0.6)}),
    "the VC bound says something": ("VC", {VC: set_to(0.5)}),
    "a bound lies below the error": ("valid", {f"{OPTIMIZED}_error_low": only(0, 0.7)}),
    "a margin bound lies below the error": ("valid", {SPECTRAL: only(0, 0.0)}),
    "a margin bound of random labels lies below 90 %": ("valid", {INIT: only(1, 0.8)}),
    "a compression bound lies below the error": ("valid", {COMPRESSION: only(0, 0.01)}),
    "a bound of random labels lies below 90 %": ("valid", {SHARPNESS: only(1, 0.8)}),
    "a compression bound of random labels lies below 90 %": ("valid", {COMPRESSION: only(1, 0.85)}),
    "deep: it falls": ("NK", {GROWTH: falling("sgd", 0.3)}),
    "deep: it stays": ("NK", {GROWTH: falling("sgd", 0.0)}),
    "deep: the error rises": ("NK", {ERROR: rising_error("sgd")}),
    "one layer: it falls": ("NK-1", {GROWTH: falling("adam", 0.3)}),
    "one layer: it stays": ("NK-1", {GROWTH: falling("adam", 0.0)}),
    "one layer: the error rises": ("NK-1", {ERROR: rising_error("adam")}),
    "the MLP is best": ("L1", {COMPRESSION: lambda run, found, noise: found - 0.3 * (run["model"] == "mlp")}),
    "shuffling changes nothing": ("L1", {COMPRESSION: lambda run, found, noise: 0.4 + noise(0, 0.005)}),
    "the bound falls along the dimension": (
        "L2",
        {COMPRESSION: lambda run, found, noise: 1 - run[DIMENSION] / 1000 + noise(0, 0.005)},
    ),
    "the bound is flat": ("L2", {COMPRESSION: lambda run, found, noise: 0.4 + noise(0, 0.005)}),
    "the MLP errs least": ("L4", {QUANTIZED: lambda run, found, noise: found - 0.3 * (run["model"] == "mlp")}),
    "true labels are not compressed": (
        "code",
        {PREQUENTIAL: lambda run, found, noise: 3.33 * run["data.train_size"] + noise(0, 10)},
    ),
    "a code beats Shannon": ("Shannon", {PREQUENTIAL: only(1, 100)}),
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
    # a bound by margins needs nearly all examples to have one, and five narrow layers give them none
    few_steps = {"trainer.max_steps": 1500} if "optimizer=sgd" in row else {"trainer.max_steps": 300, "model.width": 20}
    settings = [f"{key}={value}" for key, value in (chosen | few_steps).items()]
    found = trained(
        tmp_path, "experiment=theory", *settings, *short, "data.train_size=100", "data.test_size=100",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    if "regularization=random_subspace" in row:
        needed = {COMPRESSION, QUANTIZED}
    elif "optimizer=sgd" in row:
        needed = {GROWTH, INIT, "train/bound/spectral_init_complexity", "train/optimization/steps"}
    else:
        needed = {SIGNS, VC, NORMS, SPECTRAL, TERM, INIT, GROWTH, PREQUENTIAL, TWO_PARTS, MIXTURE}
        needed |= {SHARPNESS} if chosen.get("callbacks.sharpness") != "null" else set()
    assert {name for name in needed if found[name] is None} == set()
    assert math.isfinite(found[ERROR])
