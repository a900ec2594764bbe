"""Performance of the outputs on the labels; ``None`` if the network is no classifier.

Standard errors are those of a mean over the examples, taken as a random sample; positions of [N, K, ...]
outputs are not examples of their own. Labels that the loss ignores (``ignore_index``, a class weight of 0) are left
out, with a note.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torchmetrics.functional.classification import multiclass_calibration_error

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.outputs import Reading, read, undefined, with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("performance", by_member=False)
def accuracy(snapshot: Snapshot) -> Estimate:
    """The share of labels that have the largest output, in [0, 1].

    If the outputs are neither logits nor probabilities, a note says that this is the largest output, and why.
    """
    reading = read(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    wrong = torch.cat([reading.wrong(*batch) for batch in snapshot.predictions])
    n, note = len(wrong), reading.reason and f"of the largest output: {reading.reason}"
    notes = "; ".join(filter(None, (note, reading.note)))
    return Estimate((n - int(wrong.sum())) / n, stderr=_error(snapshot, (~wrong).double()), note=notes or None)


@measure("performance", by_member=False, names=("error", "error_low"))
def error(snapshot: Snapshot, *, level: float = 0.01) -> dict[str, Estimate]:
    """The share of wrong answers, ``error``, and its exact lower confidence limit ``error_low``: the smallest
    probability of a wrong answer at which so many wrong ones of so many have a probability of at least ``level``
    (Clopper & Pearson 1934). It holds where each example has one answer and was drawn independently."""
    if check_number("level", level, low=0, high=1, open_high=True) == 0:
        raise ValueError(f"level is {level!r}; accepted: a number in (0, 1)")
    found = accuracy(snapshot)
    if found.value is None:
        return dict.fromkeys(("error", "error_low"), found)
    reading = _reading(snapshot)
    wrong = torch.cat([reading.wrong(*batch) for batch in snapshot.predictions])
    low = error_limit(int(wrong.sum()), len(wrong), level)
    return {
        "error": Estimate(int(wrong.sum()) / len(wrong), stderr=found.stderr, note=found.note),
        "error_low": Estimate(low, note=found.note),
    }


def error_limit(wrong: int, n: int, level: float) -> float:
    """The lower confidence limit of Clopper & Pearson 1934 of the probability of a wrong answer.

    >>> round(error_limit(1, 1, 0.05), 12), error_limit(0, 7, 0.05)
    (0.05, 0.0)
    """
    from scipy.special import betaincinv

    return float(betaincinv(wrong, n - wrong + 1, level)) if wrong else 0.0


@measure("performance", by_member=False)
def cross_entropy(snapshot: Snapshot) -> Estimate:
    """Mean of −log p(label), p the network's probabilities, in nats, whatever the snapshot's loss is."""
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    return mean_over_examples(snapshot, -_true(*known))


@measure("performance", by_member=False)
def soft_error(snapshot: Snapshot) -> Estimate:
    """Mean of 1 − p(label), p the network's probabilities, in [0, 1]: the expected error of an answer drawn from p."""
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    return mean_over_examples(snapshot, -_true(*known).expm1())


@measure("performance", by_member=False)
def mean_loss(snapshot: Snapshot) -> Estimate:
    """The mean of the snapshot's own loss over the examples."""
    return Estimate(snapshot.mean_loss, stderr=_error_of_losses(snapshot))


@measure("performance", by_member=False)
def brier_score(snapshot: Snapshot) -> Estimate:
    """Mean of Σ_k (p_k − 1[label = k])², p the network's probabilities (Brier 1950), in [0, 2]."""
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    return mean_over_examples(snapshot, brier(*known))


@measure("performance", by_member=False)
def calibration_error(snapshot: Snapshot, *, bins: int = 15) -> Estimate:
    """Expected calibration error: Σ_b n_b/N · |accuracy_b − confidence_b| over ``bins`` equal bins of the largest
    probability (Guo et al. 2017, arXiv 1706.04599), in [0, 1]."""
    check_integer("bins", bins, least=1)
    known = labelled(snapshot)
    if isinstance(known, str):
        return undefined(known)
    log_p, labels = known
    # of logits, torchmetrics would take those that happen to lie in [0, 1] for probabilities
    value = multiclass_calibration_error(log_p.exp(), labels, log_p.shape[1], n_bins=bins, validate_args=False)
    return Estimate(float(value), note=_reading(snapshot).note)


def wrong_answers(snapshot: Snapshot, reading: Reading, vector: Tensor) -> float:
    """The share of wrong answers at other weights [size]."""
    wrong = [reading.wrong(output, target) for output, target, *_ in snapshot.predictions_at(vector)]
    return sum(int(e.sum()) for e in wrong) / sum(e.numel() for e in wrong)


