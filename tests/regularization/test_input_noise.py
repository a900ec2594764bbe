import pytest
import torch

from genbench.regularization.input_noise import InputNoise
from genbench.rng import StepRandom

Y = torch.zeros(64, dtype=torch.long)


@pytest.mark.parametrize("shape", [(64, 5), (64, 2, 40), (64, 3, 8, 8)])
def test_noise_has_the_stated_deviation(shape):
    noisy, y = InputNoise(std=0.3).transform(None, x := torch.randn(shape), Y, StepRandom(0, 0))
    assert y is Y
    noise = (noisy - x).flatten().double()
    assert noise.mean().abs() < 4 * 0.3 / len(noise) ** 0.5
    assert noise.std().item() == pytest.approx(0.3, abs=4 * 0.3 / (2 * len(noise)) ** 0.5)


def test_no_noise_is_the_identity():
    x = torch.randn(64, 5)
    assert torch.equal(InputNoise(std=0).transform(None, x, Y, StepRandom(0, 0))[0], x)


def test_bad_input():
    for std in (-0.1, float("inf"), "much", True):
        with pytest.raises(ValueError, match="std is "):
            InputNoise(std=std)
