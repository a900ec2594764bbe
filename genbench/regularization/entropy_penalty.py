"""Entropy penalty."""

from torch import Tensor, nn

from genbench.regularization.base import Method
from genbench.rng import StepRandom


class EntropyPenalty(Method):
    """Subtracts strength · H(p) from the loss, where H(p) is the mean entropy (nats) of predicted class probabilities.

    This penalizes confident predictions (Pereyra et al. 2017, arXiv 1701.06548).
    """

    alters = "trained with a penalty on confident outputs, another loss"
    strength: Tensor

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        log_p = output.log_softmax(1)
        return self.strength.to(output.dtype) * (log_p.exp() * log_p).sum(1).mean()
