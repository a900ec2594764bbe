"""``measures=full`` on the trained MLP and its 4,000 examples, sharpness on 1,024 of them as in a run, with
two threads and with one.
"""

import argparse
import statistics
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import Result, full_measures, report, trained


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5)


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench.measures import Snapshot
    from genbench.measures.base import evaluate

    measures = full_measures()
    model, x, y = trained("mlp", steps=2000)
    torch.manual_seed(0)
    initial = type(model)(input_shape=(1, 40), classes=10).state_dict()

    def measured(measures: dict[str, Any]) -> dict[str, Any]:
        whole = Snapshot(model, F.cross_entropy, [(x, y)], initial=initial)
        return evaluate(measures, whole, split="train", few=whole.on([(x[:1024], y[:1024])]))

    rows = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        seconds = []
        for _ in range(args.repeats):
            start = perf_counter()
            found = measured(measures)
            seconds.append(perf_counter() - start)
        middle, spread = statistics.median(seconds), f"{min(seconds):.1f}–{max(seconds):.1f}"
        what = f"`measures=full` on the MLP, {len(found)} values, {threads} thread{'s' * (threads > 1)}"
        rows.append(Result(what, f"{middle:.1f} s ({spread})"))
    torch.set_num_threads(1)
    cost: dict[str, float] = {}
    for name, function in measures.items():
        start = perf_counter()
        measured({name: function})
        cost[name] = perf_counter() - start
    print("| alone, one thread | seconds |\n|---|---|")
    for name in sorted(cost, key=lambda key: -cost[key])[:10]:
        print(f"| {name} | {cost[name]:.2f} |")
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
