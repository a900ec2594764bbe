"""Margins: how far the outputs are from another answer. Signs are kept: a misclassified example's margin is negative."""

from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_number
from genbench.measures.performance import labelled
from genbench.measures.snapshot import Snapshot


def margin_percentile(snapshot: Snapshot, *, percentile: float = 10) -> float | None:
    """γ: a percentile of the margins over the examples, interpolated linearly, sign kept; None for no classifier.

    The margin of an example is its correct logit − the largest other one; of a network with one logit, the logit
    signed by the label: see :func:`margin`.
    """
    check_number("percentile", percentile, low=0, high=100)
    found = _margins(snapshot)
    return None if found is None else _percentile(found, percentile)


def _margins(snapshot: Snapshot) -> Tensor | None:
    """The margins [N], float64, positions of [N, K, ...] outputs as examples; None for no classifier."""
    return snapshot.shared("margins", lambda: _collect(snapshot))


def _collect(snapshot: Snapshot) -> Tensor | None:
    known = labelled(snapshot)
    if known is not None:
        return _signed(*known)
    if all(_one_logit(output, target) for output, target in snapshot.predictions) and _symmetric(snapshot):
        return torch.cat([_signed(output, target).reshape(-1) for output, target in snapshot.predictions])
    return None


def _signed(output: Tensor, target: Tensor) -> Tensor:
    """Margins, float64: [N, ...] of logits [N, K, ...] and integer labels, or of one logit and labels 0 or 1."""
    z = output.double()
    if target.is_floating_point():
        return (2 * target.double() - 1) * z
    label = target.unsqueeze(1)
    return (z.gather(1, label) - z.scatter(1, label, -torch.inf).amax(1, keepdim=True)).squeeze(1)


def _one_logit(output: Any, target: Any) -> bool:
    """One number an example, [N] or [N, 1], and a target 0 or 1."""
    return (
        isinstance(output, Tensor)
        and isinstance(target, Tensor)
        and output.shape == target.shape
        and output.shape[1:] in ((), (1,))
        and target.is_floating_point()
        and bool(((target == 0) | (target == 1)).all())
    )


def _symmetric(snapshot: Snapshot) -> bool:
    """Whether 0 is the output that is as good for label 0 as for label 1: a logit, no probability or regression."""
    output, target = snapshot.predictions[0]
    zero = torch.zeros_like(output)
    with torch.no_grad():
        off, on = (float(snapshot.loss(zero, torch.full_like(target, label))) for label in (0, 1))
    return abs(on - off) <= 1e-6 * abs(off)


def _percentile(values: Tensor, percentile: float) -> float:
    ranked = values.sort().values
    place = percentile / 100 * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return float(torch.lerp(ranked[below], ranked[above], place - below))
