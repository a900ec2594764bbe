"""smith2018: numbers that violate a claim do not replicate it; a run of each scale trains."""

import math
import random

from tests.helpers.experiments import judged, settings, trained
from tests.helpers.pictures import pixels, write_folders

TEST = "test/performance/accuracy"


def numbers(run, *, rate=1.0, size=1.0, height=0.02):
    """The test accuracy of a run whose best batch size grows by these powers of the learning rate and the train size,
    if every claim held: it is 45 for the largest of both, so that every peak is inside the grid."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    best = 45 * (run["optimizer.lr"] / 0.4) ** rate * (run["data.train_size"] / 1000) ** size
    return {TEST: 0.5 - height * math.log(run["data.batch_size"] / best) ** 2 + noise(0, 0.002)}


WRONG = {
    "C1 the best batch stays": ("C1", {"rate": 0}),
    "C1 it grows with the square root": ("C1", {"rate": 0.5}),
    "C1 it falls": ("C1", {"rate": -0.5}),
    "C2 the best batch stays": ("C2", {"size": 0}),
    "C2 it grows with the square root": ("C2", {"size": 0.5}),
    "C2 it falls": ("C2", {"size": -0.5}),
}


def test_without_a_peak_nothing_is_decided():
    flat = judged("smith2018", lambda run: numbers(run, height=-0.02))
    assert {verdict.status for verdict in flat.values()} == {"undecided"}


def test_the_grid_is_that_of_the_issue():
    assert len(settings("smith2018", 8)) == 6 * 3 * 3 * 8


def test_a_few_steps_on_the_laptop_and_five_on_images(tmp_path, monkeypatch):
    short = ("trainer.accelerator=cpu", "data.batch_size=4", "optimizer.lr=0.1")
    found = trained(
        tmp_path, "experiment=smith2018", *short, "data.train_size=20", "data.test_size=50", "trainer.max_steps=8"
    )
    assert 0 < found[TEST] < 1
    for split, n in (("train", 40), ("test", 20)):
        write_folders(tmp_path / "images" / split, pixels(n, side=28, seed=n), [i % 10 for i in range(n)])
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    found = trained(
        tmp_path, "experiment=smith2018_paper", *short, f"data.path={tmp_path / 'images'}", "data.train_size=20",
        "trainer.max_steps=5",
    )  # fmt: skip
    assert found["train/performance/cross_entropy"] > 0
