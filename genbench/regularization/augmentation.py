"""Random changes of inputs that keep their class."""

from torch import Tensor, nn

from genbench.inputs.augmentation import augmented
from genbench.regularization.base import Method
from genbench.regularization.shared.inputs import check_signals
from genbench.rng import StepRandom


class Augmentation(Method):
    """Trains on a new random version of every example at every step (Simard et al. 2003, ICDAR, for images): sequences
    are shifted circularly and scaled, images shifted and rotated, and both get noise, as
    :func:`genbench.inputs.augmentation.augmented` says.

    Args:
        shift: largest shift as a share of the side, in [0, 1].
        scale: largest relative change of the amplitude, in [0, 1]; sequences only.
        rotation: largest rotation in degrees, in [0, 180]; images only.
        noise: standard deviation in units of the input, at least 0.
    """

    order = 10
    shift: Tensor
    scale: Tensor
    rotation: Tensor
    noise: Tensor

    def __init__(self, *, shift: float, scale: float, rotation: float, noise: float) -> None:
        super().__init__()
        self.setting("shift", shift, low=0, high=1)
        self.setting("scale", scale, low=0, high=1)
        self.setting("rotation", rotation, low=0, high=180)
        self.setting("noise", noise, low=0)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_signals("augmentation", x)
        settings = {"shift": self.shift, "scale": self.scale, "rotation": self.rotation, "noise": self.noise}
        return augmented(x, draw, **settings), y
