"""Fresh MNIST-1D signals as ``data=mnist1d_stream`` makes them, in batches, against the generator of the package
``mnist1d``, which makes one signal at a time: processor time, both on one thread.
"""

import argparse
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

from benchmarks.common import Result, in_turns, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=9)


def measure(args: argparse.Namespace) -> list[Result]:
    from mnist1d.data import get_dataset_args, make_dataset

    from genbench.data.mnist1d_stream import Signals
    from genbench.process.memory import keep_freed
    from genbench.rng import StepRandom

    keep_freed()
    source, package = Signals(), get_dataset_args()

    def ours(seed: int, n: int) -> dict[str, Any]:
        start, batches = process_time(), max(1, 10_000 // n)
        for step in range(batches):
            source.sample(n, StepRandom(seed, step))
        return {"each": (process_time() - start) / (batches * n)}

    def theirs(seed: int) -> dict[str, Any]:
        package.seed, package.num_samples, start = seed, 500, process_time()
        make_dataset(package)
        return {"each": (process_time() - start) / package.num_samples}

    sizes = (100, 1000, 10_000)
    candidates: dict[str, Callable[[int], dict[str, Any]]] = {"mnist1d": theirs}
    candidates |= {f"genbench, {n:,} at a time": lambda seed, n=n: ours(seed, n) for n in sizes}
    found = in_turns(candidates, repeats=args.repeats)
    seconds = {name: [1e6 * run["each"] for run in runs] for name, runs in found.items()}
    print("| | µs a signal, median | min–max |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {statistics.median(taken):.2f} | {min(taken):.2f}–{max(taken):.2f} |")
    rows, package_seconds = [], seconds.pop("mnist1d")
    for name, taken in seconds.items():
        ratios = [b / a for a, b in zip(taken, package_seconds, strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.0f}–{max(ratios):.0f}"
        what = f"fresh MNIST-1D signals, {name.removeprefix('genbench, ')}: × faster than the package mnist1d"
        rows.append(Result(what, f"{middle:.0f} ({spread})"))
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
