"""Some of the examples, and the mean over them."""

import math

import torch
from torch import Tensor

from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


def some(count: int, most: int) -> Tensor:
    """At most ``most`` of ``count`` rows, evenly spaced: of m the i-th, from 0 on, is ⌊i · count / m⌋."""
    size = min(count, most)
    return torch.arange(size) * count // size


def sample_mean(values: Tensor) -> Estimate:
    """The mean of values [N] with its standard error over them."""
    n = len(values)
    return Estimate(float(values.mean()), stderr=float(values.std()) / math.sqrt(n) if n > 1 else None)


def few(snapshot: Snapshot, most: int) -> Snapshot:
    """The network on at most ``most`` of the examples, evenly spaced over the data."""
    return snapshot.subsets([some(snapshot.examples, most)])[0]
