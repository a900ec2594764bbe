"""What every measure shares: its clock, its protection of the network, and what an ensemble's value is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

from genbench.measures.estimate import Estimate
from genbench.measures.snapshot import Snapshot

P = ParamSpec("P")
Result = TypeVar("Result", Estimate, dict[str, Estimate])
Measure = Callable[Concatenate[Snapshot, P], Result]


def measure(
    family: str, *, of_weights: bool = False, by_member: bool = True
) -> Callable[[Measure[P, Result]], Measure[P, Result]]:
    """Makes a measure of a function of a snapshot: runs it inside ``snapshot.measuring()``, fills in the seconds, and
    turns a value that is not finite into ``None`` with a note.

    ``family`` and the split it is measured on are the first parts of its metric key, ``split/family/name``; of a
    measure ``of_weights``, which needs neither data nor loss, ``weights/family/name``. Both are attributes of the
    function.

    For an ensemble (a network with a module list ``members``) the value is the mean over its members, its standard
    error that of the mean, and a note says so; with ``by_member=False`` the ensemble is one network.
    """

    def decorate(function: Measure[P, Result]) -> Measure[P, Result]:
        @wraps(function)
        def measured(snapshot: Snapshot, /, *args: P.args, **settings: P.kwargs) -> Result:
            start = perf_counter()
            with snapshot.measuring():
                members = snapshot.members if by_member else []
                if members:
                    results = []
                    for member in members:
                        with member.measuring():
                            results.append(function(member, *args, **settings))
                    result = _mean(results)
                else:
                    result = function(snapshot, *args, **settings)
            seconds = perf_counter() - start
            if isinstance(result, Estimate):
                return _finish(result, seconds)
            # one computation gives all of them: each carries its share
            return {key: _finish(estimate, seconds / len(result)) for key, estimate in result.items()}

        measured.family, measured.of_weights = family, of_weights  # type: ignore[attr-defined]
        return measured

    return decorate


def _finish(estimate: Estimate, seconds: float) -> Estimate:
    if estimate.value is not None and not math.isfinite(estimate.value):
        estimate = Estimate(None, note=f"the value is {estimate.value}")
    return replace(estimate, seconds=seconds)


def _mean(results: Sequence[Result]) -> Result:
    first = results[0]
    if isinstance(first, Estimate):
        return _mean_estimate(results)
    keys = [key for key in first if all(key in result for result in results)]
    return {key: _mean_estimate([result[key] for result in results]) for key in keys}


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    n = len(estimates)
    missing = [e for e in estimates if e.value is None]
    if missing:
        return missing[0]
    errors = [e.stderr for e in estimates if e.stderr is not None]
    flags = [e.converged for e in estimates if e.converged is not None]
    residuals = [e.residual for e in estimates if e.residual is not None]
    return Estimate(
        sum(e.value for e in estimates if e.value is not None) / n,
        stderr=math.sqrt(sum(e**2 for e in errors)) / n if errors else None,
        converged=all(flags) if flags else None,
        residual=max(residuals) if residuals else None,
        note=f"mean of {n} members",
    )
