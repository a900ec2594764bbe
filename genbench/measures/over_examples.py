"""Capacities as terms of a bound: the root of what a measure gives over the number of examples."""

import math
from collections.abc import Mapping
from dataclasses import replace

from genbench.checks import check_function
from genbench.measures.base import MeasureOf, attempt, measure
from genbench.measures.outputs import undefined
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("bound", names=("*_over_examples",))
def over_examples(snapshot: Snapshot, *, measures: Mapping[str, MeasureOf]) -> dict[str, Estimate]:
    """√(μ/m) of the complexities μ that other measures give, m the number of examples, as ``NAME_over_examples``; of
    logarithms, whose names begin with ``log_``, ½(μ − log m).

    So Jiang et al. 2020 (arXiv 1912.02178) and Dziugaite et al. 2020 (arXiv 2010.11924, whose code takes the
    logarithm so) compare networks: a bound on the gap is of this form. It changes the order of networks that were
    trained on different numbers of examples, and no other order. What a measure gives of single parameters, with a dot
    in its name, is left out. ``None`` for μ < 0 that is no logarithm, and where the measure has none.

    Args:
        snapshot: network, loss and data.
        measures: by name functions of a snapshot, each of which gives one estimate or several.
    """
    for name, function in measures.items():
        check_function(f"measures.{name}", function, of="a snapshot")
    m, found = snapshot.examples, {}
    for name, function in measures.items():
        for key, estimate in attempt(name, function, snapshot).items():
            if "." not in key:
                found[f"{key}_over_examples"] = _over(estimate, m, logarithm=key.startswith("log_"))
    return found


def _over(estimate: Estimate, m: int, *, logarithm: bool) -> Estimate:
    if estimate.value is None:
        return estimate
    if not logarithm and estimate.value < 0:
        return undefined(f"the measure is {estimate.value:.6g}, and a root has none")

    def taken(value: float) -> float:
        return (value - math.log(m)) / 2 if logarithm else math.sqrt(max(value, 0) / m)

    value = taken(estimate.value)
    slope = 0.5 if logarithm else 1 / (2 * m * value) if value else math.inf
    stderr = None if estimate.stderr is None else slope * estimate.stderr
    interval = None if estimate.interval is None else (taken(estimate.interval[0]), taken(estimate.interval[1]))
    return replace(estimate, value=value, stderr=stderr, interval=interval)