def answered(snapshot: Snapshot) -> int | str:
    """The number of examples whose label counts, over which the share of wrong answers is a mean; or why it is none."""
    reading = read(snapshot)
    if isinstance(reading, str):
        return reading
    if not reading.ignored:
        return snapshot.examples
    if any(target.numel() != n for (_, target), (_, n) in zip(snapshot.predictions, snapshot.losses, strict=True)):
        return "the loss ignores some of an example's labels, so that the error is no mean over the examples"
    return sum(int(reading.counts(*batch).sum()) for batch in snapshot.predictions)


def labelled(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    """log p [N, K] and labels [N], positions of [N, K, ...] outputs as examples, without labels that the loss ignores;
    or the reason why there are none."""
    return snapshot.shared("labelled", lambda: _collect(snapshot))


def labelled_members(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    """log p [M, N, K] of the members of an ensemble and labels [N], as :func:`labelled` gives them; or the reason why
    there are none."""
    found = []
    for member in snapshot.members:
        with member.measuring():
            known = labelled(member)
        if isinstance(known, str):
            return known
        found.append(known)
    return (torch.stack([log_p for log_p, _ in found]), found[0][1]) if found else "the network is no ensemble"


def mean_over_examples(snapshot: Snapshot, values: Tensor) -> Estimate:
    """The mean of values at all positions that :func:`labelled` gives, in its order, with its standard error over the
    examples."""
    return Estimate(float(values.mean()), stderr=_error(snapshot, values), note=_reading(snapshot).note)


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


def _collect(snapshot: Snapshot) -> tuple[Tensor, Tensor] | str:
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return reading
    logits, labels = [], []
    for output, target in snapshot.predictions:
        z = reading.logits(output).movedim(1, -1)
        logits.append(z[reading.counts(output, target)] if reading.ignored else z.reshape(-1, z.shape[-1]))
        labels.append(reading.counted(reading.labels(output, target), output, target))
    return torch.cat(logits).log_softmax(1), torch.cat(labels)


def _error(snapshot: Snapshot, values: Tensor) -> float | None:
    """The standard error of the mean of values at all positions that count, from the sums over each example; s/√N of
    one each."""
    reading, deviations = _reading(snapshot), values - values.mean()
    targets, n = [target for _, target in snapshot.predictions], None
    if reading.ignored:
        counts = [reading.counts(*batch) for batch in snapshot.predictions]
        n = sum(int(_by_example(snapshot, each).any(1).sum()) for each in counts)
        mask = torch.cat([each.reshape(-1) for each in counts])
        deviations = deviations.new_zeros(len(mask)).masked_scatter(mask, deviations)
    parts = deviations.split([target.numel() for target in targets])
    rows = [_by_example(snapshot, part.reshape(y.shape)) for part, y in zip(parts, targets, strict=True)]
    sums = torch.cat([row.sum(1) for row in rows])
    n = len(sums) if n is None else n
    if n < 2:
        return None
    return math.sqrt(float(sums.square().sum()) * n / (n - 1)) / len(values)


def _by_example(snapshot: Snapshot, values: Tensor) -> Tensor:
    """Values in the shape of a target as rows of the examples, [N, ·]."""
    return values.movedim(snapshot.target_axis, 0).flatten(1) if values.ndim > 1 else values[:, None]


def _reading(snapshot: Snapshot) -> Reading:
    reading = read(snapshot)
    assert isinstance(reading, Reading)
    return reading


def _error_of_losses(snapshot: Snapshot) -> float | None:
    """The standard error of the mean loss over the examples; None if the loss of one example alone fails."""

    def each(output: Any, target: Any) -> Tensor:
        return snapshot.loss(*tree_map(lambda t: t[None] if isinstance(t, Tensor) else t, (output, target)))

    found = []
    try:
        for (output, target), (loss, n) in zip(snapshot.predictions, snapshot.losses, strict=True):
            found.append(torch.vmap(each)(output, target).reshape(-1).double())
            if len(found[-1]) != n or not math.isclose(float(found[-1].mean()), float(loss), rel_tol=1e-3):
                return None
    except Exception:  # outputs that are no tensors, or a loss that reads numbers
        return None
    losses = torch.cat(found)
    return float(losses.std() / math.sqrt(len(losses))) if len(losses) > 1 else None


def _true(log_p: Tensor, labels: Tensor) -> Tensor:
    """log p(label) [N], float64."""
    return log_p.gather(1, labels[:, None]).double()
