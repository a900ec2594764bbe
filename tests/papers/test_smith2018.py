"""smith2018: numbers that violate a claim do not replicate it; a run of each row trains at both scales."""

import math
import random

import pytest

from tests.helpers.experiments import judged, node, rows, trained
from tests.helpers.pictures import write_splits

TEST = "test/performance/accuracy"


def numbers(run, *, rate=1.0, size=1.0, height=0.01, ramp=0.0, momentum=0.0, kept=0.0, raised=0.0):
    """The test accuracy of a run whose best batch size grows by these powers of the learning rate and the train size,
    if every claim held: 12 at 0.4 and 1,024, so that every peak is inside the grid. ``momentum``, ``kept`` and
    ``raised``: what momentum, an unchanged rate and a larger batch test better than what they are compared with."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    heavy = run["optimizer"] == "momentum"
    scale = run["optimizer.lr"] / (1 - run["optimizer.momentum"] if heavy else 1)
    best = 12 * (scale / 0.4) ** rate * (run["data.train_size"] / 1024) ** size
    far = math.log2(run["data.batch_size"] / best)
    test = 0.5 - height * far**2 + ramp * math.log2(run["data.batch_size"]) + momentum * heavy
    if run["scheduler"] == "step" or run["data.warm_start_steps"]:
        test = 0.53 - kept + raised * (run["scheduler"] == "constant")
    return {TEST: test + noise(0, 0.002)}


WRONG = {
    "C1 the best batch stays": ("C1", {"rate": 0}),
    "C1 it grows with the square root": ("C1", {"rate": 0.5}),
    "C1 it falls": ("C1", {"rate": -0.5}),
    "C2 the best batch stays": ("C2", {"size": 0}),
    "C2 it grows with the square root": ("C2", {"size": 0.5}),
    "C2 it falls": ("C2", {"size": -0.5}),
    "C3 flat": ("C3", {"height": 0}),
    "C3 the largest batch is best": ("C3", {"height": 0, "ramp": 0.02}),
    "C3 the smallest batch is best": ("C3", {"height": 0, "ramp": -0.02}),
    "C3 the middle is worst": ("C3", {"height": -0.01}),
    "C4 momentum is better": ("C4", {"momentum": 0.03}),
    "C4 momentum is worse": ("C4", {"momentum": -0.03}),
    "C5 the larger batch is worse": ("C5", {"raised": -0.03}),
    "C5 the larger batch is better": ("C5", {"raised": 0.03}),
    "C5 no change is as good": ("C5", {"kept": 0.055}),
}


@pytest.mark.parametrize("changes", [{"height": -0.01}, {"height": 0, "ramp": 0.02}])
def test_without_a_peak_its_place_is_undecided(changes):
    found = judged("smith2018", lambda run: numbers(run, **changes))
    assert {found[name].status for name in ("C1", "C2")} == {"undecided"}


@pytest.mark.parametrize("name", ["smith2018", "smith2018_paper"])
def test_runs_with_one_change_see_as_many_epochs(name):
    """A smaller rate and a larger batch, after as many first steps."""
    *_, smaller, larger = node(name)["hydra"]["sweeper"]["grids"]
    first, size = larger["data.warm_start_steps"], larger["data.warm_start_batch_size"]
    steps = node(name)["trainer"]["max_steps"]
    assert smaller["scheduler.milestones"] == f"[{first / steps}]"
    assert smaller["scheduler.factor"] == size / larger["data.batch_size"]
    assert (steps - first) * size == (larger["trainer.max_steps"] - first) * larger["data.batch_size"]
    assert all(larger["data.train_size"] % each == 0 for each in (size, larger["data.batch_size"]))


def short(row, *, steps):
    """Return the overrides of a row that trains on 64 examples for a few steps, a few of them first of another size."""
    sizes = {"data.train_size": 64, "trainer.max_steps": steps}
    if any(word.startswith("data.warm_start") for word in row):
        sizes["data.warm_start_steps"] = 2
    chosen = dict(word.split("=", 1) for word in row) | sizes
    return [*(f"{key}={value}" for key, value in chosen.items()), "trainer.accelerator=cpu"]


@pytest.mark.parametrize("row", rows("smith2018"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    found = trained(tmp_path, "experiment=smith2018", *short(row, steps=8), "data.test_size=50")
    assert 0 < found[TEST] < 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folders of images like those of MNIST."""
    return write_splits(tmp_path_factory.mktemp("images"), train=64, test=20, side=28)


@pytest.mark.parametrize("row", rows("smith2018_paper"), ids=str)
def test_five_steps_at_the_papers_scale(row, small, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(small / "cache"))
    found = trained(tmp_path, "experiment=smith2018_paper", *short(row, steps=5), f"data.path={small}")
    assert found["train/performance/cross_entropy"] > 0
