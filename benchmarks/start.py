"""Seconds of a command in which nothing trains: from its start until the first step is done, and from the last record
to its end; of one run and of a packed sweep over seeds, each in an empty folder. And the slow imports of the process
that sweeps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Result, report

# a callback that notes when the first step is done
CLOCK = """
import time
from pathlib import Path
import pytorch_lightning as pl
class Clock(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == 1:
            Path(str(time.time())).touch()
"""
# the command, which tells at its end what it has imported
COMMAND = """
import json, sys
from genbench.cli import train
try:
    train()
finally:
    open("imported", "w").write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
SLOW = ("torch", "pytorch_lightning", "torchmetrics", "scipy", "pandas", "matplotlib")


class Taken(NamedTuple):
    """Seconds to the first step and after the last record, and the slow imports of the command's own process."""

    begin: float
    end: float
    imported: list[str]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)


def measure(args: argparse.Namespace) -> list[Result]:
    steps = f"trainer.max_steps={args.steps}"
    commands = {
        "genbench": [steps],
        f"genbench -m hydra/launcher=packed 'seed=range({args.seeds})'": [
            *("-m", "hydra/launcher=packed", f"seed=range({args.seeds})", steps)
        ],
    }
    found: dict[str, list[Taken]] = {name: [] for name in commands}
    for _ in range(args.repeats):
        for name, words in commands.items():
            found[name].append(taken(words))
    rows = []
    for name, runs in found.items():
        for what, seconds in (
            ("start to the first step, s", [run.begin for run in runs]),
            ("last record to the end, s", [run.end for run in runs]),
        ):
            middle = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})"
            rows.append(Result(f"`{name}`: {what}", middle))
        print(f"{name}: its own process imports {', '.join(runs[0].imported)}")
    return rows


def taken(words: list[str]) -> Taken:
    """Run ``genbench`` with these words in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "clock.py").write_text(CLOCK)
        paths = [folder, str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        begun = time.time()
        subprocess.run(
            [sys.executable, "-c", COMMAND, *words, "+callbacks.clock={_target_:clock.Clock}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        ended = time.time()
        first = min(float(path.name) for path in Path(folder).glob("[0-9]*.[0-9]*"))
        last = max(path.stat().st_mtime for path in Path(folder).glob("runs/*/*/record.json"))
        imported = json.loads((Path(folder) / "imported").read_text())
    return Taken(first - begun, ended - last, [name for name in SLOW if name in imported])


if __name__ == "__main__":
    report(measure, __doc__, options)
