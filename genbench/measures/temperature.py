"""Temperature scaling: probabilities made as sure as they are right, by one number."""

import math

import torch
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.outputs import undefined
from genbench.measures.performance import labelled, mean_over_examples
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_RANGE = (0.01, 100.0)  # of temperatures; the largest where nothing is learned, the least where all is right


@measure("performance", by_member=False)
def calibrated_cross_entropy(snapshot: Snapshot) -> Estimate:
    """Mean of −log p(label) in nats after temperature scaling, p ∝ exp(z/T) (Guo et al. 2017, arXiv 1706.04599).

    Two halves of the examples, every other one each, take turns: each has the T at which the other has the smallest
    cross-entropy, so that no label tunes its own probability. Networks that differ in how sure they are compare fairly
    only so (Ashukha et al. 2020, arXiv 2002.06470). Of an ensemble, T belongs to the mean of the probabilities.
    """
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    if len(known[1]) < 2:
        return undefined("one example")
    return mean_over_examples(snapshot, cross_calibrated(*known))


def cross_calibrated(log_p: Tensor, labels: Tensor) -> Tensor:
    """−log p(label) [N] float64 of log p [N, K], N ≥ 2, each at the temperature of the half it is not in."""
    log_p = log_p.double()
    costs = torch.empty_like(log_p[:, 0])
    for own, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        scaled = (log_p[own] / temperature(log_p[other], labels[other])).log_softmax(1)
        costs[own] = -scaled.gather(1, labels[own, None])[:, 0]
    return costs


def temperature(log_p: Tensor, labels: Tensor) -> float:
    """The T in [0.01, 100] at which log p [N, K], divided by T, has the smallest cross-entropy; convex in 1/T.

    >>> p = torch.tensor([[0.9, 0.1]] * 4, dtype=torch.float64)
    >>> round(temperature(p.log(), torch.tensor([0, 0, 0, 1])), 6)  # right in three of four: 9^(1/T) = 3
    2.0
    """
    from scipy.optimize import brentq

    log_p = log_p.double()
    true, finite = log_p.gather(1, labels[:, None])[:, 0], log_p.clamp_min(-1e300)  # 0 · log 0 = 0

    def slope(log_inverse: float) -> float:
        """The derivative of the cross-entropy by 1/T."""
        p = (math.exp(log_inverse) * log_p).softmax(1)
        return float(((p * finite).sum(1) - true).mean())

    low, high = -math.log(_RANGE[1]), -math.log(_RANGE[0])
    if slope(low) >= 0:
        return _RANGE[1]
    if slope(high) <= 0:
        return _RANGE[0]
    return math.exp(-brentq(slope, low, high, xtol=1e-9))
