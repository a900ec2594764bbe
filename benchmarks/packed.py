"""Wall-clock of whole commands, from process start to records, table and report written: the same sweep over seeds
with Hydra's basic launcher (one run after the other), on two processes, and packed; measures off and on.

The setting of the ablation without methods (1,000 examples, Adam, batch 100).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.common import Result, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=("mlp", "cnn"), default=["mlp", "cnn"])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3000)


def measure(args: argparse.Namespace) -> list[Result]:
    rows = []
    shared = ["data.train_size=1000", "data.val_fraction=0.2", "optimizer.lr=0.01", f"trainer.max_steps={args.steps}"]
    off = [f"callbacks.{name}=null" for name in ("gap", "weight_norms", "measures")]
    for model in args.models:
        for measures, more in (("off", off), ("on", [])):
            taken: dict[str, float] = {}
            launchers = ("packed", "processes", "basic")
            for launcher in launchers:
                with tempfile.TemporaryDirectory() as folder:
                    chosen = [f"hydra/launcher={launcher}", f"model={model}", f"seed=range({args.seeds})"]
                    command = [str(Path(sys.executable).with_name("genbench")), "-m", *chosen, *shared, *more]
                    start = perf_counter()
                    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                    taken[launcher] = perf_counter() - start
                print(f"{model}, measures {measures}, {launcher}: {taken[launcher]:.1f} s", flush=True)
            for launcher in launchers[1:]:
                ratio = taken[launcher] / taken["packed"]
                what = f"{model}, {args.seeds} seeds × {args.steps} steps, measures {measures}: packed, × faster than"
                rows.append(Result(f"{what} {launcher}", f"{ratio:.1f}"))
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
