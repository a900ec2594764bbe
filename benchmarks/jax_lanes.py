"""Wall-clock of whole commands: a sweep over seeds by genbench, and by two processes of ``jax_seeds.py``, in turns.

The MLP 40-100-100-10 on 800 examples of MNIST-1D, batch 100, Adam; process start, compilation and accuracies
included. JAX may be installed elsewhere: ``--python PATH`` names an interpreter that has it.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Result, in_turns, report

PROGRAM = Path(__file__).with_name("jax_seeds.py")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has JAX")


def measure(args: argparse.Namespace) -> list[Result]:
    if subprocess.run([args.python, "-c", "import jax"], capture_output=True).returncode:
        print(f"{args.python} has no JAX: left out; --python PATH names an interpreter that has it")
        return []
    rows = []
    for seeds in args.seeds:
        candidates = {
            "genbench": partial(_ours, seeds=seeds, steps=args.steps),
            "JAX": partial(_theirs, seeds=seeds, steps=args.steps, python=args.python),
        }
        results = in_turns(candidates, repeats=args.repeats)
        for name, runs in results.items():
            seconds = ", ".join(f"{run['seconds']:.1f}" for run in runs)
            print(f"{seeds} seeds, {name}: {seconds} s; mean test accuracy {runs[0]['accuracy']:.3f}", flush=True)
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(results["genbench"], results["JAX"], strict=True)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
        rows.append(
            Result(f"{seeds} seeds: the time of genbench, × that of two JAX processes", f"{middle:.2f} ({spread})")
        )
    return rows


def _ours(_: int, *, seeds: int, steps: int) -> dict[str, Any]:
    """The mean test accuracy of a packed sweep."""
    off = [f"callbacks.{name}=null" for name in ("gap.every_n_epochs", "weight_norms", "measures")]
    data = ["data.train_size=1000", "data.val_fraction=0.2", "optimizer.lr=0.01", f"trainer.max_steps={steps}"]
    command = [Path(sys.executable).with_name("genbench"), "-m", "hydra/launcher=packed", f"seed=range({seeds})"]
    nowhere = subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, *data, *off], cwd=folder, check=True, stdout=nowhere, stderr=nowhere)
        made = [json.loads(path.read_text()) for path in Path(folder).glob("runs/default/*/record.json")]
    return {"accuracy": statistics.mean(one["metrics"]["test/performance/accuracy"] for one in made)}


def _theirs(_: int, *, seeds: int, steps: int, python: str) -> dict[str, Any]:
    """The mean test accuracy of half of the seeds in each of two processes, on a core each."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            "x": data["x"][:800],
            "y": data["y"][:800],
            "x_test": data["x_test"],
            "y_test": data["y_test"],
        }
        np.savez(f"{folder}/data.npz", **{name: a.astype("f" if name[0] == "x" else "i") for name, a in sets.items()})
        halves = (0, seeds // 2), (seeds // 2, seeds)
        started = [
            subprocess.Popen(
                [python, PROGRAM, "data.npz", f"{first}.csv", str(first), str(last), str(steps)],
                cwd=folder,
                preexec_fn=partial(os.sched_setaffinity, 0, {core}),
            )
            for (first, last), core in zip(halves, cores, strict=False)
        ]
        if max(process.wait() for process in started):
            raise RuntimeError("the JAX program failed")
        texts = [(Path(folder) / f"{first}.csv").read_text().splitlines() for first, _ in halves]
    return {"accuracy": statistics.mean(float(row["test accuracy"]) for text in texts for row in csv.DictReader(text))}


if __name__ == "__main__":
    report(measure, __doc__, options)
