"""Processor seconds and memory of a ranking: a grid of seven hyperparameters with three values each, and measures that
follow the gap, a hyperparameter, or nothing. Beside it each of its parts alone.
"""

import argparse
import resource
from collections.abc import Callable
from itertools import product
from time import process_time
from typing import Any

from benchmarks.common import Result, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=2_187, help="more than 2,187 are further seeds of the grid")
    parser.add_argument("--measures", type=int, default=60)
    parser.add_argument("--parts", action="store_true", help="each part alone as well")


def measure(args: argparse.Namespace) -> list[Result]:
    import numpy as np
    import pandas as pd

    from genbench import analysis

    draw = np.random.default_rng(0)
    axes = [f"axis{index}" for index in range(7)]
    grid = list(product(range(3), repeat=7))
    frame = pd.DataFrame([grid[run % len(grid)] for run in range(args.runs)], columns=axes)
    main = frame.to_numpy() @ draw.normal(size=7)
    frame["gap"] = (0.3 + 0.03 * main + 0.02 * draw.normal(size=len(frame))).clip(0, 1)
    names = [f"measure{index}" for index in range(args.measures)]
    sources = [frame["gap"] * 20, frame["axis1"], main, np.zeros(len(frame))]
    values = {name: sources[i % 4] + draw.normal(size=len(frame)) for i, name in enumerate(names)}
    frame = pd.concat([frame, pd.DataFrame(values)], axis=1)
    settings: dict[str, Any] = {"gap": "gap", "measures": names, "hyperparameters": axes}
    parts: dict[str, Callable[[], Any]] = {"ranking": lambda: analysis.rank(frame, **settings, test_size=10_000)}
    if args.parts:
        parts |= {
            "τ, τ-b, ρ": lambda: analysis.correlations(frame, **settings),
            "Ψ": lambda: analysis.granulated(frame, **settings),
            "sign errors": lambda: analysis.sign_errors(frame, **settings, test_size=10_000),
            "τ in each part": lambda: analysis.stability(frame, **settings),
            "mutual information": lambda: analysis.conditional_mutual_information(frame, **settings),
            "within configurations": lambda: analysis.partial_association(frame, **settings),
            "out of sample": lambda: analysis.out_of_sample(frame, **settings),
        }
    found = []
    for name, part in parts.items():
        start = process_time()
        part()
        found.append(Result(f"{name}, {args.runs:,} runs × {args.measures}", f"{process_time() - start:.1f} s"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [*found, Result("largest memory of the process", f"{peak:.2f} GiB")]


if __name__ == "__main__":
    report(measure, __doc__, options)
