"""arpit2017: numbers that violate a claim do not replicate it; a few steps of each row train at every scale."""

import random

import pytest

from tests.helpers.experiments import node, rows, trained

NOISE, INPUTS, METHODS = "data.label_noise", "data.inputs", "regularization"
TEST, LOWEST, TRAIN, THEN = (
    "test/performance/error", "test/trajectory/lowest", "train/performance/error", "train/trajectory/error_then"
)  # fmt: skip
CRITICAL, CRITICAL_THEN = "test/robustness/critical_sample_ratio", "test/trajectory/critical_then"
DISPERSION = "train/performance/difficulty_dispersion"
LEVELS = (0.2, 0.4, 0.6, 0.8)


def numbers(run, *, at=None, unfitted=0.9, rise=0.15, true_rise=0.003, critical=(0.1, 0.4, 0.6, 0.7, 0.8), inputs=0.8,
            growth=0.3, dispersion=(12.0, 4.0, 1.0), hindered=0.6, harm=0.0):  # fmt: skip
    """The numbers of a run if every claim held.

    Args:
        at: the share of noise that the first two and ``growth`` are about; None: all.
        unfitted: the share of the noise that is not fitted at the lowest test error.
        rise: of the test error from there to the end, with noise; with true labels: ``true_rise``.
        critical: ratio of critical samples at the end, by the noise.
        inputs: the same on random inputs.
        growth: of the ratio from the lowest test error.
        dispersion: on true data, with random labels, on random inputs.
        hindered: by which dropout raises the train error with random labels.
        harm: by which it raises the test error with true labels.
    """
    noise = random.Random(repr(sorted(run.items(), key=repr))).gauss
    level, random_inputs = run[NOISE], run[INPUTS] == "gaussian"
    if run[METHODS] == "ensemble":
        kind = 2 if random_inputs else int(level == 1)
        return {DISPERSION: dispersion[kind] * (1 + noise(0, 0.02))}
    if at not in (None, level):
        unfitted, rise, growth = 0.9, 0.15, 0.3
    lowest = 0.04 + 0.3 * level
    dropped = run[METHODS] == "dropout"
    end = inputs if random_inputs else critical[min(round(5 * level), 4)]
    rise = rise if level else true_rise
    return {
        THEN: unfitted * level + noise(0, 0.005),
        LOWEST: lowest + noise(0, 0.002),
        TEST: lowest + rise + (harm if dropped else 0) + noise(0, 0.002),
        TRAIN: (hindered if dropped and level == 1 else 0) + abs(noise(0, 0.002)),
        CRITICAL: end + noise(0, 0.01),
        CRITICAL_THEN: end - growth + noise(0, 0.01),
    }


WRONG = {
    **{f"C1a half is fitted at {p}": ("C1a", {"unfitted": 0.3, "at": p}) for p in LEVELS[1:]},
    **{f"C1b it stays at {p}": ("C1b", {"rise": 0.0, "at": p}) for p in LEVELS},
    "C1b it rises with true labels": ("C1b", {"true_rise": 0.05}),
    "C2a it falls": ("C2a", {"critical": (0.8, 0.7, 0.6, 0.4, 0.1)}),
    "C2a it is the same": ("C2a", {"critical": (0.5,) * 5}),
    "C2a it rises too little": ("C2a", {"critical": (0.4, 0.43, 0.46, 0.49, 0.52)}),
    "C2b it is the same": ("C2b", {"inputs": 0.1}),
    **{f"C2c it stays at {p}": ("C2c", {"growth": 0.0, "at": p}) for p in LEVELS},
    "C3a all are as difficult": ("C3a", {"dispersion": (1.0, 0.2, 0.2)}),
    "C3a with random labels too": ("C3a", {"dispersion": (12.0, 12.0, 1.0)}),
    "C3a on random inputs too": ("C3a", {"dispersion": (12.0, 4.0, 12.0)}),
    "C3b they differ": ("C3b", {"dispersion": (12.0, 4.0, 2.0)}),
    "C4 noise is memorized": ("C4", {"hindered": 0.0}),
    "C4 generalization suffers": ("C4", {"harm": 0.05}),
}


@pytest.mark.parametrize("row", rows("arpit2017"), ids=str)
def test_a_few_steps_of_each_row_on_the_laptop(row, tmp_path):
    few = ["data.train_size=100", "data.batch_size=10", "trainer.max_steps=4"]
    if "regularization=ensemble" in row:
        found = trained(tmp_path, "experiment=arpit2017", *row, *few, "regularization.ensemble.members=3")
        assert 0 < found[DISPERSION] <= 3
        assert found["train/performance/difficulty_q5"] <= found["train/performance/difficulty_q95"]
    else:
        found = trained(tmp_path, "experiment=arpit2017", *row, *few, "callbacks.test_error.every_n_steps=[2,4]")
        assert found[LOWEST] <= found[TEST]
        assert 0 <= found[CRITICAL_THEN] <= 1


@pytest.mark.parametrize("scale", ["arpit2017_middle", "arpit2017_paper"])
def test_a_few_steps_on_images(scale, small, tmp_path):
    few = (
        f"data.path={small}", "data.hub=null", "data.train_size=40", "data.batch_size=8", "model.width=4",
        "trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks.critical.examples=8",
    )  # fmt: skip
    for index, row in enumerate(rows(scale)):
        if "regularization=ensemble" in row:
            row = (*row, "regularization.ensemble.members=3")
            assert 0 < trained(tmp_path / f"{index}", f"experiment={scale}", *few, *row, *few[3:6])[DISPERSION] <= 3
        else:
            found = trained(
                tmp_path / f"{index}", f"experiment={scale}", *few, *row, "callbacks.test_error.every_n_steps=[2,4]"
            )
            assert found[LOWEST] <= found[TEST]


def test_the_search_for_critical_samples_is_to_the_box_as_the_paper_s():
    """A step of 0.25 and noise of 0.2 to a box of 0.3."""
    own = node("arpit2017")["callbacks"]["critical"]["measures"]["critical_sample_ratio"]
    assert own["step_size"] / own["radius"] == pytest.approx(0.25 / 0.3)
    assert own["noise"] / own["radius"] == pytest.approx(0.2 / 0.3)
