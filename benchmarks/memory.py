"""Peak resident memory of one ablation run, each in a fresh process of its own (libraries included)."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.common import Result, ablation, report


def measure(args: argparse.Namespace) -> list[Result]:
    rows = []
    for method in ("none", "sam", "ensemble"):
        with (
            tempfile.TemporaryDirectory() as runs,
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            peak = pool.submit(_peak_memory, ablation(method, f"runs_dir={runs}")).result() / 2**20
        rows.append(Result(f"peak memory of an ablation run, {method}", f"{peak:.0f} MiB"))
    return rows


def _peak_memory(config: dict[str, Any]) -> int:
    """Bytes, of this process at its largest, after one run."""
    from genbench.runs import execute

    record = execute.run(config)
    assert record is not None
    assert record["status"] == "completed", record["error"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    report(measure, __doc__)
