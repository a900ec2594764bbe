"""The claims of zhang2017: numbers as the paper has them replicate each, and numbers that violate it do not."""

import random

import pytest

from tests.helpers.claimed import judged

STEPS = {"original": 300, "shuffled_pixels": 350, "random_pixels": 400, "gaussian": 420}


def numbers(run, **changes):
    """The metrics of a run if every claim held, but for seeds that differ a little."""
    noise = random.Random(repr(sorted(run.items()))).gauss
    wrong, inputs = run["data.label_noise"], run["data.inputs"]
    accuracy = 0.1 + 0.6 * (1 - wrong) + (0.08 if run["regularization"] != "none" else 0)
    steps = STEPS[inputs] * (1 + 0.8 * wrong)
    found = {
        "train/performance/accuracy": 1 - 0.002 * noise(1, 0.2),
        "test/performance/accuracy": accuracy + noise(0, 0.008),
        "train/trajectory/steps_to_fit": steps * (1 + noise(0, 0.02)),
        "test/interpolation/gaussian_accuracy": 0.4 + noise(0, 0.01),
        "test/interpolation/convolution_accuracy": 0.55 + noise(0, 0.01),
        "test/interpolation/gaussian_norm": 35 + noise(0, 1),
        "test/interpolation/convolution_norm": 87 + noise(0, 2),
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


TRAIN, TEST, FIT = "train/performance/accuracy", "test/performance/accuracy", "train/trajectory/steps_to_fit"
GAUSSIAN, CONVOLUTION = "test/interpolation/gaussian_accuracy", "test/interpolation/convolution_accuracy"


def random_labels(run):
    return run["data.label_noise"] == 1


WRONG = {
    "C1 not fitted": ("C1", {TRAIN: lambda run, value, _: 0.95 if random_labels(run) else value}),
    "C1 above chance": ("C1", {TEST: lambda run, value, noise: 0.2 + noise(0, 0.01) if random_labels(run) else value}),
    "C2 no order": ("C2", {FIT: lambda run, value, noise: 300 * (1 + noise(0, 0.02))}),
    "C2 true labels slower": ("C2", {FIT: lambda run, value, noise: (900 - STEPS[run["data.inputs"]]) / (1 + run["data.label_noise"]) * (1 + noise(0, 0.02))}),
    "C3 flat": ("C3", {TEST: lambda run, value, noise: 0.5 + noise(0, 0.01)}),
    "C3 rising": ("C3", {TEST: lambda run, value, noise: 0.1 + 0.5 * run["data.label_noise"] + noise(0, 0.01)}),
    "C3 one run not fitted": ("C3", {TRAIN: lambda run, value, _: 0.98 if (run["seed"], run["data.label_noise"]) == (3, 0.6) else value}),
    "C4 needs regularizers": ("C4", {TEST: lambda run, value, noise: (0.7 if run["regularization"] != "none" else 0.4) + noise(0, 0.01)}),
    "C5 at chance": ("C5", {GAUSSIAN: lambda run, value, noise: 0.1 + noise(0, 0.01)}),
    "C5 same error": ("C5", {CONVOLUTION: lambda run, value, noise: 0.4 + noise(0, 0.01)}),
    "C5 same norm": ("C5", {"test/interpolation/convolution_norm": lambda run, value, noise: 35 + noise(0, 1)}),
    "C6 twenty times": ("C6", {FIT: lambda run, value, noise: 6000 * (1 + noise(0, 0.02)) if random_labels(run) else value}),
}  # fmt: skip


def test_numbers_like_the_papers_replicate_every_claim():
    found = judged("zhang2017", numbers)
    assert {name: verdict.status for name, verdict in found.items()} == dict.fromkeys(
        ["C1", "C2", "C3", "C4", "C5", "C6"], "replicated"
    ), [verdict.words for verdict in found.values()]


@pytest.mark.parametrize(("claim", "changes"), WRONG.values(), ids=list(WRONG))
def test_numbers_that_violate_a_claim_do_not_replicate_it(claim, changes):
    verdict = judged("zhang2017", lambda run: numbers(run, **changes))[claim]
    assert verdict.status == "not replicated", verdict.words


def test_four_seeds_decide_nothing():
    assert {verdict.status for verdict in judged("zhang2017", numbers, seeds=4).values()} == {"undecided"}
