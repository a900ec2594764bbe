"""SIGTERM and SIGUSR1 end whole commands within seconds and with one line; nothing that was trained is done again."""

import signal
import time

import pytest

from genbench import records
from tests.helpers.commands import ended_by, start

STEPS = 60  # an epoch has 40
SETTINGS = [
    "trainer.accelerator=cpu", f"trainer.max_steps={STEPS}", "data.train_size=200", "data.batch_size=5",
    "checkpoint_seconds=1000000", "~callbacks.measures", "+callbacks.counts._target_=tests.helpers.faults.Counts",
    "+callbacks.counts.file=steps.txt",
]  # fmt: skip


@pytest.fixture
def work(tmp_path):
    """An empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("number", "arguments", "checkpoints"),
    [
        (signal.SIGUSR1, [], "*/checkpoint.ckpt"),
        (signal.SIGTERM, ["-m", "seed=0,1"], "*/checkpoint.ckpt"),
        (signal.SIGTERM, ["-m", "seed=0,1", "hydra/launcher=packed", "hydra.launcher.n_jobs=1"], "packs/*.ckpt"),
    ],
    ids=["run", "sweep", "pack"],
)
def test_a_command_that_is_asked_to_end_loses_no_step(work, number, arguments, checkpoints):
    steps = work / "steps.txt"
    runs = 2 if arguments else 1
    process = start(work, *arguments, *SETTINGS)
    deadline = time.monotonic() + 120
    while not (steps.exists() and steps.stat().st_size >= 5 * runs) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ended_by(process, number, within=30)
    folder = work / "runs" / "default"
    assert len(list(folder.glob(checkpoints))) == (1 if "packs" in checkpoints else runs)
    assert not list(folder.glob("*/record.json"))
    before = steps.stat().st_size
    assert 5 * runs <= before < 40 * runs
    process = start(work, *arguments, *SETTINGS)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert steps.stat().st_size == STEPS * runs
    assert [record["status"] for record in records.load(folder).records] == ["completed"] * runs
