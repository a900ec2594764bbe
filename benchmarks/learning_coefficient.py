"""The local learning coefficient where its exact value is known, beside devinterp 1.3.2 (if installed) at equal cost.

Four chains of as many gradients of the whole data, the same number before the draws, the same nβ and γ. genbench has
its defaults. No step size of devinterp fits every network: it gets the best of a ladder on two other seeds, found by
looking at the answer, and its neighbours, three times as small and as large. Exact values: a closed form, quadrature,
and Gibbs sampling. The error is the root mean square of value − exact over the seeds, coverage the share of seeds whose
95 % interval contains the exact one: ± 1.96 standard errors, for devinterp Student's with three degrees of freedom, as
it gives the standard deviation of its four chains; converged the share of which genbench says so.
"""

import argparse
import importlib.util
import math
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.common import Result, report

CHAINS, LEAPS = 4, 4
LADDER = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]  # of devinterp's step sizes


class Case(NamedTuple):
    """A network, its loss and data, and the exact value at nβ and γ."""

    name: str
    model: nn.Module
    loss: Callable[[Any, Any], torch.Tensor]
    batches: list[Any]
    nbeta: float
    gamma: float
    exact: float


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--burn-in", type=int, default=100, help=f"steps of {LEAPS} gradients")
    parser.add_argument("--steps", type=int, default=400, help=f"steps of {LEAPS} gradients")


def measure(args: argparse.Namespace) -> list[Result]:
    devinterp = importlib.util.find_spec("devinterp") is not None
    if not devinterp:
        print("devinterp 1.3.2 is not installed here: left out")
    rows = []
    print("| | exact | mean | error | coverage | converged | seconds |\n|---|---|---|---|---|---|---|")
    for case in cases():
        seeds = range(args.seeds)
        ours = summary(case, "genbench", [by_genbench(case, args, seed) for seed in seeds])
        rows.append(Result(f"{case.name}: error of genbench", f"{ours:.3f}"))
        if devinterp:
            pilots = {size: [by_devinterp(case, args, seed, size) for seed in (100, 101)] for size in LADDER}
            best = min(range(len(LADDER)), key=lambda k: error(case, pilots[LADDER[k]]))
            for size in LADDER[max(best - 1, 0) : best + 2]:
                runs = [by_devinterp(case, args, seed, size) for seed in seeds]
                theirs = summary(case, f"devinterp, step size {size:.0e}", runs)
                rows.append(Result(f"{case.name}: error of devinterp, step size {size:.0e}", f"{theirs:.3f}"))
    return rows


def cases() -> list[Case]:
    from tests.helpers.networks import Vector
    from tests.helpers.reduced_rank import gibbs, reduced_rank

    def of(name: str, function: Callable[[torch.Tensor], torch.Tensor], *rest: Any, size: int) -> Case:
        zeros = torch.zeros(size, dtype=torch.float64)
        return Case(name, Vector(zeros), lambda out, _: function(out[0]), [(torch.zeros(2, 1), torch.zeros(2))], *rest)

    a = np.linspace(-12, 12, 200_001)
    density = np.exp(-(a**2) / 2) / np.sqrt(1e3 * a**2 + 1)
    product = float((density * 1e3 * a**2 / (1e3 * a**2 + 1)).sum() / density.sum() / 2)
    h = torch.logspace(-2, 2, 9, dtype=torch.float64)
    net, loss, batches = reduced_rank(6, 4, 5)
    return [
        of("Σw⁴, 10 weights", lambda w: w.pow(4).sum(), 1e3, 0.0, 2.5, size=10),
        of("(ab)²/2", lambda w: (w[0] * w[1]).square() / 2, 1e3, 1.0, product, size=2),
        of(
            "Σhw²/2, curvatures 0.01 to 100",
            lambda w: (h * w.square()).sum() / 2,
            *(1e2, 1.0, float((100 * h / (100 * h + 1)).sum() / 2)),
            size=9,
        ),
        Case("6-4-5 of rank 2", net, loss, batches, 1e3, 10.0, gibbs(net, 1e3, 10.0, sweeps=4000)[0]),
    ]


class Found(NamedTuple):
    value: float
    half: float  # of a 95 % interval
    seconds: float
    converged: bool | None = None  # None: not said


def by_genbench(case: Case, args: argparse.Namespace, seed: int) -> Found:
    from genbench.measures import Snapshot, learning_coefficient

    start = perf_counter()
    found = learning_coefficient(
        Snapshot(case.model, case.loss, case.batches),
        nbeta=case.nbeta,
        gamma=case.gamma,
        chains=CHAINS,
        leaps=LEAPS,
        burn_in=args.burn_in,
        steps=args.steps,
        seed=seed,
    )["learning_coefficient"]
    value, stderr = (math.nan if v is None else v for v in (found.value, found.stderr))
    return Found(value, 1.96 * stderr, perf_counter() - start, bool(found.converged))


def by_devinterp(case: Case, args: argparse.Namespace, seed: int, size: float) -> Found:
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary
    from scipy.stats import t as student
    from torch.utils.data import DataLoader

    (batch,) = case.batches
    start = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = estimate_learning_coeff_with_summary(
                case.model,
                DataLoader(list(zip(*batch, strict=True)), batch_size=len(batch[0])),
                evaluate=lambda model, data: case.loss(model(data[0]), data[1]),
                optimizer_kwargs={"lr": size, "nbeta": case.nbeta, "localization": case.gamma},
                num_draws=LEAPS * args.steps,
                num_burnin_steps=LEAPS * args.burn_in,
                num_chains=CHAINS,
                seed=seed,
                verbose=False,
            )
        except RuntimeError:  # the loss became NaN
            return Found(math.nan, math.nan, perf_counter() - start)
    half = student.ppf(0.975, CHAINS - 1) * found["llc/std"] / math.sqrt(CHAINS)
    return Found(found["llc/mean"], half, perf_counter() - start)


def error(case: Case, runs: list[Found]) -> float:
    """The root mean square error; inf if a seed has no value."""
    off = math.sqrt(sum((run.value - case.exact) ** 2 for run in runs) / len(runs))
    return off if math.isfinite(off) else math.inf


def summary(case: Case, what: str, runs: list[Found]) -> float:
    """Print a line of the table; the error."""
    mean, off = sum(run.value for run in runs) / len(runs), error(case, runs)
    covered = sum(abs(run.value - case.exact) < run.half for run in runs) / len(runs)
    said = [run.converged for run in runs if run.converged is not None]
    numbers = [f"{case.exact:.3f}", f"{mean:.3f}", f"{off:.3f}", f"{covered:.2f}"]
    numbers.append(f"{sum(said) / len(said):.2f}" if said else "")
    numbers.append(f"{sorted(run.seconds for run in runs)[len(runs) // 2]:.1f}")
    print(f"| {case.name}, {what} | {' | '.join(numbers)} |", flush=True)
    return off


if __name__ == "__main__":
    report(measure, __doc__, options)
