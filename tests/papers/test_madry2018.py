"""madry2018: numbers that violate a claim do not replicate it; a few steps of each row train at every scale."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

METHODS, STEPS, WIDTH = "regularization", "regularization.adversarial_training.steps", "model.width"
NATURAL = "test/performance/accuracy"
FGSM, PGD, RESTARTS, FAR = (f"test/robustness/{name}" for name in ("fgsm", "pgd", "restarts", "pgd_at_50"))
PLAIN = {4: (0.94, 0.05, 0.0), 16: (0.96, 0.04, 0.0), 64: (0.97, 0.04, 0.0)}
AGAINST_FGSM = (0.9, 0.95, 0.01)
AGAINST_PGD = {4: (0.1, 0.1, 0.1), 16: (0.85, 0.45, 0.3), 64: (0.92, 0.55, 0.45)}


def trained_how(run):
    return "plain" if run[METHODS] == "none" else {1: "FGSM", 7: "PGD"}[run[STEPS]]


def numbers(run, *, at="", moved=(0.0, 0.0, 0.0), fewer=0.03, far=0.02):
    """The numbers of a run if every claim held.

    Args:
        at: how it was trained and its width, such as "PGD 64".
        moved: added to its accuracy without attack, under FGSM and under PGD.
        fewer: what ten starts take from PGD training.
        far: the accuracy of PGD training at ε = 0.5.
    """
    draw = random.Random(repr(sorted(run.items(), key=repr))).gauss
    how = trained_how(run)
    found = {"plain": PLAIN, "FGSM": dict.fromkeys(PLAIN, AGAINST_FGSM), "PGD": AGAINST_PGD}[how][run[WIDTH]]
    natural, fgsm, pgd = (
        min(1.0, max(0.0, value + draw(0, 0.003) + (more if at == f"{how} {run[WIDTH]}" else 0.0)))
        for value, more in zip(found, moved, strict=True)
    )
    restarts = max(0.0, pgd - (fewer + draw(0, 3e-4) if how == "PGD" else 0.0))
    return {NATURAL: natural, FGSM: fgsm, PGD: pgd, RESTARTS: restarts, FAR: far + abs(draw(0, 0.002))}


WRONG = {
    **{f"C1 it takes little at {w}": ("C1", {"at": f"plain {w}", "moved": (0, 0.85, 0)}) for w in PLAIN},
    **{f"C2 FGSM takes nothing at {w}": ("C2", {"at": f"PGD {w}", "moved": (0, 0.5, 0)}) for w in (16, 64)},
    **{f"C2 PGD takes less than FGSM at {w}": ("C2", {"at": f"PGD {w}", "moved": (0, 0, 0.2)}) for w in (16, 64)},
    "C2 ten starts take nothing": ("C2", {"fewer": 0.0}),
    "C3 plain training resists": ("C3", {"at": "plain 64", "moved": (0, 0, 0.2)}),
    "C3 PGD training keeps little": ("C3", {"at": "PGD 64", "moved": (0, 0, -0.35)}),
    "C4 it costs nothing at 64": ("C4", {"at": "PGD 64", "moved": (0.05, 0, 0)}),
    "C4 it costs nothing at 16": ("C4", {"at": "PGD 16", "moved": (0.15, 0, 0)}),
    "C4 it costs more at 64": ("C4", {"at": "PGD 64", "moved": (-0.2, 0, 0)}),
    "C5 it learns": ("C5", {"at": "PGD 4", "moved": (0.4, 0, 0)}),
    "C5 plain training does not learn either": ("C5", {"at": "plain 4", "moved": (-0.75, 0, 0)}),
    "C6 the widest is worse": ("C6", {"at": "PGD 64", "moved": (0, 0, -0.45)}),
    "C6 the narrowest is better": ("C6", {"at": "PGD 4", "moved": (0, 0, 0.45)}),
    "C7 it resists": ("C7", {"at": "FGSM 64", "moved": (0, 0, 0.2)}),
    "C8 no leaking": ("C8", {"at": "FGSM 64", "moved": (0, -0.3, 0)}),
    "C9 the attack is too weak": ("C9", {"far": 0.2}),
}
SCALES = {"madry2018_middle": {8: 4, 32: 64}, "madry2018_paper": {1: 16, 10: 64}}
"""The widths on images, and which of the laptop's they stand for."""


def at_scale(run, *, scale, **changes):
    """The numbers of a run on images."""
    how = "adversarial_training" if "adversarial_training" in run[METHODS] else "none"
    found = numbers({**run, METHODS: how, WIDTH: SCALES[scale][run[WIDTH]]}, **changes)
    return {**found, "test/robustness/pgd_far": found[FAR]}


def violated(scale):
    """The cases of ``WRONG`` that are about claims and widths of a scale."""
    narrow = {"madry2018_middle": 16, "madry2018_paper": 4}[scale]
    skipped = {"C2 FGSM takes nothing at 16", "C2 PGD takes less than FGSM at 16", "C4 it costs more at 64"}
    rules = node(scale)["claims"]["rules"]
    return [
        case
        for case, (claim, changes) in WRONG.items()
        if claim in rules and case not in skipped and not changes.get("at", "").endswith(f" {narrow}")
    ]


@pytest.mark.parametrize("scale", SCALES)
def test_the_claims_on_images_can_be_replicated(scale):
    found = judged(scale, lambda run: at_scale(run, scale=scale), seeds=5)
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]
    assert {*found} == {*node("madry2018")["claims"]["rules"]} - ({"C5"} if "paper" in scale else set())


@pytest.mark.parametrize(("scale", "case"), [(scale, case) for scale in SCALES for case in violated(scale)])
def test_numbers_that_violate_a_claim_on_images_do_not_replicate_it(scale, case):
    claim, changes = WRONG[case]
    found = judged(scale, lambda run: at_scale(run, scale=scale, **changes), seeds=5)
    assert found[claim].status == "not replicated", found[claim].words


def attacked(found, far):
    """Ten starts find no less than the first of them."""
    assert 0 <= found[RESTARTS] <= found[PGD] <= 1
    assert 0 <= found[far] <= 1


@pytest.mark.parametrize("row", rows("madry2018"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    few = ("data.train_size=100", "data.batch_size=10", "trainer.max_steps=5", "model.width=4")
    attacked(trained(tmp_path, "experiment=madry2018", *row, *few), FAR)


@pytest.mark.parametrize(("scale", "row"), [(scale, row) for scale in SCALES for row in rows(scale)], ids=str)
def test_a_few_steps_on_images(scale, row, small, tmp_path):
    few = (
        f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=8", "model.width=1",
        "trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks.gap.examples=20", "callbacks.attacks.examples=20",
    )  # fmt: skip
    few += ("model.depth=10",) if scale == "madry2018_paper" else ()
    attacked(trained(tmp_path, f"experiment={scale}", *row, *few), "test/robustness/pgd_far")
