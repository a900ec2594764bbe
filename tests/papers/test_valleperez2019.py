"""The claims of valleperez2019: numbers as the paper has them replicate each; those that violate it do not."""

import random

from tests.helpers.experiments import rows, trained

ACCURACY = "test/performance/accuracy"
LEARNED, TARGET, CHANCE = (f"test/information/lempel_ziv_{name}" for name in ("complexity", "target", "chance"))
SLOPE, KEPT, DRAWN, UNIFORM = (
    f"test/information/simplicity_{name}" for name in ("slope", "bound_kept", "drawn", "uniform")
)
BOUND = "train/information/marginal_likelihood_bound"


def numbers(run, **changes):
    """The metrics of a run if every claim held."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    flips, corrupted = run["data.flips"] / 64, float(run["data.label_noise"])
    found = {
        ACCURACY: 0.95 - 0.45 * max(flips, corrupted) + noise(0, 0.02),
        TARGET: 35 + 115 * flips + noise(0, 4),
        LEARNED: 50 + 90 * flips + noise(0, 8),
        CHANCE: 140 + noise(0, 3),
        SLOPE: 0.3 + noise(0, 0.01),
        KEPT: 0.99 + noise(0, 0.003),
        DRAWN: 70 + noise(0, 1),
        UNIFORM: 149 + noise(0, 0.5),
        BOUND: 0.35 + 0.3 * corrupted + noise(0, 0.02),
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


WRONG = {
    "C1 the probability does not depend on complexity": ("C1", {SLOPE: lambda run, value, noise: noise(0, 0.01)}),
    "C1 complex functions are more probable": ("C1", {SLOPE: lambda run, value, noise: -value}),
    "C1 the other half breaks the bound": ("C1", {KEPT: lambda run, value, noise: 0.8 + noise(0, 0.01)}),
    "C2 random weights draw as uniformly": ("C2", {DRAWN: lambda run, value, noise: 149 + noise(0, 1)}),
    "C2 they draw more complex functions": ("C2", {DRAWN: lambda run, value, noise: 160 + noise(0, 1)}),
    "C3 a simple target is learned by chance": ("C3", {LEARNED: lambda run, value, noise: 140 + noise(0, 4)}),
    "C3 the learned function follows nothing": ("C3", {LEARNED: lambda run, value, noise: 60 + noise(0, 8)}),
    "C3 simple functions of complex targets": (
        "C3",
        {LEARNED: lambda run, value, noise: 130 - run["data.flips"] + noise(0, 4)},
    ),
    "C4 the error follows nothing": ("C4", {ACCURACY: lambda run, value, noise: 0.7 + noise(0, 0.02)}),
    "C4 complex targets are easier": (
        "C4",
        {ACCURACY: lambda run, value, noise: 0.5 + 0.4 * run["data.flips"] / 64 + noise(0, 0.02)},
    ),
    "C5 the bound follows nothing": ("C5", {BOUND: lambda run, value, noise: 0.5 + noise(0, 0.05)}),
    "C5 the bound falls": (
        "C5",
        {BOUND: lambda run, value, noise: 0.9 - 0.3 * run["data.label_noise"] + noise(0, 0.05)},
    ),
    "C5 the bound lies below the error": ("C5", {BOUND: lambda run, value, noise: value - 0.4}),
}


def test_every_row_trains_and_measures_what_its_claims_need(tmp_path):
    needed = {ACCURACY, LEARNED, TARGET, CHANCE}
    for overrides in rows("valleperez2019"):
        few = [f.replace("200000", "6000") for f in overrides]
        found = trained(tmp_path, "experiment=valleperez2019", *few, "seed=1000")
        drawn = {SLOPE, KEPT, DRAWN, UNIFORM} if any("samples" in f for f in few) else set()
        assert all(found[key] is not None for key in needed | drawn), found
        assert found[BOUND] is not None or found["train/performance/accuracy"] < 1
