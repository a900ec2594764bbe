import pytest
import torch

from genbench.regularization.flip import Flip
from genbench.rng import StepRandom

X, Y = torch.rand(400, 3, 4, 5), torch.zeros(400, dtype=torch.long)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_share_of_images_that_are_mirrored(probability):
    flipped, y = Flip(probability=probability).transform(None, X, Y, StepRandom(0, 0))
    assert y is Y
    mirrored = (flipped == X.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], X[~mirrored])
    deviation = (probability * (1 - probability) / 400) ** 0.5
    assert float(mirrored.float().mean()) == pytest.approx(probability, abs=4 * deviation)


def test_bad_input():
    for probability in (-0.1, 1.1, float("nan"), "half", True):
        with pytest.raises(ValueError, match="probability is "):
            Flip(probability=probability)
