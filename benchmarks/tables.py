"""Processor seconds, imports included, and peak memory of a report of few and of many records, read from the disk in a
fresh process: of the table and its CSV, and of all files, the page and the figures. The records are copies of one run's
with other numbers, 25 seeds a row (Linux).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Result, ablation, copies, report


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, nargs="+", default=[32, 2_500, 5_000, 10_000])


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench.runs import execute

    found = []
    with tempfile.TemporaryDirectory() as runs:
        one = execute.run(ablation("none", f"runs_dir={runs}", "trainer.max_steps=200"))
        for number in args.records:
            rows = max(4, number // 25)
            folder = copies(one, Path(runs), number, rows)
            for made, code in (
                ("table and CSV", "render.comma_separated(report.table)"),
                ("all files, page and figures", "report.write()"),
            ):
                # a process without torch, as genbench-table is; its peak is its own, unlike getrusage's after a fork
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
                text = f"{made} of {number:,} records in {rows} rows"
                found.append(Result(text, f"{seconds:.1f} s, {peak:.0f} MiB"))
                print(f"{text}: {found[-1].measured}", flush=True)
    return found


if __name__ == "__main__":
    report(measure, __doc__, options)
