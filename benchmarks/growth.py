"""Peak resident memory of curvature (five products, and a trace of four) on 1, 10 and 100 times the 4,000 examples,
read in batches of 1,000, each in a fresh process of its own.
"""

import argparse
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import Result, report, trained


def measure(args: argparse.Namespace) -> list[Result]:
    peaks = []
    for times in (1, 10, 100):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak_curvature, times).result() / 2**20)
    text = ", ".join(f"{peak:.0f}" for peak in peaks) + " MiB"
    return [Result("peak memory of curvature on 1, 10, 100 × 4,000 examples", text)]


def _peak_curvature(times: int) -> int:
    """Bytes, of this process at its largest, after curvature on ``times`` × 4,000 examples."""
    from genbench.measures import Snapshot, hessian_eigenvalues, hessian_trace

    model, x, y = trained("mlp", steps=10)

    class Loader:
        def __iter__(self) -> Any:
            for _ in range(times):
                yield from zip(x.split(1000), y.split(1000), strict=True)

    torch.set_num_threads(1)
    snapshot = Snapshot(model, F.cross_entropy, Loader())
    hessian_eigenvalues(snapshot, max_steps=5, tolerance=1e-12)
    hessian_trace(snapshot, deflation=5, probes=4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    report(measure, __doc__)
