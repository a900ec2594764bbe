import pytest
import torch
from kornia.geometry.transform import rotate

from genbench.regularization.rotation import Rotation
from genbench.rng import StepRandom

X, Y = torch.rand(200, 2, 9, 9).double(), torch.zeros(200, dtype=torch.long)


def test_each_image_is_turned_by_its_own_angle():
    turned, y = Rotation(angle=40.0).transform(None, X, Y, draw := StepRandom(0, 0))
    assert y is Y
    angle = 40 * (2 * draw.uniform("rotation", 200).double() - 1)
    assert angle.min() < -35
    assert angle.max() > 35
    # kornia's rotate turns counter-clockwise, its corners are the centres of the pixels
    torch.testing.assert_close(turned, rotate(X, -angle, align_corners=True), rtol=0, atol=1e-12)


def test_no_angle_is_the_identity():
    torch.testing.assert_close(Rotation(angle=0).transform(None, X, Y, StepRandom(0, 0))[0], X)


def test_bad_input():
    for angle in (-1, 181, float("nan"), "right", True):
        with pytest.raises(ValueError, match="angle is "):
            Rotation(angle=angle)
