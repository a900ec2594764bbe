"""L2 penalty."""

from torch import Tensor

from genbench.regularization.base import WeightPenalty


class L2(WeightPenalty):
    """Adds strength · Σw² over all trainable parameters to the loss (Hoerl & Kennard 1970, ridge).

    Its gradient is 2 · strength · w: with plain SGD it equals weight decay of 2 · strength; with adaptive optimizers it
    does not (Loshchilov & Hutter 2019, arXiv 1711.05101).
    """

    def size(self, parameter: Tensor) -> Tensor:
        return parameter.square().sum()
