"""How well the outputs fit the labels; ``None`` where the network is no classifier.

Standard errors are those of a mean over the examples, taken as a sample of all that could have been drawn; positions
of [N, K, ...] outputs are no examples of their own.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.estimate import Estimate
from genbench.measures.snapshot import Snapshot

NO_CLASSIFIER = Estimate(None, note="undefined: not logits [N, K, ...] with K ≥ 2 and integer class labels")


@measure("performance", by_member=False)
def accuracy(snapshot: Snapshot) -> Estimate:
    """The share of labels that have the largest logit, in [0, 1]."""
    known = labelled(snapshot)
    if known is None:
        return NO_CLASSIFIER
    log_p, labels = known
    value = multiclass_accuracy(log_p, labels, log_p.shape[1], average="micro", validate_args=False)
    n = len(labels)
    share = round(float(value) * n) / n  # torchmetrics divides in float32
    return Estimate(share, stderr=_error(snapshot, (log_p.argmax(1) == labels).double()))


@measure("performance", by_member=False)
def cross_entropy(snapshot: Snapshot) -> Estimate:
    """Mean of −log p(label), p the softmax of the logits, in nats, whatever the snapshot's loss is."""
    known = labelled(snapshot)
    if known is None:
        return NO_CLASSIFIER
    return mean_over_examples(snapshot, -_true(*known))


@measure("performance", by_member=False)
def soft_error(snapshot: Snapshot) -> Estimate:
    """Mean of 1 − p(label), p the softmax of the logits, in [0, 1]: the error expected of an answer drawn from p."""
    known = labelled(snapshot)
    if known is None:
        return NO_CLASSIFIER
    return mean_over_examples(snapshot, -_true(*known).expm1())


@measure("performance", by_member=False)
def brier_score(snapshot: Snapshot) -> Estimate:
    """Mean of Σ_k (p_k − 1[label = k])², p the softmax of the logits (Brier 1950), in [0, 2]."""
    known = labelled(snapshot)
    if known is None:
        return NO_CLASSIFIER
    return mean_over_examples(snapshot, brier(*known))


@measure("performance", by_member=False)
def calibration_error(snapshot: Snapshot, *, bins: int = 15) -> Estimate:
    """Expected calibration error: Σ_b n_b/N · |accuracy_b − confidence_b| over ``bins`` equal bins of the largest
    probability (Guo et al. 2017, arXiv 1706.04599), in [0, 1]."""
    check_integer("bins", bins, least=1)
    known = labelled(snapshot)
    if known is None:
        return NO_CLASSIFIER
    log_p, labels = known
    # from logits, torchmetrics would take those that happen to lie in [0, 1] for probabilities
    value = multiclass_calibration_error(log_p.exp(), labels, log_p.shape[1], n_bins=bins, validate_args=False)
    return Estimate(float(value))


def labelled(snapshot: Snapshot) -> tuple[Tensor, Tensor] | None:
    """log p [N, K] and labels [N], positions of [N, K, ...] outputs as examples; None for other outputs."""
    return snapshot.shared("labelled", lambda: _collect(snapshot))


def mean_over_examples(snapshot: Snapshot, values: Tensor) -> Estimate:
    """The mean of values at all positions of all examples, in the order of :func:`labelled`, with its standard error
    over the examples."""
    return Estimate(float(values.mean()), stderr=_error(snapshot, values))


def class_labels(snapshot: Snapshot) -> Tensor | None:
    """The class of each example [N], whatever the outputs are; None unless targets [N] or [N, 1] are integers ≥ 0, true
    or false, or all of them 0 or 1."""
    found = []
    for _, target in snapshot.predictions:
        if not isinstance(target, Tensor) or target.shape[1:] not in ((), (1,)):
            return None
        if target.is_floating_point() and not ((target == 0) | (target == 1)).all():
            return None
        found.append(target.reshape(-1).long())
        if (found[-1] < 0).any():  # the mark of labels that a loss ignores
            return None
    return torch.cat(found)


def brier(log_p: Tensor, labels: Tensor) -> Tensor:
    """Σ_k (p_k − 1[label = k])² of log p [N, K] and labels [N], [N] float64."""
    p = log_p.double().exp()
    return p.square().sum(1) - 2 * p.gather(1, labels[:, None])[:, 0] + 1


def is_classified(output: Any, target: Any) -> bool:
    """Whether these are logits [N, K, ...], K ≥ 2, and integer labels [N, ...]."""
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)) or output.ndim < 2 or output.shape[1] < 2:
        return False
    return not (target.is_floating_point() or target.dtype == torch.bool) and target.shape == output[:, 0].shape


def _collect(snapshot: Snapshot) -> tuple[Tensor, Tensor] | None:
    logits, labels = [], []
    for output, target in snapshot.predictions:
        if not is_classified(output, target):
            return None
        logits.append(output.movedim(1, -1).reshape(-1, output.shape[1]))
        labels.append(target.reshape(-1))
    x, y = torch.cat(logits), torch.cat(labels).long()
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= x.shape[1]:
        raise ValueError(f"labels lie in [{low}, {high}]; accepted: 0 to {x.shape[1] - 1}, the columns of the output")
    return x.log_softmax(1), y


def _error(snapshot: Snapshot, values: Tensor) -> float | None:
    """The standard error of the mean of values at all positions, from the sums over each example; s/√N of one each."""
    sums = [
        (part - values.mean()).reshape(len(target), -1).sum(1)
        for part, (_, target) in zip(
            values.split([target.numel() for _, target in snapshot.predictions]), snapshot.predictions, strict=True
        )
    ]
    deviations = torch.cat(sums)
    n = len(deviations)
    if n < 2:
        return None
    return math.sqrt(float(deviations.square().sum()) * n / (n - 1)) / len(values)


def _true(log_p: Tensor, labels: Tensor) -> Tensor:
    """log p(label) [N], float64."""
    return log_p.gather(1, labels[:, None]).double()
