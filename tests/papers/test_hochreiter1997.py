"""The claims of hochreiter1997: numbers as the paper has them replicate each; those that violate it do not."""

import random

import pytest

from tests.helpers.experiments import rows, trained

ACCURACY, BOX = "test/performance/accuracy", "train/trajectory/matched"
ACTIVE = "train/information/active_weights"


def fms(run):
    return run["regularization"] == "flat_minimum_search"


def numbers(run, **changes):
    """The metrics of a run if every claim held: flat minimum search is best, in a larger box, with fewer weights."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    size = 52 if run["data.dimension"] == 2 else 132
    accuracy = {"none": 0.85, "l2": 0.88, "flat_minimum_search": 0.9}[run["regularization"]]
    found = {
        ACCURACY: accuracy + noise(0, 0.004),
        BOX: (0 if fms(run) else -size) + noise(0, 5),
        ACTIVE: size * (0.2 if fms(run) else 0.8) + noise(0, 2),
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def flat(value, spread):
    """The same number for every method."""
    return lambda run, usual, noise: value + noise(0, spread)


def where(dimension, change):
    """A change of the runs with so many inputs alone."""
    return lambda run, usual, noise: change(run, usual, noise) if run["data.dimension"] == dimension else usual


def decay_is(value):
    return lambda run, usual, noise: value + noise(0, 0.004) if run["regularization"] == "l2" else usual


def swapped(high, low, spread):
    """Flat minimum search has the number that the others should have."""
    return lambda run, usual, noise: (high if fms(run) else low) + noise(0, spread)


WRONG = {
    "C1 no effect": ("C1", {ACCURACY: flat(0.88, 0.003)}),
    "C1 the opposite": ("C1", {ACCURACY: swapped(0.85, 0.9, 0.004)}),
    "C1 no effect with ten inputs": ("C1", {ACCURACY: where(10, flat(0.88, 0.003))}),
    "C2 weight decay is as good": ("C2", {ACCURACY: decay_is(0.9)}),
    "C2 weight decay is better": ("C2", {ACCURACY: decay_is(0.92)}),
    "C2 weight decay is as good with two inputs": ("C2", {ACCURACY: where(2, decay_is(0.9))}),
    "C3 no effect": ("C3", {BOX: flat(-50, 4)}),
    "C3 the opposite": ("C3", {BOX: swapped(-90, -50, 5)}),
    "C3 no effect with two inputs": ("C3", {BOX: where(2, flat(-50, 4))}),
    "C4 no effect": ("C4", {ACTIVE: flat(40, 1.5)}),
    "C4 the opposite": ("C4", {ACTIVE: swapped(50, 30, 2)}),
    "C4 no effect with ten inputs": ("C4", {ACTIVE: where(10, flat(40, 1.5))}),
}


@pytest.mark.parametrize("row", rows("hochreiter1997"), ids=str)
def test_every_method_trains_and_is_measured(row, tmp_path):
    found = trained(
        tmp_path, "experiment=hochreiter1997", *row, "trainer.max_steps=60", "data.test_size=500", "data.dimension=2"
    )
    assert found[ACCURACY] > 0.7
    assert found[BOX] is not None
    assert 1 <= found[ACTIVE] <= 52
    assert found["test/performance/bayes_error"] == pytest.approx(0.0927, abs=5e-5)
