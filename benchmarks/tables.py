"""Processor seconds, imports included, and peak memory of a table of many records, read from the disk in a fresh
process: of the table and its CSV, and of all files and figures. The records are copies of one run's with other
numbers (Linux).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Result, ablation, copies, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=400)


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench.runs import execute

    rows = []
    with tempfile.TemporaryDirectory() as runs:
        one = execute.run(ablation("none", f"runs_dir={runs}", "trainer.max_steps=200"))
        folder = copies(one, Path(runs), args.records, args.rows)
        for made, code in (
            ("table and CSV", "render.comma_separated(report.table)"),
            ("all files and figures", "report.write()"),
        ):
            # a process without torch, as genbench-table is; its peak is its own, unlike that of getrusage after a fork
            code = f"""
import sys, time
from genbench.report import Report, render
report = Report(sys.argv[1])
{code}
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), peak, "torch" in sys.modules)
"""
            told = subprocess.run(
                [sys.executable, "-c", code, folder], check=True, capture_output=True, text=True
            ).stdout
            seconds, peak = float(told.split()[0]), int(told.split()[1]) / 1024
            assert told.split()[2] == "False"
            text = f"{made} of {args.records:,} records in {args.rows} rows"
            rows.append(Result(text, f"{seconds:.1f} s, {peak:.0f} MiB"))
    return rows


if __name__ == "__main__":
    report(measure, __doc__, options)
