"""cohen2021: numbers that violate a claim do not replicate it; a few steps of each row train at both scales."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained

LR, MOMENTUM, BATCH = "optimizer.lr", "optimizer.momentum", "data.batch_size"
RATIO, LOSS = "train/flatness/stability_ratio", "train/optimization/objective"
EDGE, TAU, RISES, FALLS, LARGEST = (
    f"train/trajectory/{name}" for name in ("edge", "sharpening", "rises", "falls_over_400", "largest")
)
GD, HEAVY, SGD = "gradient descent", "heavy ball", "SGD"


def numbers(run, *, of=None, edge=1.05, crosses=True, tau=0.95, rises=0.3, falls=0.99, away=0.6):
    """The numbers of a run if every claim held. ``of``: the kind, or kind and rate, of the runs that the others
    are of; all without it. ``edge``: the median at the edge, which a run that never ``crosses`` has not; ``tau``: how
    the ratio rises until then; ``rises``, ``falls``: the shares of windows; ``away``: the largest ratio of SGD."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    kind = SGD if run[BATCH] else HEAVY if run.get(MOMENTUM) else GD
    if of is not None and of not in (kind, (kind, run[LR])):
        edge, crosses, tau, rises, falls, away = 1.05, True, 0.95, 0.3, 0.99, 0.6
    if kind == SGD:
        return {LARGEST: away + noise(0, 0.01), **dict.fromkeys((EDGE, TAU, RISES, FALLS))}
    found = {key: min(1.0, abs(value + noise(0, 0.005))) for key, value in ((RISES, rises), (FALLS, falls))}
    found |= {EDGE: edge + noise(0, 0.01), TAU: min(1.0, tau + noise(0, 0.02))}
    return {LARGEST: 1.2, **(found if crosses else dict.fromkeys(found))}


WRONG = {
    **{f"C1a far below at {lr}": ("C1a", {"edge": 0.85, "of": (GD, lr)}) for lr in (0.15, 0.25, 0.4)},
    **{f"C1a far above at {lr}": ("C1a", {"edge": 1.3, "of": (GD, lr)}) for lr in (0.15, 0.25, 0.4)},
    "C1b far below": ("C1b", {"edge": 0.85, "of": HEAVY}),
    "C1b at 2/η": ("C1b", {"edge": 1 / 1.9, "of": HEAVY}),
    "C1b far above": ("C1b", {"edge": 1.3, "of": HEAVY}),
    "C2 it falls": ("C2", {"tau": -0.9, "of": (GD, 0.15)}),
    "C2 it neither rises nor falls": ("C2", {"tau": 0.0, "of": HEAVY}),
    "C3 the loss falls in every step": ("C3", {"rises": 0.0, "of": (GD, 0.25)}),
    "C3 the loss does not fall": ("C3", {"falls": 0.5, "of": (GD, 0.4)}),
    "C4 SGD comes to the edge": ("C4", {"away": 1.0, "of": SGD}),
}


def test_runs_that_never_come_to_the_edge_do_not_show_that_they_stay_there():
    """They have no number, and count as the worst."""
    found = judged("cohen2021", lambda run: numbers(run, crosses=False))
    assert {found[name].status for name in ("C1a", "C1b", "C2", "C3")} <= {"undecided", "not replicated"}


def test_the_claims_are_the_same_at_the_papers_scale():
    plain, scaled = (node(name)["claims"]["rules"] for name in ("cohen2021", "cohen2021_paper"))
    assert [*plain] == [*scaled]
    found = judged("cohen2021_paper", numbers)
    assert {verdict.status for verdict in found.values()} == {"replicated"}, [each.words for each in found.values()]


def test_each_curvature_has_its_own_threshold_and_the_loss_that_is_trained_on():
    for name in ("cohen2021", "cohen2021_paper"):
        callback = node(name)["callbacks"]["curvature"]
        assert callback["loss"]["path"] == "genbench.regularization.squared_error.squared_error"
        measure = callback["measures"]["stability_ratio"]
        assert (measure["lr"], measure["momentum"]) == ("${optimizer.lr}", "${optimizer.momentum}")


def short(row, *, size):
    """Return the overrides of a row that trains for 12 steps, measured at 4, 8 and 12."""
    few = (
        f"data.train_size={size}", "trainer.max_steps=12", "trainer.accelerator=cpu",
        "callbacks.curvature.every_n_steps=4",
        "callbacks.trajectory.metrics.ratio.steps=[4,8,12]", "callbacks.trajectory.metrics.loss.steps=[4,8,12]",
        "callbacks.trajectory.metrics.falls_over_400.over=2",
    )  # fmt: skip
    return [*row, *few]


def check(found, row):
    assert found["train/trajectory/ratio_at_12"] == found[RATIO]
    assert found[LARGEST] == max(found[f"train/trajectory/ratio_at_{step}"] for step in (4, 8, 12))
    if "data.batch_size=20" not in row:  # then an epoch is a step
        assert 0 < found["train/trajectory/loss_at_12"] < found["train/trajectory/loss_at_4"]


@pytest.mark.parametrize("row", rows("cohen2021"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    check(trained(tmp_path, "experiment=cohen2021", *short(row, size=80)), row)


def test_at_a_rate_above_the_edge_the_loss_rises_and_the_numbers_are_there(tmp_path):
    found = trained(tmp_path, "experiment=cohen2021", *short(("optimizer.lr=1.2", "optimizer.momentum=0"), size=80))
    assert found["train/trajectory/crossing"] in (4, 8, 12)
    assert found[EDGE] > 1
    assert found[RISES] > 0


@pytest.mark.parametrize("row", rows("cohen2021_paper"), ids=str)
def test_a_few_steps_at_the_papers_scale(row, small, tmp_path):
    found = trained(tmp_path, "experiment=cohen2021_paper", *short(row, size=40), f"data.path={small}", "data.hub=null")
    check(found, row)
