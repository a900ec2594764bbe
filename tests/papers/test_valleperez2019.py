"""The claims of valleperez2019: numbers as the paper has them replicate each; those that violate it do not."""

import random

from tests.helpers.experiments import node, rows, trained

ERROR = "test/performance/error"
LEARNED, TARGET, CHANCE = (f"test/information/lempel_ziv_{name}" for name in ("complexity", "target", "chance"))
SLOPE, BEYOND, DRAWN, PERMUTED, UNIFORM = (
    f"test/information/simplicity_{name}" for name in ("slope", "bound_beyond", "drawn", "permuted", "uniform")
)
BOUND = "train/information/marginal_likelihood_bound"
SETS = node("valleperez2019")["claims"]["sets"]
MAJORITY, PARITY = SETS["majority"]["data.function"], SETS["parity"]["data.function"]


def is_parity(run):
    return run["data.function"] == PARITY


def numbers(run, **changes):
    """The metrics of a run if every claim held."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    corrupted, bits = float(run["data.label_noise"]), run["data.relevant"]
    complexity = 35 if run["data.function"] == MAJORITY else 91 if is_parity(run) else 20 * bits
    found = {
        ERROR: 0.65 if is_parity(run) else 0.03 + 0.5 * (corrupted if bits is None else (bits - 1) / 6),
        TARGET: complexity,
        LEARNED: 10 + complexity * 0.9,
        CHANCE: 135 + complexity / 10,
        SLOPE: 0.4 + noise(0, 0.01),
        BEYOND: 0.97 + noise(0, 0.01),
        DRAWN: 60 + noise(0, 1),
        PERMUTED: 90 + noise(0, 1),
        UNIFORM: 149 + noise(0, 0.5),
        BOUND: 0.37 + 0.3 * corrupted,
    }
    spread = {ERROR: 0.01, TARGET: 1, LEARNED: 3, CHANCE: 1, BOUND: 0.01}
    found |= {key: found[key] + noise(0, size) for key, size in spread.items()}
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


WRONG = {
    "C1 the probability does not depend on complexity": ("C1", {SLOPE: lambda run, value, noise: noise(0, 0.01)}),
    "C1 complex functions are more probable": ("C1", {SLOPE: lambda run, value, noise: -value}),
    "C1 the other half breaks the bound": ("C1", {BEYOND: lambda run, value, noise: 0.7 + noise(0, 0.01)}),
    "C2 random weights draw as uniformly": ("C2", {DRAWN: lambda run, value, noise: 149 + noise(0, 1)}),
    "C2 they draw functions of few ones, no simpler than others of them": (
        "C2",
        {PERMUTED: lambda run, value, noise: 60 + noise(0, 1)},
    ),
    "C3 a simple target is learned by chance": (
        "C3",
        {LEARNED: lambda run, value, noise: 138 + noise(0, 1) if run["data.function"] == MAJORITY else value},
    ),
    "C3 the learned function follows nothing": ("C3", {LEARNED: lambda run, value, noise: 60 + noise(0, 8)}),
    "C3 networks learn the train labels by heart": (
        "C3",
        {
            LEARNED: lambda run, value, noise: (
                value if run["data.relevant"] is None else 135 + 2 * run["data.relevant"] + noise(0, 0.5)
            )
        },
    ),
    "C4 the error follows nothing": ("C4", {ERROR: lambda run, value, noise: 0.3 + noise(0, 0.02)}),
    "C4 complex targets are easier": (
        "C4",
        {ERROR: lambda run, value, noise: 0.6 - value if run["data.relevant"] else value},
    ),
    "C5 the bound follows nothing": ("C5", {BOUND: lambda run, value, noise: 0.5 + noise(0, 0.05)}),
    "C5 the bound falls": (
        "C5",
        {BOUND: lambda run, value, noise: 0.9 - 0.3 * run["data.label_noise"] + noise(0, 0.05)},
    ),
    "C5 the bound lies below the error": ("C5", {BOUND: lambda run, value, noise: value - 0.5}),
    "C6 the parity is the more complex": (
        "C6",
        {TARGET: lambda run, value, noise: value + 40 if is_parity(run) else value},
    ),
    "C6 the parity is learned": ("C6", {ERROR: lambda run, value, noise: 0.1 if is_parity(run) else value}),
}


def test_every_row_trains_and_measures_what_its_claims_need(tmp_path):
    needed = {ERROR, LEARNED, TARGET, CHANCE}
    for overrides in rows("valleperez2019"):
        few = [f.replace("1000000", "100000") for f in overrides]
        found = trained(tmp_path, "experiment=valleperez2019", *few, "seed=1000")
        drawn = {SLOPE, BEYOND, DRAWN, PERMUTED, UNIFORM} if any("samples" in f for f in few) else set()
        assert all(found[key] is not None for key in needed | drawn), found
        assert found[BOUND] is not None or found["train/performance/accuracy"] < 1
