"""Pairs of examples of one class, or of two, and the error of a mean over them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def pairs_within(members: Tensor, most: int | None, generator: torch.Generator) -> Tensor:
    """Different pairs of members [n] of a class, [p, 2]; at most ``most``, in which no member is more than two pairs
    ahead of another: in a random order of the members, each with the next, then with the next but one, and so on."""
    n = len(members)
    order = members[torch.randperm(n, generator=generator)]
    whole = n * (n - 1) // 2
    p = whole if most is None else min(most, whole)
    place = torch.arange(p)
    first, distance = place % n, place // n + 1
    return torch.stack([order[first], order[(first + distance) % n]], 1)


def pairs_between(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each example with one of another class, drawn uniformly, [n, 2]; without those that have none."""
    found = []
    for label in labels.unique():
        own, others = (labels == label).nonzero()[:, 0], (labels != label).nonzero()[:, 0]
        if len(others):
            drawn = torch.randint(len(others), (len(own),), generator=generator)
            found.append(torch.stack([own, others[drawn]], 1))
    return torch.cat(found) if found else torch.empty(0, 2, dtype=torch.long)


def error_of_sum(deviations: Tensor, pairs: Tensor) -> float:
    """The standard error of a sum over pairs, of which those that share an example depend on each other, from their
    deviations dₚ [p]: the square root of Σᵢ (Σ_{p ∋ i} dₚ)² − Σₚ dₚ² over examples i and pairs p, and at least that of
    independent pairs, Σₚ dₚ² (Fafchamps & Gubert 2007, J. Dev. Econ. 83, 326)."""
    own = float(deviations.square().sum())
    examples = int(pairs.max()) + 1 if len(pairs) else 0
    sums = torch.zeros(examples, dtype=torch.float64)
    for column in pairs.unbind(1):
        sums.index_add_(0, column, deviations)
    return math.sqrt(max(own, float(sums.square().sum()) - own))


def error_of_mean(values: Tensor, pairs: Tensor) -> float | None:
    """The standard error of the mean of values [p] of pairs [p, 2] over examples taken as a random sample; None of
    fewer than two."""
    n = len(values)
    if n < 2:
        return None
    return error_of_sum(values - values.mean(), pairs) / n * math.sqrt(n / (n - 1))


def error_of_classes(values: Sequence[Tensor], pairs: Sequence[Tensor]) -> float | None:
    """The standard error of the mean over classes of the means of their pairs; None if a class has one pair alone."""
    errors = [error_of_mean(each, own) for each, own in zip(values, pairs, strict=True)]
    if any(error is None for error in errors):
        return None
    return math.sqrt(sum(error**2 for error in errors if error is not None)) / len(errors)
