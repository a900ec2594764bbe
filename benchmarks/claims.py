"""Processor seconds of the verdicts on many claims over many records, and of reading the records: copies of one run's
with other numbers, 32 seeds a learning rate. The claims are differences, equivalences, proportions, correlations over
all learning rates and trends along them, in equal shares.
"""

import argparse
import random
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.common import Result, ablation, copies, report

SEEDS = 32
RULES = "genbench.claims.rules"
ACCURACY, LOSS = "test/performance/accuracy", "test/performance/loss"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, default=10_240)
    parser.add_argument("--claims", type=int, default=100)


def claims(number: int, rates: list[float]) -> dict[str, Any]:
    draw = random.Random(1)
    found = {}
    for i in range(number):
        one, two = ({"optimizer.lr": rate} for rate in draw.sample(rates, 2))
        whole = {"optimizer.lr": rates}
        name, settings = [
            ("Difference", {"metric": ACCURACY, "of": one, "than": two}),
            ("Equivalence", {"metric": ACCURACY, "of": one, "to": two, "margin": 0.1}),
            ("Proportion", {"metric": ACCURACY, "of": one, "op": ">=", "bound": 0.5, "share": 0.5}),
            ("Correlation", {"metrics": [ACCURACY, LOSS], "of": {}, "over": whole}),
            ("Trend", {"metric": ACCURACY, "of": {}, "along": whole, "tau": 0.2}),
        ][i % 5]
        found[f"C{i + 1}"] = {"_target_": f"{RULES}.{name}", "statement": f"Claim {i + 1} holds.", **settings}
    return {"looks": [8, 16, 32], "rules": found}


def measure(args: argparse.Namespace) -> list[Result]:
    from genbench import records
    from genbench.claims import registration
    from genbench.report import claims as verdicts
    from genbench.runs import execute

    rows = args.records // SEEDS
    rates = [1e-3 * (row + 1) for row in range(rows)]
    with tempfile.TemporaryDirectory() as runs:
        config = ablation("none", f"runs_dir={runs}", "trainer.max_steps=200")
        stamped = registration.register({**config, "claims": claims(args.claims, rates)})
        one = execute.run(stamped)
        folder = copies(one, Path(runs), args.records, rows)
        start = process_time()
        loaded = records.load(folder).records
        read = process_time()
        found = verdicts.of_records(stamped["claims"], loaded)
        end = process_time()
    assert {row.status for row in found.rows} <= {"replicated", "not replicated", "undecided"}
    assert not any(row.missing for row in found.rows)
    text = f"{args.claims} claims over {args.records:,} records"
    return [Result(f"verdicts on {text}", f"{end - read:.1f} s"), Result("reading them", f"{read - start:.1f} s")]


if __name__ == "__main__":
    report(measure, __doc__, options)
