"""Wall-clock of the whole command ``genbench experiment=ablation`` in an empty folder, the data not yet made, and
of the same command again when its runs are complete.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.common import Result, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="further settings of the sweep, such as seed=0")


def measure(args: argparse.Namespace) -> list[Result]:
    command = [str(Path(sys.executable).with_name("genbench")), "experiment=ablation", *args.overrides]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = perf_counter()
            subprocess.run(command, cwd=folder, env={**os.environ, "GENBENCH_CACHE": f"{folder}/cache"}, check=True)
            seconds.append(perf_counter() - start)
    first, again = seconds
    name = " ".join(["genbench experiment=ablation", *args.overrides])
    return [
        Result(f"`{name}`", f"{first / 60:.1f} min"),
        Result("the same command when it is complete", f"{again:.1f} s"),
    ]


if __name__ == "__main__":
    report(measure, __doc__, options)
