"""fort2019: numbers that violate a claim do not replicate it; a few steps of each row train."""

import random

import pytest

from tests.helpers.experiments import rows, trained

TEST = "test/performance/"
DIVERSITY = f"{TEST}members_diversity_at_0"
LEVELS = (1, 2, 5, 10)


def numbers(run, *, members=0.85, snapshots=0.5, worse=0.0, gain=0.04, subspace="", diversity=0.0, adds=0.0):
    """The numbers of a run if every claim held. Diversity of independent ``members`` and of ``snapshots``, which are
    ``worse`` by so much; ``gain``: of five members. Of the samples of ``subspace``: ``diversity`` and what it ``adds``,
    more than otherwise."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    independent = run["regularization"] == "ensemble"
    one = 0.66 - (0 if independent else worse) + noise(0, 0.003)
    found = {
        DIVERSITY: (members if independent else snapshots) + noise(0, 0.02),
        f"{TEST}accuracy_of_1": one,
        f"{TEST}accuracy_of_5": one + (gain if independent else 0.01) + noise(0, 0.003),
    }
    for kind in ("random",) if independent else ("random", "diagonal", "low_rank"):
        for level in LEVELS:
            more = (diversity, adds) if kind == subspace else (0, 0)
            found[f"{TEST}{kind}_diversity_at_{level}"] = 0.3 + 0.05 * level + more[0] + noise(0, 0.03)
            found[f"{TEST}{kind}_gain_at_{level}"] = more[1] + noise(0, 0.004)
    return found


WRONG = {
    "C1 random samples are as diverse": ("C1", {"subspace": "random", "diversity": 0.5}),
    "C2 diagonal samples are as diverse": ("C2", {"subspace": "diagonal", "diversity": 0.5}),
    "C2 low-rank samples are as diverse": ("C2", {"subspace": "low_rank", "diversity": 0.5}),
    "C3 one training is as diverse": ("C3", {"snapshots": 0.85}),
    "C3 its networks are worse": ("C3", {"worse": 0.05}),
    "C4 random samples add as much": ("C4", {"subspace": "random", "adds": 0.07}),
    "C4 diagonal samples add as much": ("C4", {"subspace": "diagonal", "adds": 0.07}),
    "C4 low-rank samples add as much": ("C4", {"subspace": "low_rank", "adds": 0.07}),
    "C4 five networks gain nothing": ("C4", {"gain": 0}),
}


@pytest.mark.parametrize("row", rows("fort2019"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=800", "data.test_size=200", "data.batch_size=50", "trainer.max_steps=400", "trainer.accelerator=cpu")  # fmt: skip  # noqa: E501
    found = trained(tmp_path, "experiment=fort2019", *row, *few)
    assert found[DIVERSITY] > 0
    for kind in ("random",) if "regularization=ensemble" in row else ("random", "diagonal", "low_rank"):
        assert found[f"{TEST}{kind}_diversity_at_10"] > 0
        assert -0.5 < found[f"{TEST}{kind}_gain_at_10"] < 0.5
    assert ("test/performance/low_rank_gain_at_1" in found) == ("regularization=snapshots" in row)


@pytest.mark.parametrize("scale", ["fort2019_paper", "fort2019_middle"])
def test_a_few_steps_at_larger_scales(scale, small, tmp_path):
    few = (f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=10", "model.width=4",
           "trainer.max_steps=5", "trainer.accelerator=cpu")  # fmt: skip
    assert trained(tmp_path, f"experiment={scale}", *rows(scale)[1], *few)[DIVERSITY] >= 0
