"""What the default callbacks cost: Σ seconds measuring / Σ seconds training over the completed runs of a folder.

Without a folder: of ablation runs of ``none``, ``l2`` and ``sam``, trained now.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Result, ablation, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", help="an experiment's folder, such as runs/ablation")


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench import records
    from genbench.runs import execute

    if args.folder is not None:
        found = [r for r in records.load(args.folder).records if r["status"] == "completed"]
        if not found:
            sys.exit(f"{args.folder} holds no completed runs")
    else:
        with tempfile.TemporaryDirectory() as runs:
            found = [execute.run(ablation(m, f"runs_dir={runs}")) for m in ("none", "l2", "sam")]
    seconds: dict[str, list[tuple[float, float]]] = {}
    for record in found:
        name = "+".join(record["choices"]["regularization"]) or "none"
        seconds.setdefault(name, []).append((record["seconds"]["measure"], record["seconds"]["fit"]))
    seconds["all"] = [pair for pairs in seconds.values() for pair in pairs]
    print("| | runs | s measuring | s training | ratio |")
    print("|---|---|---|---|---|")
    for name, pairs in seconds.items():
        measuring, fit = (sum(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {len(pairs)} | {measuring:.2f} | {fit:.2f} | {100 * measuring / fit:.1f} % |")
    what = f"the default callbacks, share of the fit time of {len(found)} ablation runs"
    return [Result(what, f"{100 * measuring / fit:.1f} %")]


if __name__ == "__main__":
    report(measure, __doc__, options)
