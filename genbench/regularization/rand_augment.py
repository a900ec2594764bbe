"""RandAugment."""

from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.regularization.base import Method
from genbench.regularization.shared.inputs import check_images
from genbench.regularization.shared.operations import OPERATIONS, Ranges, applied, choice, relative
from genbench.rng import StepRandom

AUTO_AUGMENT = Ranges(angle=30, shear=0.3, shift=0.45, factor=0.9, bits=(8, 4))


class RandAugment(Method):
    """Applies ``n`` uniformly drawn operations of one strength to each image [B, C, H, W], one after the other
    (Cubuk et al. 2020, arXiv 1909.13719, Sec. 3).

    The operations, :data:`~genbench.regularization.shared.operations.OPERATIONS`, act relative to the range of values
    of each image.

    Args:
        n: number of operations for each image, at least 1.
        magnitude: strength of the operations, in [0, 10]; 10 is AutoAugment's maximum (Cubuk et al. 2019, arXiv
            1805.09501, Tab. 6): rotations by 30°, shears by 0.3, shifts by 0.45 of the side, enhancements by 0.1 or
            1.9, 4 bits of 8, all inverted.
    """

    per_lane = ("magnitude",)
    order = 11  # after flips and crops
    magnitude: Tensor

    def __init__(self, *, n: int, magnitude: float) -> None:
        super().__init__()
        self.n = check_integer("regularization RandAugment: n", n, least=1)
        self.setting("magnitude", magnitude, low=0, high=10)

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_images("rand_augment", x)
        whats = [choice(draw, f"rand_augment.{i}", OPERATIONS, self.magnitude / 10, len(x)) for i in range(self.n)]

        def all_of_them(unit: Tensor) -> Tensor:
            for what in whats:
                unit = applied(unit, what, AUTO_AUGMENT)
            return unit

        return relative(x, all_of_them), y
