"""Benchmarks run: what they measure is their own affair, that they still fit the code is not."""

import argparse
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import curvature, gpu, peers
from benchmarks.__main__ import NAMES
from benchmarks.common import Result, network
from genbench.measures import Snapshot, gauss_newton_trace

SMALL = {
    "claims": ["--records=128", "--claims=5"],
    "measure_lanes": ["--lanes=2", "--examples=20", "--turns=1"],
    "start": ["--repeats=1", "--seeds=2", "--steps=2"],
    "stream": ["--repeats=1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_measures(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser()
    module.options(parser)
    args, threads = parser.parse_args(SMALL[name]), torch.get_num_threads()
    try:
        rows = module.measure(args)
    finally:
        torch.set_num_threads(threads)
    assert rows or re.search(r"\d", capsys.readouterr().out), "its table holds a number"
    assert all(re.match(r"[\d.]+", row.measured) for row in rows)


@pytest.mark.timeout(600)
def test_all_parts_of_the_benchmark_of_a_gpu_are_rehearsed_and_kept(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    gpu.options(parser)
    file, threads = tmp_path / "gpu.json", torch.get_num_threads()
    try:
        rows = gpu.measure(parser.parse_args(["--rehearse", "--models=mlp", f"--json={file}"]))
    finally:
        torch.set_num_threads(threads)
    found = json.loads(file.read_text())
    assert found["failed"] == {}
    assert [part for part in gpu.PARTS if not found[part]] == []
    assert [row["measured"] for row in found["results"]] == [row.measured for row in rows]
    assert all(re.match(r"[\d.]+", row.measured) for row in rows)
    (tests,) = found["tests"]
    assert tests["skipped" if not torch.cuda.is_available() else "passed"] == tests["tests"] > 80
    assert {row["way"] for row in found["sweeps"]} == {"packed", "one by one", "packed, one process"}
    told = capsys.readouterr().out
    assert all(f"left out of {what}" in told for what in found["left out"])
    assert peers.Curvlinops.installed() or "curvature: curvlinops 3.0: it is not installed here" in found["left out"]


def test_the_parts_of_the_benchmark_of_a_gpu_take_eight_minutes_at_most():
    """With half a minute for the start; what has not begun by then is left out, and so is what would not end."""
    assert sum(seconds for _, seconds in gpu.PARTS.values()) <= 480 - 25
    room = gpu.Room(60)
    assert room.has("short", 1)
    assert not room.has("long", 100)
    assert room.left_out == ["long: its time was over"]
    assert gpu._command(["-c", "import time; print('so far', flush=True); time.sleep(100)"], 5) == (None, "so far\n")


def test_a_part_of_the_benchmark_of_a_gpu_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def broken(args, room):
        yield {"number": 1}
        raise RuntimeError("a kernel is missing")

    def whole(args, room):
        yield Result("a number", "2")

    monkeypatch.setattr(gpu, "PARTS", {"first": (broken, 1), "second": (whole, 1)})
    args = argparse.Namespace(rehearse=True, json=tmp_path / "gpu.json", parts=["first", "second"])
    assert gpu.measure(args) == [Result("a number", "2")]
    found = json.loads(args.json.read_text())
    assert found["first"] == [{"number": 1}]
    assert found["failed"] == {"first": "RuntimeError: a kernel is missing"}


def test_tests_that_pass_fail_and_are_skipped_are_counted(tmp_path):
    file = tmp_path / "test_three.py"
    file.write_text(
        "import pytest\n\n@pytest.mark.parametrize('i', range(3))\ndef test_three(i):\n"
        "    if i == 2:\n        pytest.skip('why')\n    assert i, 'nought'\n"
    )
    row, line = gpu._tests(argparse.Namespace(rehearse=True), gpu.Room(200), file)
    assert {name: row[name] for name in ("tests", "passed", "failed", "skipped")} == {
        "tests": 3,
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    assert ["test_three[0]" in why and "nought" in why for why in row["failures"]] == [True]
    assert line.measured == "1; 1; 1"


def test_the_exact_values_that_libraries_are_compared_with():
    """The eigenvalues of float64 ARPACK and the trace of the Gauss–Newton matrix are genbench's own, of a CNN."""
    torch.manual_seed(0)
    model, x, y = network("cnn"), torch.randn(40, 1, 40), torch.arange(40) % 10
    ours = peers.Ours(model, x, y)
    assert ours.eigenvalues(1e-4, 0) == pytest.approx(curvature._arpack(model, x, y)[:5], rel=1e-3)
    exact = float(gauss_newton_trace(Snapshot(model, F.cross_entropy, [(x, y)]), probes=200, seed=0).value)
    assert curvature._exact_trace(model, x, y) == pytest.approx(exact, rel=0.02)


def test_all_of_them_are_run_together_and_each_says_what_it_measures():
    folder = Path(__file__).parents[1] / "benchmarks"
    claims = [path.stem for path in folder.glob("*.py") if "\ndef measure(" in path.read_text()]
    assert sorted(claims) == NAMES
    assert all(importlib.import_module(f"benchmarks.{name}").__doc__ for name in NAMES)
