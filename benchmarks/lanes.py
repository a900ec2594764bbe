"""Milliseconds a lane and step, and memory, against the number of lanes: the step alone, one thread."""

import argparse
import multiprocessing
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.common import Result, network, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"])
    parser.add_argument("--most", type=int, default=512, help="lanes, a power of two")
    parser.add_argument("--figure", type=Path, help="draw it into this PNG file")


def measure(args: argparse.Namespace) -> list[Result]:
    print("| model | lanes | ms a lane and step | peak MiB |\n|---|---|---|---|")
    found: dict[str, list[tuple[int, float, int]]] = {}
    for model in args.models:
        for n in (2**i for i in range(args.most.bit_length())):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                seconds, memory = pool.submit(_packed_step, model, n).result()
            print(f"| {model} | {n} | {1e3 * seconds / n:.3f} | {memory} |", flush=True)
            found.setdefault(model, []).append((n, 1e3 * seconds / n, memory))
    if args.figure:
        args.figure.write_bytes(_drawn(found))
    return []


def _drawn(found: dict[str, list[tuple[int, float, int]]]) -> bytes:
    """The figure of ``lanes``: milliseconds and memory against the number of lanes."""
    from genbench.report.figures import style

    with style.context():
        figure, axes = style.blank(6.5, 2.6, columns=2)
        for (model, points), colour in zip(found.items(), style.COLOURS, strict=False):
            n, milliseconds, memory = zip(*points, strict=True)
            for axis, values in zip(axes[0], (milliseconds, memory), strict=True):
                axis.loglog(n, values, "o-", color=colour, markersize=3, label=model)
        for axis, title in zip(axes[0], ("ms a lane and step", "peak memory of the process, MiB"), strict=True):
            axis.set(title=title, xlabel="lanes", xticks=n, xticklabels=n)
            axis.minorticks_off()
        axes[0][0].set(yticks=(0.1, 0.2, 0.5, 1, 2, 5), yticklabels=(0.1, 0.2, 0.5, 1, 2, 5))
        axes[0][1].set(yticks=(500, 1000, 2000, 4000), yticklabels=(500, 1000, 2000, 4000))
        axes[0][0].legend()
    return style.saved(style.Drawing("lanes", "", "", figure), "png")


def _packed_step(model: str, n: int) -> tuple[float, int]:
    """Median seconds of a step of ``n`` lanes, and the peak memory of the process in MiB."""
    from functools import partial

    from genbench.process.memory import keep_freed
    from genbench.rng import StepRandom
    from genbench.training import Pack

    torch.set_num_threads(1)
    keep_freed()
    networks = []
    for seed in range(n):
        torch.manual_seed(seed)
        networks.append(network(model))
    optimizer = partial(torch.optim.Adam, lr=0.01)
    x, y = StepRandom(0, 0).normal("x", n, 100, 1, 40), torch.arange(100).expand(n, 100) % 10
    pack = Pack(networks, optimizer=optimizer, own_batches=True)
    update = pack.prepare(total_steps=100)
    seconds = []
    for step in range(3 + max(10, 200 // n)):
        start = perf_counter()
        pack.gradient_step(x, y, step=step)
        update.step()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[3:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    report(measure, __doc__, options)
