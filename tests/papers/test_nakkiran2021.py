"""nakkiran2021: numbers that violate a claim do not replicate it; the paper's own scale trains."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained
from tests.helpers.pictures import write_splits

STEPS = node("nakkiran2021")["callbacks"]["trajectory"]["metrics"]["soft_error"]["steps"]
# the final soft-error in the ideal world, in the order of the pilots
NETWORKS = {
    ("mlp", 32, "none"): 0.5,
    ("alexnet", 8, "none"): 0.33,
    ("cnn", 25, "none"): 0.3,
    ("mlp", 128, "none"): 0.28,
    ("mlp", 128, "batch_norm"): 0.25,
    ("cnn", 25, "batch_norm"): 0.05,
}
END, FITTED, GAP = "test/performance/soft_error", "train/trajectory/fitted", "test/gap/soft_error"


def numbers(run, *, apart=0.01, gap=0.4, lost=0.1, order=1, size=0.06, gain=0.06, cost=0.02, later=2.0):
    """The metrics of a run if every claim held, but for seeds that differ a little.

    ``apart`` is the distance of the worlds until the real one has fitted its train set, ``gap`` its final gap, ``lost``
    what it loses by its end, ``order`` -1 where its networks rank the other way round, ``size`` the slope on the
    logarithm of the train size, ``gain`` and ``cost`` those of augmentation, ``later`` the ratio of the steps.
    """
    noise = random.Random(repr(sorted(run.items()))).gauss
    real, augmented = not run["data.fresh"], run["regularization"] == "augmentation"
    ideal = NETWORKS[run["model"], run["model.width"], run["model.normalization"]]
    end = (lost + 0.5 + order * (ideal - 0.5)) if real else ideal
    if real:
        end -= size * {256: -2, 1024: 0, 4096: 2}[run["data.train_size"]] * 0.6931 + gain * augmented
    else:
        end += cost * augmented
    curve = {f"test/trajectory/soft_error_at_{step}": 0.5 - 0.4 * step / 1024 + apart * real for step in STEPS}
    late = {key: value + 0.3 * real for key, value in curve.items() if int(key.rpartition("_")[2]) > 500}
    curve = {key: value + noise(0, 0.002) for key, value in (curve | late).items()}
    fitted = {FITTED: 448 * (later if augmented else 1)} if real else {FITTED: None}
    return {**curve, **fitted, END: min(1.0, end + noise(0, 0.001)), GAP: gap * real + noise(0, 0.005)}


WRONG = {
    "C1 worlds apart": ("C1", {"apart": 0.3}),
    "C1 just half of the gap": ("C1", {"apart": 0.205}),
    "C1 no gap": ("C1", {"gap": 0.0}),
    "C2 the other order": ("C2", {"order": -1}),
    "C2 no order": ("C2", {"order": 0}),
    "C3 flat": ("C3", {"size": 0.0}),
    "C3 rising": ("C3", {"size": -0.05}),
    "C4 no effect": ("C4", {"gain": 0.0, "cost": 0.0, "later": 1.0}),
    "C4 costs as much as it gains": ("C4", {"gain": 0.06, "cost": 0.06}),
    "C4 not later": ("C4", {"later": 1.0}),
    "C4 sooner": ("C4", {"later": 0.5}),
}
# of eight, 2⁻⁸ times six parts and four claims is above the level
SEEDS = {case: 16 for case, (_, changes) in WRONG.items() if "later" in changes}


def test_what_comes_after_the_train_set_is_fitted_does_not_count():
    """C1 holds although the worlds part then."""
    found = judged("nakkiran2021", lambda run: numbers(run, apart=0.15))
    assert found["C1"].status == "replicated", found["C1"].words


def test_both_worlds_train_alike():
    """They differ in the data alone: steps, batches, rates and schedule are the same."""
    for grid in node("nakkiran2021")["hydra"]["sweeper"]["grids"]:
        both = grid["data.fresh"] == "true,false"
        assert both or (grid["data.fresh"], grid["data.train_size"]) == (False, "256,4096")


@pytest.mark.parametrize("row", [row for row in rows("nakkiran2021") if "regularization=augmentation" in row])
def test_a_few_steps_of_both_worlds_on_the_laptop(row, tmp_path):
    short = ("trainer.max_steps=8", "trainer.accelerator=cpu", "data.test_size=50", "callbacks.gap.every_n_steps=4")
    found = trained(
        tmp_path / "runs",
        "experiment=nakkiran2021",
        *row,
        *short,
        "callbacks.trajectory.metrics.soft_error.steps=[4,8]",
    )
    assert found["test/trajectory/soft_error_at_8"] == found[END]
    assert found[FITTED] is None


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folders as CIFAR-5m's images would have them."""
    return write_splits(tmp_path_factory.mktemp("cifar5m"), train=40, test=20, side=32)


@pytest.mark.parametrize("row", rows("nakkiran2021_paper"), ids=str)
@pytest.mark.parametrize("world", ["real", "ideal"])
def test_it_trains_for_five_steps_at_the_papers_scale(row, world, small, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(small / "cache"))
    augmented = ["regularization=[flip,random_crop]"] if world == "real" else []
    found = trained(
        tmp_path, "experiment=nakkiran2021_paper", *row, *augmented, f"data.path={small}", "data.batch_size=8",
        f"data.train_size={16 if world == 'real' else 40}", "trainer.max_steps=5", "trainer.accelerator=cpu",
        "callbacks.gap.every_n_steps=5", "callbacks.trajectory.metrics.soft_error.steps=[5]",
    )  # fmt: skip
    assert found["test/trajectory/soft_error_at_5"] == found[END]
    assert 0 < found[END] < 1


def test_the_ideal_world_of_the_paper_s_scale_sees_no_image_twice():
    plain = node("nakkiran2021_paper")
    sizes = plain["hydra"]["sweeper"]["params"]["data.train_size"].split(",")
    assert int(sizes[-1]) == plain["trainer"]["max_steps"] * plain["data"]["batch_size"]
