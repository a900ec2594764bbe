"""The claims of blier2018: numbers as the paper has them replicate each; those that violate it do not."""

import random

import pytest

from tests.helpers.experiments import judged, rows, trained

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


def test_numbers_like_the_paper_s_replicate_every_claim():
    found = judged("blier2018", numbers)
    assert {name: verdict.status for name, verdict in found.items()} == dict.fromkeys(
        ["C1", "C2", "C4"], "replicated"
    ), [verdict.words for verdict in found.values()]


@pytest.mark.parametrize(("claim", "changes"), WRONG.values(), ids=list(WRONG))
def test_numbers_that_violate_a_claim_do_not_replicate_it(claim, changes):
    verdict = judged("blier2018", lambda run: numbers(run, **changes))[claim]
    assert verdict.status == "not replicated", verdict.words


def test_four_seeds_decide_nothing():
    found = judged("blier2018", numbers, seeds=4)
    assert {verdict.status for verdict in found.values()} == {"undecided"}


def test_every_row_trains_and_measures_what_its_claims_need(tmp_path):
    steps = "callbacks.codes.measures.prequential_code.steps=5"
    for overrides in rows("blier2018"):
        few = ["trainer.max_steps=5", "data.test_size=100", "data.train_size=200", steps]
        found = trained(tmp_path, "experiment=blier2018", *overrides, *few, "seed=1000")
        assert all(found[key] is not None for key in (ACCURACY, BITS, RATIO, PER_LABEL))
        assert found["train/information/two_part_bits"] is not None
