"""``make papers``: trains the laptop version of every paper, one after the other, then prints the scoreboard.

Studies of genbench's own are trained by name, as ``make papers PAPERS=sgd`` does. Each is a
``genbench experiment=NAME`` of its own, as each has a grid of its own. Begun again, it trains what is missing.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from genbench import config, records
from genbench.cli import table
from genbench.process import progress
from genbench.report.papers import scoreboard

GENBENCH = [sys.executable, str(Path(__file__).with_name("train.py"))]


def main() -> int:
    """Return 1 if a sweep failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help="of papers or studies (default: all papers)")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own experiments as well")
    given = parser.parse_args()
    own = [] if given.config_dir is None else [given.config_dir]
    try:
        shown = scoreboard.board([config.folder(), *own], Path("runs"), given.names)
    except ValueError as error:
        print(f"papers: {error}", file=sys.stderr)
        return 1
    studies = [entry.experiment.choice for entry in shown.entries if entry.paper.link is None and not given.names]
    costs = [scales[0] for name, scales in shown.costs.items() if name not in studies]
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    unknown = len(costs) - len(known)
    total = [progress.duration(sum(known))] if known else []
    print("\n".join(f"{cost.choice}: {cost}" for cost in costs))
    print(f"in all {' and '.join([*total, *([f'{unknown} not measured'] if unknown else [])])}", flush=True)
    options = [f"--config-dir={path}" for path in own]
    failed = False
    for number, cost in enumerate(costs, 1):
        began = time.monotonic()
        status, last = run(f"{cost.choice} ({number} of {len(costs)})", [*options, f"experiment={cost.choice}"])
        took = progress.duration(time.monotonic() - began)
        states = Counter(records.status(Path("runs") / cost.choice).values())
        diverged = states.pop("diverged", 0)  # a result, although the command's status is 1 for it
        if status and (set(states) - {"done"} or not diverged):
            print(f"{cost.choice}: failed after {took}: {last}", flush=True)
            failed = True
        else:
            told = f", {diverged} run{'s' * (diverged > 1)} diverged" if diverged else ""
            print(f"{cost.choice}: done in {took}{told}", flush=True)
    sys.argv = ["genbench-table", "--papers", *options, *given.names]
    table()
    return int(failed)


def run(name: str, words: list[str]) -> tuple[int, str]:
    """Return the status of a command and the last line that it wrote on standard error; show its progress in a line."""
    last = ""
    with subprocess.Popen([*GENBENCH, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        with progress.saying() as say:
            say(f"{name}: starts", urgent=True)
            for line in process.stderr:
                last = line.strip() or last
                say(f"{name}: {last}")
        return process.wait(), last


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("papers: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
