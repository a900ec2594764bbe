"""feldman2020: numbers that violate a claim do not replicate it; a few networks of each row train, at every scale."""

import random

import pytest

from tests.helpers.experiments import node, rows, trained

TRAIN, TEST = "train/memorization/", "test/memorization/"
AUROC, CLEAN, WRONG_LABELS = (
    f"{TRAIN}memorization_auroc",
    f"{TRAIN}memorization_clean",
    f"{TRAIN}memorization_mislabelled",
)
INFLUENCE, SAME, OF_CHOSEN = (
    f"{TEST}influence_of_chosen",
    f"{TEST}same_label_of_chosen",
    f"{TEST}memorization_of_chosen",
)
SCALES = ("feldman2020_middle", "feldman2020_paper")


def numbers(run, *, auroc=0.92, wrong=0.7, rare=0.35, random_cost=0.025, matched_cost=0.02, tail=0.09,
            tail_matched=0.03, influence=0.4, same=0.8, chosen=0.6, gain=0.04):  # fmt: skip
    """The numbers of a run if every claim held. ``wrong``: memorization of wrong labels. ``rare``: that of the digits 8
    and 9 where they are rare. ``random_cost`` and ``matched_cost``: what removal of the most memorized costs beyond
    that at random, ``tail``s where classes are rare. ``gain``: with wrong labels."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    noisy, tailed = run["data.label_noise"] > 0, run["data.imbalance"] > 1
    cost, matched = (tail, tail_matched) if tailed else (random_cost, matched_cost)
    found = {
        AUROC: auroc, WRONG_LABELS: wrong, CLEAN: 0.14, f"{TRAIN}memorization": 0.07,
        INFLUENCE: influence, SAME: same, OF_CHOSEN: chosen,
    }  # fmt: skip
    found |= {f"{TRAIN}memorization_of_label_{k}": rare if tailed else 0.1 for k in (8, 9)}
    found = {key: value + noise(0, 0.02) for key, value in found.items()}
    base = 0.8 + noise(0, 0.01)
    found |= {
        f"{TEST}accuracy_without_memorized_at_20": base,
        f"{TEST}accuracy_without_random_at_20": base + cost + noise(0, 0.002),
        f"{TEST}accuracy_without_matched_at_20": base + matched + noise(0, 0.002),
        f"{TEST}accuracy_without_memorized_at_40": base + (gain if noisy else 0) + noise(0, 0.002),
        f"{TEST}accuracy_without_random_at_40": base,
    }
    return found


WRONG = {
    "C1 wrong labels are told by chance": ("C1", {"auroc": 0.5}),
    "C1 they are memorized like others": ("C1", {"wrong": 0.14}),
    "C2 rare digits are memorized like others": ("C2", {"rare": 0.1}),
    "C3a removal by memorization costs less than at random": ("C3a", {"random_cost": -0.01}),
    "C3b as many of each label cost more": ("C3b", {"matched_cost": -0.01}),
    "C3c of rare classes it costs two points": ("C3c", {"tail": 0.02}),
    "C3d of rare classes as many of each label cost more": ("C3d", {"tail_matched": -0.01}),
    "C4 no train example helps where it was not chosen": ("C4", {"influence": 0.02}),
    "C4 pairs are of any label": ("C4", {"same": 0.1}),
    "C4 helpers are memorized like others": ("C4", {"chosen": 0.07}),
    "C5 removal costs with wrong labels too": ("C5", {"gain": -0.03}),
}


def test_the_claims_are_the_same_at_every_scale():
    for scale in SCALES:
        assert "rules" not in node(scale).get("claims", {})  # they are those of experiment=feldman2020


@pytest.mark.parametrize("row", rows("feldman2020"), ids=str)
def test_a_few_networks_of_each_row(row, tmp_path):
    few = (
        "data.train_size=120", "data.batch_size=20", "regularization.ensemble.members=60", "trainer.max_steps=20",
        "model.width=8", "trainer.accelerator=cpu", "callbacks.helped.measures.removal.networks=2",
    )  # fmt: skip
    check(trained(tmp_path, "experiment=feldman2020", *row, *few), noisy="data.label_noise=0.1" in row)


@pytest.mark.parametrize(("scale", "row"), [(scale, row) for scale in SCALES for row in rows("feldman2020")], ids=str)
def test_a_few_networks_on_images(scale, row, small, tmp_path):
    few = (
        f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=5", "trainer.max_steps=3",
        "regularization.ensemble.members=60", "trainer.accelerator=cpu", "callbacks.helped.measures.removal.networks=1",
        "model.width=4",
    )  # fmt: skip
    row = [each.replace("imbalance=10.0", "imbalance=2.0") for each in row]  # there are six images of a class
    found = trained(tmp_path, f"experiment={scale}", *row, *few)
    check(found, noisy="data.label_noise=0.1" in row)


def check(found, *, noisy):
    assert found[f"{TRAIN}memorization"] == pytest.approx(
        found[f"{TRAIN}right_inside"] - found[f"{TRAIN}right_outside"]
    )
    assert (AUROC in found and found[AUROC] is not None) == noisy
    for arm in ("memorized", "random", "matched"):
        for percent in (0, 10, 20, 30, 40):
            assert 0 <= found[f"{TEST}accuracy_without_{arm}_at_{percent}"] <= 1
    assert -1 <= found[INFLUENCE] <= 1
    assert 0 <= found[SAME] <= 1
