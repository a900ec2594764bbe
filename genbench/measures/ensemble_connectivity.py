"""The barriers between the members of an ensemble, as they are and with their hidden units in the same order."""

import math
import statistics
from collections.abc import Sequence

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.snapshot import Snapshot
from genbench.measures.surface import linear_mode_connectivity
from genbench.measures.weight_matching import matched_mode_connectivity
from genbench.records.estimate import Estimate

_NAMES = ("barrier", "error_barrier", "matched_barrier", "matched_error_barrier")


@measure("flatness", by_member=False, moves=None, names=tuple(f"member_{name}" for name in _NAMES))
def ensemble_connectivity(
    snapshot: Snapshot, *, points: int = 25, sweeps: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """The barriers of the loss and of the error on the straight line between two members of an ensemble, as
    ``member_barrier`` and ``member_error_barrier`` (:func:`genbench.measures.linear_mode_connectivity`); and when the
    hidden units of one were put in the order of the other, as ``member_matched_barrier`` and
    ``member_matched_error_barrier`` (:func:`genbench.measures.matched_mode_connectivity`; Ainsworth et al. 2022, arXiv
    2209.04836).

    Each is the mean over the pairs of the first member and the second, the third and the fourth, and so on, which have
    no network in common; the standard error is that over the pairs, ``None`` where there is one pair.

    Args:
        snapshot: network, loss and data.
        points: on each line, at least 2.
        sweeps: bound on those over the layers, at least 1.
        seed: of the order of the layers, at least 0.
    """
    check_integer("points", points, least=2)
    check_integer("sweeps", sweeps, least=1)
    check_integer("seed", seed, least=0)
    members = snapshot.members
    names = [f"member_{name}" for name in _NAMES]
    if len(members) < 2:
        return dict.fromkeys(names, undefined("the network has no members" if not members else "one member"))
    pairs = [
        linear_mode_connectivity(here, there, points=points)
        | matched_mode_connectivity(here, there, points=points, sweeps=sweeps, seed=seed)
        for here, there in zip(members[::2], members[1::2], strict=False)
    ]
    return {f"member_{name}": _mean([each[name] for each in pairs]) for name in _NAMES}


def _mean(pairs: Sequence[Estimate]) -> Estimate:
    values = [each.value for each in pairs if each.value is not None]
    if len(values) < len(pairs):
        return next(each for each in pairs if each.value is None)
    flags = [each.converged for each in pairs if each.converged is not None]
    return Estimate(
        statistics.fmean(values),
        stderr=statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        converged=all(flags) if flags else None,
    )
