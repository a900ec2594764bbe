"""From the command to the end of its first training step on CIFAR-10 (parquet in the folder cifar10 of
GENBENCH_DATA), each time in a process of its own: cold, nothing decoded yet, and warm.

Wall-clock, and beside it processor time of all threads, which other work on the machine stretches less. The files
of parquet are as the system has them, in its memory as a rule. That a set of 20 GiB takes no more memory than the
batches in flight is a test: ``pytest tests/data/test_images.py -k memory``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import time

from benchmarks.common import Result, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5)


def measure(args: argparse.Namespace) -> list[Result]:
    folder = Path(os.environ.get("GENBENCH_DATA", "")) / "cifar10"
    if not (folder / "train.parquet").exists():
        print("left out: the environment variable GENBENCH_DATA names no folder with cifar10/train.parquet")
        return []
    settings = ["data=cifar10", f"data.path={folder}", "model=resnet18", "model.width=16"]
    settings += ["regularization=[flip,random_crop]"]
    print("| | until | s, wall-clock | s of processor time |\n|---|---|---|---|")
    rows = []
    for name, repeats in (("cold", 1), ("warm", args.repeats)):
        runs = []
        with tempfile.TemporaryDirectory() as cache:
            for seed in range(-1 if name == "warm" else 0, repeats):  # the first one fills the cache
                with tempfile.TemporaryDirectory() as runs_dir:
                    command = [sys.executable, "-c", _FIRST_STEP, str(time()), *settings, f"runs_dir={runs_dir}"]
                    environment = {**os.environ, "GENBENCH_CACHE": cache}
                    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                    runs += [json.loads(said.splitlines()[-1])] if seed >= 0 else []
        for part in runs[0]:
            wall, processor = (statistics.median(run[part][i] for run in runs) for i in range(2))
            print(f"| {name} | {part} | {wall:.1f} | {processor:.1f} |")
        spread = f"{min(run[part][0] for run in runs):.1f}–{max(run[part][0] for run in runs):.1f}"
        measured = f"{wall:.1f} s ({spread}), {processor:.1f} s of processor time"
        rows.append(Result(f"CIFAR-10 from the command to its first step, {name}", measured))
    return rows


# a process of its own, which prints when it had come how far: seconds since it was started, and of processor time
_FIRST_STEP = """
import json, os, sys, time
started, sys.argv = float(sys.argv[1]), ["genbench", *sys.argv[2:]]
marks = {}

def mark(name):
    marks.setdefault(name, [time.time() - started, time.process_time()])

from genbench import cli
from genbench.runs import plan
from genbench.training import Training
mark("libraries imported")
bind = plan.bind

def bound(config):
    mark("configuration composed")
    return bind(config)

plan.bind = bound
step = Training.training_step

def training_step(self, batch):
    step(self, batch)
    mark("first step")
    print("\\n" + json.dumps(marks), flush=True)
    os._exit(0)

Training.training_step = training_step
cli.train()
"""


if __name__ == "__main__":
    report(measure, __doc__, options)
