import pytest
import torch

from genbench.regularization.cutout import Cutout
from genbench.regularization.flip import Flip
from genbench.regularization.input_noise import InputNoise
from genbench.regularization.random_crop import RandomCrop
from genbench.regularization.shared.pixels import Pixels, together
from genbench.rng import StepRandom

IMAGES = torch.randn(40, 3, 8, 10, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(40, dtype=torch.long)
FLIP, CROP, CUTOUT, NOISE = Flip(probability=0.5), RandomCrop(padding=0.25), Cutout(size=0.5), InputNoise(std=0.1)


@pytest.mark.parametrize(
    "methods",
    [
        [FLIP, CROP, CUTOUT],
        [CUTOUT, CROP, FLIP],  # what is cut out moves with the image
        [CUTOUT, FLIP],
        [CROP, CUTOUT, CROP],
        [FLIP, NOISE, CROP, CUTOUT],
    ],
    ids=lambda methods: "-".join(type(method).__name__ for method in methods),
)
def test_together_is_one_after_the_other_bit_for_bit(methods):
    def changed(parts):
        x = IMAGES
        for part in parts:
            x, y = part.transform(None, x, Y, StepRandom(0, 3))
            assert y is Y
        return x

    parts = together(methods)
    assert len(parts) == (3 if NOISE in methods else 1)
    assert torch.equal(changed(parts), changed(methods))
    assert not torch.equal(changed(parts), changed(methods[:-1]))


def test_every_pixel_is_the_one_that_was_asked_for():
    pixels = Pixels(IMAGES[:2])
    pixels.move(3, torch.arange(9, -1, -1).expand(2, 10))
    pixels.move(2, torch.arange(8) + torch.tensor([[2], [-3]]), leaving=True)
    pixels.blank(torch.tensor([[0, 4], [6, -1]]), torch.tensor([2, 3]))
    expected = torch.zeros(2, 3, 8, 10)
    expected[0, :, :6] = IMAGES[0].flip(2)[:, 2:]
    expected[1, :, 3:] = IMAGES[1].flip(2)[:, :5]
    expected[0, :, :2, 4:7] = 0
    expected[1, :, 6:, :2] = 0
    assert torch.equal(pixels.made(), expected)


def test_nothing_asked_for_is_nothing_done():
    assert Pixels(IMAGES).made() is IMAGES
