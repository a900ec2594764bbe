"""power2022: numbers that violate a claim do not replicate it; a few steps of each row train at both scales."""

import math
import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

OPERATION, DECAY, SHARE = "data.operation", "optimizer.weight_decay", "data.train_fraction"
FITTED, GENERALIZED = "train/trajectory/fitted", "test/trajectory/generalized"
AT_FIT, ACCURACY = "test/trajectory/at_the_fit", "test/performance/accuracy"
LARGEST, LOSS = "test/trajectory/loss", "test/performance/cross_entropy"
BUDGET = 3000


def numbers(run, *, of=(), unfitted=False, steps=None, fit=None, at_fit=0.03, end=None, largest=15.0, loss=0.01,
            by_share=-5.0, fit_by_share=1.0, by_decay=-0.6):  # fmt: skip
    """The numbers of a run if every claim held. ``of``: settings of the runs that the others are of; all without it.
    ``unfitted``: train accuracy never reaches 99 %; ``steps``, ``fit``: to 99 % test and train accuracy; ``at_fit``,
    ``end``: test accuracies; ``largest``, ``loss``: of the test loss; ``by_share``, ``by_decay``: the slopes of the
    logarithm of the steps to 99 % test accuracy, ``fit_by_share``: to 99 % train accuracy."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    operation, decay, share = run[OPERATION], run[DECAY], run[SHARE]
    if any(run[key] != value for key, value in dict(of).items()):
        unfitted, steps, fit, at_fit, end, largest, loss = False, None, None, 0.03, None, 15.0, 0.01
    hopeless = operation == "polynomial" or decay == 0
    if steps is None:
        slow = by_share * (share - 0.5) + (0 if hopeless else by_decay * math.log(decay))
        steps = BUDGET if hopeless else min(BUDGET, 900 * math.exp(slow + noise(0, 0.1)))
    if fit is None:
        fit = BUDGET if unfitted else 30 * math.exp(fit_by_share * (share - 0.5) + noise(0, 0.02))
    if end is None:
        end = 0.03 if hopeless else 0.9 if steps == BUDGET else 1.0
    return {
        FITTED: fit, f"{FITTED}_censored": float(fit == BUDGET), GENERALIZED: steps,
        f"{GENERALIZED}_censored": float(steps == BUDGET), AT_FIT: at_fit, ACCURACY: end,
        LARGEST: largest + noise(0, 0.5), LOSS: loss,
    }  # fmt: skip


DIVISION, ADDITION = {OPERATION: "divide", SHARE: 0.5}, {OPERATION: "add"}
WRONG = {
    "C1 division is fitted no earlier": ("C1", {"of": DIVISION, "fit": 400}),
    "C1 addition generalizes at once": ("C1", {"of": ADDITION, "steps": 40}),
    "C1 division has learnt the rule when it fits": ("C1", {"of": DIVISION, "at_fit": 0.5}),
    "C1 addition never generalizes": ("C1", {"of": ADDITION, "steps": BUDGET}),
    "C1 division is never fitted": ("C1", {"of": DIVISION, "unfitted": True}),
    "C2 the share does not matter": ("C2", {"by_share": 0.0}),
    "C2 fewer equations are fitted later": ("C2", {"fit_by_share": -1.0}),
    "C3 weight decay gives nothing": ("C3", {"of": {SHARE: 0.45}, "end": 0.03}),
    "C3 all is learnt without it": ("C3", {"of": {DECAY: 0.0}, "end": 1.0}),
    "C4 the polynomial is learnt with 90 %": ("C4", {"of": {OPERATION: "polynomial", SHARE: 0.9}, "end": 0.9}),
    "C4 the polynomial is not fitted": ("C4", {"of": {OPERATION: "polynomial", SHARE: 0.5}, "unfitted": True}),
    "C4 division is not learnt either": ("C4", {"of": {OPERATION: "divide", SHARE: 0.7}, "steps": BUDGET}),
    "C5 the loss does not rise": ("C5", {"largest": 3.5, "loss": 0.01}),
    "C5 the loss stays": ("C5", {"loss": 12.0}),
    "C6 weight decay does not matter": ("C6", {"by_decay": 0.0}),
    "C6 weight decay lengthens it": ("C6", {"by_decay": 0.6}),
}  # fmt: skip


def test_a_run_that_never_generalizes_counts_as_at_the_budget():
    """All but one seed of addition are enough for the ratio, and too few for the share of seeds that generalize."""
    few = judged("power2022", lambda run: numbers(run, of={**ADDITION, "seed": 3}, steps=BUDGET))
    assert few["C1"].status == "undecided"
    assert not few["C1"].evidence.unknown


def test_the_claims_are_the_same_at_the_papers_scale():
    plain, scaled = (node(name)["claims"]["rules"] for name in ("power2022", "power2022_paper"))
    assert [*plain] == [*scaled]
    found = judged("power2022_paper", numbers)
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]


@pytest.mark.parametrize("name", ["power2022", "power2022_paper"])
def test_a_few_steps_of_each_row(name, tmp_path):
    for index, row in enumerate(rows(name)):
        few = ["trainer.max_steps=8", "trainer.accelerator=cpu", "callbacks.gap.every_n_steps=[4,6,8]", "data.p=11"]
        if name == "power2022_paper":
            few += ["data.batch_size=20", "model.width=16", "data.channels=8"]
        found = trained(tmp_path / str(index), f"experiment={name}", *row, *few)
        assert found["train/trajectory/train_at_8"] == found["train/performance/accuracy"]
        assert found["test/trajectory/test_at_8"] == found[ACCURACY]
        assert found[GENERALIZED] == 8
        assert found[f"{GENERALIZED}_censored"] == 1
        assert found[LARGEST] >= found[LOSS] > 0
