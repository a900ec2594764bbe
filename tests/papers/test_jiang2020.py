"""jiang2020: measures that rank as the paper's replicate each claim; those that violate it do not."""

import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained
from tests.helpers.pictures import write_splits

GAP, LOSS = "test/gap/accuracy", "train/performance/cross_entropy"
FLAT, PATH, SPECTRAL = "train/bound/sharpness_mag_flatness", "train/norm/path_norm", "weights/norm/log_prod_of_spec"
PARAMS, VARIANCE = "weights/norm/params", "train/optimization/gradient_variance"
RULES = node("jiang2020")["claims"]["rules"]
AXES = dict(RULES["C1"]["parts"][0]["over"])
WIDTH, DEPTH = "model.width", "model.depth"
OTHERS = {part["parts"][0]["metric"] for part in RULES["C3"]["parts"]} - {FLAT, PATH, SPECTRAL, PARAMS, VARIANCE}


def numbers(run, *, flat=1.0, path=1.0, spectral=-1.0, params=-1.0, variance=1.0, others=1.0, hidden=True, loss=0.0105):
    """The gap rises with every level of seven hyperparameters, most with the width and the depth, with which the number
    of parameters falls here. A measure is its factor times the gap's level, with noise: of 1/α′ the least. ``hidden``:
    the path norm falls much with the width although it rises with all other hyperparameters."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    level = {key: values.index(run[key]) for key, values in AXES.items()}
    gap = sum(level.values()) + level[WIDTH] + level[DEPTH]
    found = {name: others * gap + noise(0, 1) for name in sorted(OTHERS)}
    return {
        GAP: 0.5 + 0.01 * (gap + noise(0, 0.5)),
        LOSS: loss,
        FLAT: flat * gap + noise(0, 0.4),
        PATH: path * (gap - 20 * level[WIDTH] * hidden) + noise(0, 0.4),
        SPECTRAL: spectral * gap + noise(0, 1),
        PARAMS: params * (level[WIDTH] + level[DEPTH]),
        VARIANCE: variance * gap + noise(0, 2),
        **found,
    }


WRONG = {
    "C1 the path norm is better": ("C1", {"flat": 0.02, "hidden": False}),
    "C1 the path norm falls with the gap": ("C1", {"path": -1.0, "hidden": False}),
    "C1 spectral norms rise with the gap": ("C1", {"spectral": 1.0}),
    "C2 parameters rise with the gap": ("C2", {"params": 1.0}),
    "C3 all measures have one sign": ("C3", {"hidden": False}),
    "C4 the variance tells nothing": ("C4", {"variance": 0.0}),
    "C4 the variance falls with the gap": ("C4", {"variance": -1.0}),
}


def test_what_ends_at_another_loss_decides_nothing():
    """The verdicts are of runs at one loss: of others nothing is known."""
    found = judged("jiang2020", lambda run: numbers(run, loss=0.02))
    assert {verdict.status for verdict in found.values()} == {"undecided"}


NO_STOP = ("callbacks.stop.train_loss=null", "callbacks.stop.tolerance=null")
SHORT = ("trainer.max_steps=5", "trainer.accelerator=cpu", *NO_STOP)
MEASURES = {FLAT, PATH, SPECTRAL, PARAMS, VARIANCE, GAP, LOSS, *OTHERS}


@pytest.mark.parametrize("row", rows("jiang2020")[:3], ids=str)
def test_all_measures_are_measured(row, tmp_path):
    assert set(trained(tmp_path, "experiment=jiang2020", *row, *SHORT, "data.test_size=50")) >= MEASURES


def test_five_steps_at_the_papers_scale(tmp_path, monkeypatch):
    small = write_splits(tmp_path / "images", train=200, test=20, side=32)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    found = trained(
        tmp_path / "runs", "experiment=jiang2020_paper", *rows("jiang2020_paper")[0], f"data.path={small}",
        "data.train_size=200", "model.width=8", *SHORT,
    )  # fmt: skip
    assert set(found) >= MEASURES
