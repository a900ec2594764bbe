"""Disagreement of two networks."""

import math

import torch

from genbench.measures.base import measure
from genbench.measures.outputs import read, undefined
from genbench.measures.representation import check_same_data
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("performance", by_member=False)
def disagreement(snapshot: Snapshot, *, other: Snapshot | None = None) -> Estimate:
    """The share of examples that two networks answer differently, in [0, 1], with the standard error of its mean over
    the examples (that of a binomial proportion; positions of [N, K, ...] outputs count within their example).

    On new examples it equals the test error in expectation for two runs of the same training from different seeds,
    if their ensemble is calibrated (Jiang et al. 2022, arXiv 2106.13799). Labels only serve to
    recognize a classifier, so that positions without a label count too, with a note.

    Args:
        snapshot: network, loss and data.
        other: the second network, on the same data in the same order; ``None`` gives no value.

    Raises:
        ValueError: ``other`` has another number of examples, or other targets.
    """
    if other is None:
        return Estimate(None, note="no other network given")
    check_same_data(snapshot, other)
    found, ignored = [], False
    for each in (snapshot, other):
        reading = read(each)
        if isinstance(reading, str):
            return undefined(reading)
        ignored = ignored or bool(reading.ignored)
        answers = (reading.answers(output) for output, _ in each.predictions)
        found.append(torch.cat([a.movedim(snapshot.target_axis, 0) if a.ndim > 1 else a for a in answers]))
    ours, theirs = found
    if ours.shape != theirs.shape:
        raise ValueError(f"other answers in shape {tuple(theirs.shape)}; accepted: {tuple(ours.shape)}")
    shares = (ours != theirs.to(ours.device)).reshape(len(ours), -1).double().mean(1)
    n = len(shares)
    stderr = float(shares.std()) / math.sqrt(n) if n > 1 else None
    note = "of all positions, also those whose label the loss ignores" if ignored else None
    return Estimate(float(shares.mean()), stderr=stderr, note=note)
