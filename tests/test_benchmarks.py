"""Benchmarks run: what they measure is their own affair, that they still fit the code is not."""

import argparse
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import curvature, peers
from benchmarks.__main__ import NAMES
from benchmarks.common import network
from genbench.measures import Snapshot, gauss_newton_trace

SMALL = {
    "claims": ["--records=128", "--claims=5"],
    "measure_lanes": ["--lanes=2", "--examples=20", "--turns=1"],
    "gpu": ["--rehearse", "--models=mlp"],
    "start": ["--repeats=1", "--seeds=2", "--steps=2"],
    "stream": ["--repeats=1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_measures(name, capsys, tmp_path):
    module = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser()
    module.options(parser)
    args, threads = parser.parse_args(SMALL[name]), torch.get_num_threads()
    if hasattr(args, "json"):
        args.json = tmp_path / "found.json"
    try:
        rows = module.measure(args)
    finally:
        torch.set_num_threads(threads)
    assert rows or re.search(r"\d", capsys.readouterr().out), "its table holds a number"
    assert all(re.match(r"[\d.]+", row.measured) for row in rows)
    if hasattr(args, "json"):
        assert [row["measured"] for row in json.loads(args.json.read_text())["results"]] == [r.measured for r in rows]


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
