"""What the several ascents of SAM and adaptive sharpness cost and find, beside one: processor seconds on 1,024
examples of the trained MLP, each with a snapshot of its own, in turns.
"""

import argparse
import statistics
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import Result, in_turns, report, trained


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000, help="training steps before the measurement")


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench.measures import Snapshot, adaptive_sharpness, sam_sharpness

    model, x, y = trained("mlp", steps=args.steps)
    rows_of = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:1024]

    def run(function: Any, number: int) -> dict[str, Any]:
        start = process_time()
        found = function(Snapshot(model, F.cross_entropy, [(x[rows_of], y[rows_of])]), starts=number)
        return {"cpu": process_time() - start, "found": found}

    most = {"sam_sharpness": (sam_sharpness, 8), "adaptive_sharpness": (adaptive_sharpness, 4)}
    chosen = {(name, n): function for name, (function, default) in most.items() for n in (1, default)}
    candidates = {f"{name}, {n}": lambda _, f=f, n=n: run(f, n) for (name, n), f in chosen.items()}
    results = in_turns(candidates, repeats=args.repeats)
    rows = []
    for name, (_, n) in most.items():
        one, several = results[f"{name}, 1"], results[f"{name}, {n}"]
        seconds = [statistics.median(r["cpu"] for r in runs) for runs in (one, several)]
        ratios = [b["cpu"] / a["cpu"] for a, b in zip(one, several, strict=True)]
        gain = several[0]["found"].value / one[0]["found"].value
        print(f"{name}: {several[0]['found'].note}; {gain:.3f} × the value of one start")
        what = f"`{name}` on 1,024 examples of the MLP, `starts=1`; `starts={n}` (the default): processor seconds"
        text = f"{seconds[0]:.2f}; {seconds[1]:.2f}, × {statistics.median(ratios):.1f}"
        rows.append(Result(what, f"{text} ({min(ratios):.1f}–{max(ratios):.1f})"))
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
