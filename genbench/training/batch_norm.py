"""The batch statistics of a batch normalization, for lanes that compute as one and for processes that share a batch."""

from collections.abc import Callable

from torch import Tensor


def batch_statistics(x: Tensor, average: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean [C] and the biased variance [C] of a batch ``x`` [B, C, ...], and x − mean.

    Args:
        average: the mean of a statistic over the shards of a batch, of which ``x`` is one.
    """
    axes = [0, *range(2, x.ndim)]
    mean = x.mean(axes)
    if average is not None:
        mean = average(mean)
    centred = x - by_channel(mean, x)
    variance = centred.square().mean(axes)
    return mean, variance if average is None else average(variance), centred


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return ``values`` [C] in the shape that broadcasts over ``x`` [B, C, ...]."""
    return values.view([1, -1, *[1] * (x.ndim - 2)])
