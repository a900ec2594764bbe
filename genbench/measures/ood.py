"""Detection of out-of-distribution inputs."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer
from genbench.inputs.common_corruptions import CORRUPTIONS, corruptions_of
from genbench.measures.base import measure
from genbench.measures.corrupted import INAPPLICABLE, under_corruption
from genbench.measures.outputs import undefined, with_logits
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

SCORES = ("max_softmax", "energy", "entropy")
_BLOCK = 256  # examples that are drawn together


@measure("robustness", by_member=False)
def ood_auroc(
    snapshot: Snapshot,
    *,
    score: str = "max_softmax",
    outliers: Any = "gaussian",
    severity: int = 5,
    seed: int = 0,
) -> Estimate:
    """The area under the ROC curve of telling the data from outliers by a score of the outputs: the probability that an
    example of the data has the higher score, ties counted half; 0.5 is chance. The standard error is DeLong's (1988),
    of pairs if each outlier is made from an example.

    Scores: ``max_softmax``, the largest probability (Hendrycks & Gimpel 2017, arXiv 1610.02136); ``energy``,
    log Σ exp of the logits (Liu et al. 2020, arXiv 2010.03759), without meaning for log-probabilities;
    ``entropy``, that of the probabilities, negated.

    Args:
        snapshot: a classifier with logits or probabilities [N, K]; no labels of outliers are needed.
        score: one of the three.
        outliers: ``gaussian``, normal numbers with mean and standard deviation of all inputs together; a corruption of
            :mod:`genbench.inputs.common_corruptions`; or a data module, whose test split has inputs of the same shape.
        severity: of the corruption, 1 to 5.
        seed: of noise and corruption, at least 0.

    Raises:
        ValueError: a score or outliers that are not there, or outliers of another shape.
    """
    check_choice("score", score, SCORES)
    check_integer("severity", severity, least=1, most=5)
    check_integer("seed", seed, least=0)
    if not hasattr(outliers, "evaluation_batches") and outliers not in ("gaussian", *CORRUPTIONS):
        corruptions = ", ".join(CORRUPTIONS)
        raise ValueError(
            f"outliers is {outliers!r}; accepted: gaussian, a corruption ({corruptions}), or a data module"
        )
    reading = with_logits(snapshot)
    if isinstance(reading, str):
        return undefined(reading)
    if score == "energy" and (reading.kind != "logits" or reading.axis is None):
        kind = "one logit" if reading.kind == "logits" else reading.kind
        return undefined(f"outputs are {kind}, which have no energy")
    paired = isinstance(outliers, str) and outliers != "gaussian"
    if outliers == "gaussian":
        if not all(x.is_floating_point() for x, _ in snapshot.blocks(_BLOCK)):
            return undefined("inputs are not real numbers")
        others: Iterable[tuple[Tensor, Any]] = _gaussian(snapshot, seed)
    elif isinstance(outliers, str):
        args, _ = snapshot.first_input
        try:
            known = corruptions_of(args[0])
        except ValueError:
            return INAPPLICABLE
        check_choice("outliers", outliers, ("gaussian", *known))
        others = under_corruption(snapshot, outliers, severity, seed=seed).batches
    else:
        others = outliers.evaluation_batches("test")
    ours = torch.cat([reading.logits(output) for output, _ in snapshot.predictions])
    if ours.ndim > 2:
        return undefined(f"logits of shape {tuple(ours.shape)} have several answers an example")
    with torch.no_grad():
        theirs = torch.cat([reading.logits(snapshot.call(x.to(ours.device))) for x, _ in others])
    if score == "energy" and max(float(logits.logsumexp(1).abs().max()) for logits in (ours, theirs)) < 1e-4:
        return Estimate(None, note="undefined: outputs are log-probabilities, whose energy is zero")
    value, stderr = auroc(*(_scores(logits, score).cpu().numpy() for logits in (ours, theirs)), paired=paired)
    return Estimate(value, stderr=stderr)


def auroc(inside: np.ndarray, outside: np.ndarray, *, paired: bool = False) -> tuple[float, float | None]:
    """P(inside > outside) + ½ P(inside = outside) of scores [n] and [m], and its standard error: that of the placements
    (DeLong et al. 1988), None for fewer than two; ``paired`` where inside[i] and outside[i] belong together."""
    from scipy.stats import rankdata

    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    above = (ranks[:n] - rankdata(inside)) / m  # of each inside, the share of the outside below it
    below = 1 - (ranks[n:] - rankdata(outside)) / n  # of each outside, the share of the inside above it
    value = float(above.mean())
    if min(n, m) < 2:
        return value, None
    if paired:
        return value, float((above + below).std(ddof=1) / math.sqrt(n))
    return value, math.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)


def _scores(logits: Tensor, score: str) -> Tensor:
    """Scores [N], float64, high for inputs like the data."""
    logits = logits.double()
    if score == "energy":
        return logits.logsumexp(1)
    log_p = logits.log_softmax(1)
    return log_p.amax(1) if score == "max_softmax" else (log_p.exp() * log_p).sum(1)


def _gaussian(snapshot: Snapshot, seed: int) -> list[tuple[Tensor, Tensor]]:
    blocks = list(snapshot.blocks(_BLOCK))
    numbers = torch.cat([x.flatten() for x, _ in blocks]).double()
    mean, std = float(numbers.mean()), float(numbers.std(correction=0))
    return [
        ((mean + std * StepRandom(seed, i).normal("ood.gaussian", *x.shape)).to(x), y)
        for i, (x, y) in enumerate(blocks)
    ]
