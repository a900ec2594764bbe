"""Kills at random times, 20 here and 200 with ``pytest -m kills``: nothing is ever half written, and the runs end as if
nobody had touched them."""

import contextlib
import multiprocessing
import os
import random
import time

import pytest

from genbench import records
from genbench.runs import execute
from genbench.training import AtomicCheckpointIO

SETTINGS = (
    "checkpoint_seconds=0", "regularization=[dropout,swa]", "trainer.max_steps=60", "scheduler=cosine",
    "~measures.trace", "~measures.adaptive_sharpness", "~measures.average_sharpness", "~measures.lambda_1",
    "+callbacks.counts._target_=tests.helpers.faults.Counts", f"+callbacks.counts.file={os.devnull}",
    "+callbacks.counts.seconds=0.01",
)  # fmt: skip


def one_by_one(plains):
    return [execute.run(plain) for plain in plains]


def together(plains):
    return execute.run_packed(plains, choices=[{}] * len(plains), overrides=[()] * len(plains))


def assert_whole(folder):
    """What lies there can be read, and belongs together."""
    found = records.load(folder)
    assert found.problems == []
    for record in found.records:
        assert records.verify(folder / record["run_id"])["status"] == "completed"
    for path in folder.rglob("*.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)
    for path in folder.glob("*/metrics.csv"):
        assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "kills", [10, pytest.param(100, marks=[pytest.mark.kills, pytest.mark.timeout(3600)])], ids=["10", "100"]
)
@pytest.mark.parametrize("train", [one_by_one, together])
def test_killed_at_random_times_runs_end_as_if_nobody_had_touched_them(configure, tmp_path, train, kills):
    runs = max(2, kills // 10)
    plains = configure(*SETTINGS, each=[{"seed": seed} for seed in range(runs)])
    started = time.monotonic()
    whole = train([{**plain, "runs_dir": str(tmp_path / "whole")} for plain in plains])
    took = time.monotonic() - started
    draw = random.Random()
    folder = tmp_path / "runs" / "default"
    lives = []
    for _ in range(kills):
        process = multiprocessing.get_context("fork").Process(target=train, args=(plains,))
        process.start()
        lives.append(draw.uniform(0, took / 2))
        process.join(lives[-1])
        process.kill()
        process.join()
        with contextlib.suppress(FileNotFoundError):
            assert_whole(folder)
    found = train(plains)
    print(f"killed after {', '.join(f'{life:.2f}' for life in lives)} s")
    for ours, theirs in zip(found, whole, strict=True):
        assert (ours["status"], ours["metrics"]) == ("completed", theirs["metrics"])
        assert ours["files"]["weights.pt"] == theirs["files"]["weights.pt"]
    assert_whole(folder)
    assert not list(folder.rglob("*.ckpt"))
