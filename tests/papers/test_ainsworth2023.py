"""ainsworth2023: numbers that violate a claim do not replicate it; a few steps of each row train."""

import random

import pytest

from tests.helpers.experiments import rows, trained

BARRIER, MATCHED = "train/flatness/member_barrier", "train/flatness/member_matched_barrier"
TEST = "test/flatness/member_matched_barrier"
EARLY, LATE = (f"train/trajectory/matched_at_{step}" for step in (100, 800))


def numbers(run, *, task="", width=None, plain=None, matched=None, test=0.0, early=None, late=None):
    """The numbers of a run if every claim held. ``plain``, ``matched``, ``early``, ``late``: the barriers of ``task``
    at ``width`` (None: at each). ``test``: the matched barrier on test data of wide networks on digits."""
    noise = random.Random(repr(sorted(run.items(), key=repr))).uniform
    label, units = run["data.label_noise"], run["model.width"]
    own = "random" if label else run["data"]
    left = {"digits": {16: 0.8, 64: 0.1, 256: 0.005}, "mnist1d": {16: 1.1, 64: 1.5, 256: 0.45}}.get(own, {})
    values = {BARRIER: 3.5 if units == 16 else 2.0, MATCHED: left.get(units, 1.6)}
    values[LATE] = values[MATCHED]
    values[EARLY] = values[MATCHED] * (5 if own == "digits" else 0.8)
    if own == task and width in (None, units):
        given = {BARRIER: plain, MATCHED: matched, EARLY: early, LATE: late}
        values |= {key: value for key, value in given.items() if value is not None}
    values[TEST] = test if own == "digits" else 0.0
    return {key: value * (1 + noise(-0.05, 0.05)) for key, value in values.items()}


WRONG = {
    "C1 narrow networks have none": ("C1", {"task": "digits", "width": 16, "plain": 0.1, "matched": 0.01}),
    "C1 wide ones have none": ("C1", {"task": "digits", "width": 256, "plain": 0.1, "matched": 0.01}),
    "C2 half is left": ("C2", {"task": "digits", "width": 64, "matched": 1.0}),
    "C3 it stays": ("C3", {"task": "digits", "matched": 0.1}),
    "C4 some is left on train data": ("C4", {"task": "digits", "width": 256, "matched": 0.05}),
    "C4 some is left on test data": ("C4", {"test": 0.05}),
    "C5 it was there early": ("C5", {"task": "digits", "width": 256, "early": 0.005, "late": 0.005}),
    "C6 MNIST-1D has none": ("C6", {"task": "mnist1d", "width": 256, "matched": 0.01}),
    "C6 it falls there": ("C6", {"task": "mnist1d", "width": 256, "early": 1.0, "late": 0.3}),
    "C7 random labels have none": ("C7", {"task": "random", "width": 256, "matched": 0.1}),
    "C8 matching takes most of it": ("C8", {"task": "random", "width": 256, "matched": 0.6}),
}


@pytest.mark.parametrize("row", rows("ainsworth2023"), ids=str)
def test_a_few_steps_of_each_row(row, tmp_path):
    few = ("data.train_size=100", "data.batch_size=20", "trainer.max_steps=20", "model.width=8",
           "trainer.accelerator=cpu", "callbacks.basins.every_n_epochs=2",
           "callbacks.trajectory.metrics.matched.steps=[10,20]",
           "callbacks.trajectory.metrics.plain.steps=[10,20]")  # fmt: skip
    found = trained(tmp_path, "experiment=ainsworth2023", *row, *few)
    assert found["train/trajectory/matched_at_20"] == pytest.approx(found[MATCHED])
    assert found["train/trajectory/plain_at_20"] == pytest.approx(found[BARRIER])
    assert found[TEST] >= 0
