"""TrivialAugment."""

from torch import Tensor, nn

from genbench.regularization.base import Method
from genbench.regularization.shared.inputs import check_images, integers
from genbench.regularization.shared.operations import OPERATIONS, Ranges, applied, choice, relative
from genbench.rng import StepRandom

WIDE = Ranges(angle=135, shear=0.99, shift=1.0, factor=0.99, bits=(8, 6))


class TrivialAugment(Method):
    """Applies one uniformly drawn operation to each image [B, C, H, W], at a strength drawn uniformly from 0, 1/30, …,
    1 (Müller & Hutter 2021, arXiv 2103.10158, Alg. 1).

    Strengths cover the wide ranges of the paper: rotations up to 135°, shears up to 0.99, shifts up to 32 of 32 pixels,
    enhancements by 0.01 to 1.99, 2 to 8 bits of 8, any threshold of inversion.

    The operations, :data:`~genbench.regularization.shared.operations.OPERATIONS`, act relative to the range of values
    of each image. There is nothing to tune.
    """

    order = 11  # after flips and crops

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        check_images("trivial_augment", x)
        strength = integers(draw.uniform("trivial_augment.strength", len(x)), 31).double() / 30
        what = choice(draw, "trivial_augment", OPERATIONS, strength, len(x))
        return relative(x, lambda unit: applied(unit, what, WIDE)), y
