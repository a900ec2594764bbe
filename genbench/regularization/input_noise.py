"""Noise on the inputs."""

from torch import Tensor, nn

from genbench.regularization.base import Method
from genbench.rng import StepRandom


class InputNoise(Method):
    """Adds N(0, std²) to each entry of the inputs at every step.

    To first order, this penalizes the gradient of the output with respect to the inputs (Bishop 1995, Neural
    Computation 7).

    Args:
        std: standard deviation in units of the input, at least 0.
    """

    order = 15  # last of the input changes: others would smooth the noise or cut it off
    std: Tensor

    def __init__(self, *, std: float) -> None:
        super().__init__()
        self.setting("std", std, low=0)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        return x + self.std * draw.normal("input_noise", *x.shape).to(x.dtype), y
