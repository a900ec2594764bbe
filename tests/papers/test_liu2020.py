"""liu2020: numbers that violate a claim do not replicate it; a few steps of each row train at both scales."""

import math
import random

import pytest

from tests.helpers.experiments import node, rows, trained

TEST, TRAIN = "test/performance/accuracy", "train/performance/accuracy"
NORM, COMPLEXITY, SHARPNESS = "weights/norm/l2", "train/bound/spectral_complexity", "train/flatness/lambda_1"
EARLY, FITTED, SHARP_EARLY, OBJECTIVE = (
    "test/trajectory/accuracy_at_3000",
    "train/trajectory/fitted_at_3000",
    "train/trajectory/sharpness_at_3000",
    "train/trajectory/objective_at_3000",
)
COPIES = "regularization.random_labels.copies"
FRESH, FIRST, PENALTY, ALL = "none", "random_labels", "l2", "augmentation+l2"


def numbers(
    run, *, damage=0.06, penalized=0.02, explicit=0.0, longer=0.0, fits=1.0, of="", random_loss=0.02, norm=1.5,
    complexity=3.0, sharper=0.5, copies=0.02,
):  # fmt: skip
    """The numbers of a run if every claim held. ``damage``, ``penalized``, ``explicit``: how much lower one tests after
    random labels, with nothing, with an L2 penalty, and with augmentation too; ``longer``: how much a plain fresh one
    loses from step 3,000 to the end; ``fits``: the train accuracy of the runs that ``of`` names; ``random_loss``: left
    of random labels; ``norm``, ``complexity``, ``sharper``: ratios of the bad minimum to the fresh one; ``copies``: the
    damage of each doubling of their number."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    method = run["regularization"]
    first, plain = FIRST in method, method in (FRESH, FIRST)
    kind = ALL if ALL in method else PENALTY if PENALTY in method else FRESH
    loss = {FRESH: damage + copies * math.log2(run.get(COPIES) or 1), PENALTY: penalized, ALL: explicit}[kind]
    accuracy = {FRESH: 0.5, PENALTY: 0.52, ALL: 0.6}[kind] + noise(0, 0.004)
    own = fits if of == method else 1.0
    bad = first and plain
    return {
        EARLY: 0.1 if first else accuracy,
        TEST: accuracy - (loss if first else longer * plain),
        TRAIN: own if first else 1.0,
        FITTED: 0.1 if first else own,
        OBJECTIVE: random_loss if first else 0.01,
        NORM: 20 * (norm if bad else 1) * math.exp(noise(0, 0.01)),
        COMPLEXITY: 1e4 * (complexity if bad else 1) * math.exp(noise(0, 0.03)),
        SHARPNESS: 2 * (sharper if bad else 0.1) * math.exp(noise(0, 0.1)),
        SHARP_EARLY: 2 * math.exp(noise(0, 0.1)),
    }


WRONG = {
    "C1a no damage": ("C1a", {"damage": 0.0}),
    "C1a it helps": ("C1a", {"damage": -0.05}),
    "C1a the true labels are not fitted after": ("C1a", {"fits": 0.9, "of": FIRST}),
    "C1a fresh weights do not fit them": ("C1a", {"fits": 0.9, "of": FRESH}),
    "C1a random labels are not fitted": ("C1a", {"random_loss": 1.0}),
    "C1b longer training does it": ("C1b", {"longer": 0.06}),
    "C2a they harm": ("C2a", {"explicit": 0.05}),
    "C2a they help": ("C2a", {"explicit": -0.05}),
    "C2b as much as with nothing": ("C2b", {"penalized": 0.06}),
    "C2b more": ("C2b", {"penalized": 0.1}),
    "C3a the norm is the same": ("C3a", {"norm": 1.0}),
    "C3a R_A is smaller": ("C3a", {"complexity": 0.7}),
    "C3b it is sharper": ("C3b", {"sharper": 2.0}),
    "C4 copies change nothing": ("C4", {"copies": 0.0}),
    "C4 copies mend it": ("C4", {"copies": -0.02}),
}


def test_the_claims_are_the_same_at_the_papers_scale():
    plain, scaled = (node(name)["claims"]["rules"] for name in ("liu2020", "liu2020_paper"))
    assert [*plain] == [*scaled]


def test_random_labels_end_at_the_step_at_which_fresh_runs_are_compared():
    experiment = node("liu2020")
    grids = experiment["hydra"]["sweeper"]["grids"]
    shares = [share for grid in grids if (share := grid.get("regularization.random_labels.until"))]
    assert {share * experiment["trainer"]["max_steps"] for share in shares} == {3000}
    assert len(shares) == 3


FEW = (
    "data.batch_size=20", "trainer.max_steps=8", "trainer.accelerator=cpu", "callbacks.gap.every_n_steps=[2,6,8]",
    "callbacks.curve.every_n_steps=[2,6,8]", "callbacks.trajectory.metrics.fitted.steps=[2]",
    "callbacks.trajectory.metrics.objective.steps=[5]", "callbacks.trajectory.metrics.sharpness.steps=[2]",
    "callbacks.trajectory.metrics.loss.steps=[2]",
)  # fmt: skip


@pytest.mark.parametrize("row", rows("liu2020"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    found = trained(tmp_path, "experiment=liu2020", *row, *FEW, "data.train_size=100", "data.test_size=50")
    assert found["test/trajectory/accuracy_at_8"] == found[TEST]
    assert found["weights/trajectory/norm_at_8"] == found[NORM]
    assert found["train/trajectory/objective_at_5"] > 0
    assert found["train/trajectory/sharpness_at_2"] is not None
    assert COMPLEXITY in found


@pytest.mark.parametrize("row", rows("liu2020_paper"), ids=str)
def test_a_few_steps_at_the_papers_scale(row, small, tmp_path):
    few = ("data.train_size=40", "data.batch_size=10", "data.hub=null", f"data.path={small}", "trainer.max_steps=8",
           "trainer.accelerator=cpu", "model.width=2", "callbacks.gap.every_n_epochs=1",
           "callbacks.weight_norms.every_n_epochs=1", "callbacks.trajectory.metrics.accuracy.steps=[4,8]",
           "callbacks.trajectory.metrics.objective.steps=[4]",
           "callbacks.trajectory.metrics.norm.steps=[4,8]")  # fmt: skip
    found = trained(tmp_path, "experiment=liu2020_paper", *row, *few)
    assert found["test/trajectory/accuracy_at_8"] == found[TEST]
    assert found["weights/trajectory/norm_at_8"] == found[NORM]
    assert found["train/trajectory/objective_at_4"] > 0
