"""foret2021: numbers that violate a claim do not replicate it; a few steps of each row train at every scale."""

import math
import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

NOISE, METHODS, RHO, M, STEPS = (
    "data.label_noise", "regularization", "regularization.sam.rho", "regularization.sam.m", "trainer.max_steps"
)  # fmt: skip
DECAY = "regularization.l2.strength"
ACCURACY, BEST, LAMBDA = "test/performance/accuracy", "test/trajectory/best", "train/flatness/lambda_1"
SAM = "l2+sam"
PAPERS = 2.5e-4


def numbers(run, *, noise=None, gain=(0.02, 0.04, 0.06, 0.12), once=0.0, early=0.0, ratio=4.0, falls=(0.02, 0.02),
            half=0.3, decay=0.8):  # fmt: skip
    """The numbers of a run if every claim held.

    Args:
        noise: the level that the others are about; None: all.
        gain: of SAM over plain training with decays of their own, at 20 to 80 % noise.
        once: how much better plain training is that takes half of the steps.
        early: added to plain training at its best along training, 5 points below SAM at its end.
        ratio: of λ₁ of plain training to that of SAM.
        falls: of the accuracy from m = 2 to 10 and to 50, without noise and with 40 %.
        half: the share of the gain at half of ρ.
        decay: the share of the gain that plain training gets from its own decay.
    """
    level = run[NOISE]
    if noise not in (None, level):
        once, early, half, decay = 0.0, 0.0, 0.3, 0.8
    draw = random.Random(repr(sorted(run.items(), key=repr))).gauss
    own = dict(zip((0.2, 0.4, 0.6, 0.8), gain, strict=True)).get(level, 0.0)
    best = 0.9 - 0.2 * level  # SAM with the paper's decay
    plain = best - 0.5 * level
    if run[METHODS] == SAM and run[DECAY] == PAPERS:
        value = best if run[RHO] == max(RHOS) else plain + half * (best - plain)
    elif run[METHODS] == SAM:
        step = {2: 2, 10: 1}.get(run[M], 0)
        value = plain + decay * (best - plain) + own + step * (falls[1] if level else falls[0])
    else:
        value = plain if run[DECAY] == PAPERS else plain + decay * (best - plain)
        value += once if run.get(STEPS) == 1000 else 0.0
    value = min(1.0, value + draw(0, 0.002))
    wide = 8.0 if run[METHODS] == SAM else 8.0 * ratio
    return {ACCURACY: value, BEST: best - 0.05 + early, LAMBDA: wide * (1 + draw(0, 0.05))}


RHOS = sorted({value for run in node("foret2021")["hydra"]["sweeper"]["grids"] for value in
               map(float, str(run.get(RHO, "")).split(",") if RHO in run else [])})  # fmt: skip
NOISY = (0.2, 0.4, 0.6, 0.8)
WRONG = {
    **{f"C1a no gain at {p}": ("C1a", {"gain": tuple(-0.02 if q == p else 0.05 for q in NOISY)}) for p in NOISY},
    **{f"C1a fewer steps are better at {p}": ("C1a", {"once": 0.15, "noise": p}) for p in NOISY},
    "C1b the gain falls": ("C1b", {"gain": (0.12, 0.06, 0.04, 0.02)}),
    "C1b the gain falls a little": ("C1b", {"gain": (0.055, 0.05, 0.05, 0.045)}),
    "C2 as sharp": ("C2", {"ratio": 1.0}),
    "C2 sharper": ("C2", {"ratio": 0.3}),
    "C3a it rises": ("C3a", {"falls": (-0.02, 0.02)}),
    "C3a no slope": ("C3a", {"falls": (0.0, 0.02)}),
    "C3b it rises": ("C3b", {"falls": (0.02, -0.02)}),
    **{f"C4 most of the gain at {p}": ("C4", {"half": 0.9, "noise": p}) for p in NOISY[:3]},
    **{f"C5 decay does nothing at {p}": ("C5", {"decay": 0.0, "noise": p}) for p in NOISY},
    **{f"C6 better on the way at {p}": ("C6", {"early": 0.08, "noise": p}) for p in NOISY},
}


SCALES = ("foret2021_middle", "foret2021_paper")


def steps(name):
    most = node(name)["trainer"]["max_steps"]
    return {str(grid.get(STEPS, most)) for grid in node(name)["hydra"]["sweeper"]["grids"]}


def at_scale(run, **changes):
    """The numbers of a run on images, where all runs have one decay and m = 2 and 10 stand for its smaller values."""
    name = changes.pop("scale")
    most = node(name)["trainer"]["max_steps"]
    plain = "sam" not in run[METHODS]
    best = run.get(RHO) == (0.05 if run[NOISE] == 0.8 else 0.1)
    like = {
        **run,
        METHODS: "l2" if plain else SAM,
        DECAY: PAPERS,
        RHO: max(RHOS) if best else min(RHOS),
        STEPS: 1000 if run.get(STEPS) == most else 2000,
    }
    found = numbers(like, **changes)
    if not plain and run[NOISE] == 0:
        found[ACCURACY] -= 0.01 * changes.get("slope", 1) * math.log(run[M])
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_the_claims_on_images_can_be_replicated(scale):
    found = judged(scale, lambda run: at_scale(run, scale=scale), seeds=5)
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]
    assert {*found} == {*node("foret2021")["claims"]["rules"]} - {"C3b", "C5"}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1a", {"once": 0.5}),
        ("C2", {"ratio": 1.0}),
        ("C4", {"half": 0.9}),
        ("C6", {"early": 0.08}),
    ],
)
def test_numbers_that_violate_a_claim_on_images_do_not_replicate_it(scale, claim, changes):
    found = judged(scale, lambda run: at_scale(run, scale=scale, **changes), seeds=5)
    assert found[claim].status == "not replicated", found[claim].words


@pytest.mark.parametrize("name", ["foret2021", *SCALES])
def test_sam_and_plain_training_cost_as_much(name):
    """SAM takes two passes a step, plain training twice the steps."""
    most = node(name)["trainer"]["max_steps"]
    assert steps(name) == {f"{most}", f"{most},{2 * most}"}


@pytest.mark.parametrize("row", rows("foret2021"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    few = ("data.train_size=100", "trainer.max_steps=4", "callbacks.early.every_n_steps=2")
    found = trained(tmp_path, "experiment=foret2021", *row, *few)
    assert found[BEST] >= found[ACCURACY]
    assert found[LAMBDA] > found["train/flatness/lambda_5"]


@pytest.mark.parametrize(("scale", "row"), [(scale, row) for scale in SCALES for row in rows(scale)], ids=str)
def test_a_few_steps_on_images(scale, row, small, tmp_path):
    blocks = ("regularization.sam.m=4",) if any(each.startswith(M) for each in row) else ()
    few = (
        f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=8", "model.width=4",
        "trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks.early.every_n_steps=2", "measures.lambda.k=1",
    )  # fmt: skip
    found = trained(tmp_path, f"experiment={scale}", *row, *few, *blocks)
    assert found[BEST] >= found[ACCURACY]
    assert found[LAMBDA] > 0
