"""Disagreement of networks, and what it says of their error."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.measures.base import measure
from genbench.measures.outputs import read, undefined
from genbench.measures.performance import mean_over_examples
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


@measure(
    "performance",
    by_member=False,
    names=(
        "member_error",
        "member_disagreement",
        "vote_disagreement",
        "vote_gap",
        "class_aggregated_calibration_error",
    ),
)
def ensemble_disagreement(snapshot: Snapshot) -> dict[str, Estimate]:
    """How often the members of an ensemble disagree, how often they err, and how far their votes are calibrated (Jiang
    et al. 2022, arXiv 2106.13799). Each of the M members has one vote; h_k is the share of the votes for class k.

    - ``member_error``: the share of wrong answers, mean over the members; it needs labels, as the last two do;
    - ``member_disagreement``: the share of examples that two different members answer differently, mean over the pairs;
    - ``vote_disagreement``: the same of two members drawn with replacement, (M − 1) / M times as much: the mean of
      Σ_k h_k (1 − h_k);
    - ``vote_gap``: |vote_disagreement − member_error|;
    - ``class_aggregated_calibration_error``: Σ_q |Σ_k P(label = k, h_k = q) − q Σ_k P(h_k = q)| over the M + 1 shares
      q that M votes can give, in [0, 2]; at least ``vote_gap``, by their theorem. It depends on M: more votes are
      better calibrated.

    Standard errors are over the examples, as a random sample, for these members; that of the calibration error is to
    first order. It is the absolute value of noisy numbers, and biased upward.
    """
    if not snapshot.members:
        return {"ensemble_disagreement": Estimate(None, note="undefined: the network is no ensemble")}
    answers, labels = [], torch.empty(0)
    for member in snapshot.members:
        with member.measuring():
            reading = read(member)
            if isinstance(reading, str):
                return {"ensemble_disagreement": undefined(reading)}
            found = [
                [reading.counted(of, *batch) for of in (reading.answers(batch[0]), reading.labels(*batch))]
                for batch in member.predictions
            ]
            own, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
            answers.append(own)
    votes = _votes(torch.stack(answers), labels)
    m = len(answers)
    right = votes.gather(1, labels[:, None])[:, 0].double() / m  # share of the votes for the label
    split = 1 - (votes.double() / m).square().sum(1)
    by_share = _calibration(votes, labels, m)
    values = {
        "member_error": 1 - right,
        "member_disagreement": split * m / (m - 1) if m > 1 else None,
        "vote_disagreement": split,
        "vote_gap": _upright((split - 1 + right)[:, None]),
        "class_aggregated_calibration_error": _upright(by_share),
    }
    alone = Estimate(None, note="undefined: the ensemble has one member")
    return {name: alone if each is None else mean_over_examples(snapshot, each) for name, each in values.items()}


def _votes(answers: Tensor, labels: Tensor) -> Tensor:
    """The number of votes [N, K] for each class, from the answers [M, N] of the members."""
    classes = 1 + int(max(answers.max(), labels.max()))
    return torch.stack([F.one_hot(own, classes) for own in answers]).sum(0)


def _calibration(votes: Tensor, labels: Tensor, m: int) -> Tensor:
    """Σ_k (1[label = k] − q) 1[h_k = q] of each example and of q = 0, 1/m, …, 1, [N, m + 1] float64."""
    shares = F.one_hot(votes, m + 1).double()  # [N, K, m + 1]
    true = shares[torch.arange(len(labels), device=labels.device), labels]
    return true - shares.sum(1) * torch.arange(m + 1, device=labels.device) / m


def _upright(parts: Tensor) -> Tensor:
    """Values [N] whose mean is the sum of the absolute means of parts [N, ·]."""
    means = parts.mean(0)
    return (parts * torch.where(means < 0, -1.0, 1.0)).sum(1)
