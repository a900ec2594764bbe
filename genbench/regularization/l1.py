"""L1 penalty."""

from torch import Tensor

from genbench.regularization.base import WeightPenalty


class L1(WeightPenalty):
    """Adds strength · Σ|w| over all trainable parameters (Tibshirani 1996)."""

    def size(self, parameter: Tensor) -> Tensor:
        return parameter.abs().sum()
