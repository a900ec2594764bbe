"""The claims of zhang2021flat: numbers as the paper has them replicate each; those that violate it do not."""

import random

import pytest

from tests.helpers.experiments import judged

ACCURACY, PRIOR = "test/performance/accuracy", "test/information/log_prior"
SHARPNESS = "train/flatness/keskar_sharpness"
OUTPUT, FIRST, SECOND = (f"train/flatness/rescaling_{part}" for part in ("output", "first", "second"))


def sgd(run):
    return run["optimizer"] == "sgd" and run["regularization"] == "none"


def numbers(run, **changes):
    """The metrics of a run if every claim held: sharpness follows accuracy with noise under SGD, and not otherwise."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    attack = run["data.attack_size"] / 40
    found = {
        ACCURACY: 0.8 - 0.4 * attack + noise(0, 0.02),
        PRIOR: -50 - 50 * attack + noise(0, 2),
        SHARPNESS: 1 + (attack if sgd(run) else 0) + noise(0, 0.2),
        OUTPUT: 1e-15,
        FIRST: 2e-15,
        SECOND: 2e-15,
    }
    return {**found, **{key: change(run, found[key], noise) for key, change in changes.items()}}


def as_prior(run, value, noise):
    """Sharpness that follows accuracy as closely as log P(f), equally for every optimizer."""
    shared = random.Random(f"{run['seed']} {run['data.attack_size']}").gauss
    return 1 + run["data.attack_size"] / 40 + shared(0, 0.04) + noise(0, 0.001)


def reversed_(run, value, noise):
    """Sharpness that follows accuracy under other optimizers than SGD, and not under SGD."""
    return 1 + (0 if sgd(run) else run["data.attack_size"] / 40) + noise(0, 0.04)


WRONG = {
    "C1 sharpness is as good": ("C1", {SHARPNESS: as_prior}),
    "C1 log P(f) follows nothing": ("C1", {PRIOR: lambda run, value, noise: -70 + noise(0, 2)}),
    "C2a Adam lowers neither": ("C2a", {SHARPNESS: as_prior}),
    "C2a Adam lowers both": ("C2a", {PRIOR: lambda run, value, noise: value if sgd(run) else -70 + noise(0, 2)}),
    "C2a Adam raises it": ("C2a", {SHARPNESS: reversed_}),
    "C2b entropy-SGD lowers neither": ("C2b", {SHARPNESS: as_prior}),
    "C2b entropy-SGD raises it": ("C2b", {SHARPNESS: reversed_}),
    "C3 the outputs move": ("C3", {OUTPUT: lambda run, value, noise: 1e-3}),
    "C3 a block is not divided by 9": ("C3", {FIRST: lambda run, value, noise: 0.1}),
    "C3 a block is not multiplied by 9": ("C3", {SECOND: lambda run, value, noise: 0.1}),
}


def test_numbers_like_the_paper_s_replicate_every_claim():
    found = judged("zhang2021flat", numbers)
    assert {name: verdict.status for name, verdict in found.items()} == dict.fromkeys(
        ["C1", "C2a", "C2b", "C3"], "replicated"
    ), [verdict.words for verdict in found.values()]


@pytest.mark.parametrize(("claim", "changes"), WRONG.values(), ids=list(WRONG))
def test_numbers_that_violate_a_claim_do_not_replicate_it(claim, changes):
    verdict = judged("zhang2021flat", lambda run: numbers(run, **changes))[claim]
    assert verdict.status == "not replicated", verdict.words


def test_four_seeds_decide_nothing():
    found = judged("zhang2021flat", numbers, seeds=4)
    assert {name: verdict.status for name, verdict in found.items() if name != "C3"} == dict.fromkeys(
        ["C1", "C2a", "C2b"], "undecided"
    )
