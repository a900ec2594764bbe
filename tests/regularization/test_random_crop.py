import pytest
import torch
import torch.nn.functional as F

from genbench.regularization.random_crop import RandomCrop
from genbench.rng import StepRandom

X, Y = torch.rand(300, 3, 8, 10) + 1, torch.zeros(300, dtype=torch.long)


def test_every_image_is_a_crop_of_the_padded_one_and_all_crops_are_as_likely():
    cropped, y = RandomCrop(padding=0.25).transform(None, X, Y, StepRandom(0, 0))
    assert y is Y
    padded = F.pad(X, (2, 2, 2, 2))  # 0.25 · 8 = 2, 0.25 · 10 rounds to 2
    counts = torch.zeros(5, 5)
    for image, whole in zip(cropped, padded, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, whole[:, i : i + 8, j : j + 10])]
        assert len(fits) == 1
        counts[fits[0]] += 1
    assert float(((counts - 12) ** 2 / 12).sum()) < 51  # χ² with 24 degrees of freedom, p = 0.001


def test_no_padding_is_the_identity():
    assert torch.equal(RandomCrop(padding=0.0).transform(None, X, Y, StepRandom(0, 0))[0], X)


def test_an_image_may_leave():
    cropped, _ = RandomCrop(padding=1.0).transform(None, X, Y, StepRandom(0, 0))
    kept = (cropped != 0).flatten(1).sum(1) // 3
    assert kept.min() <= 4
    assert kept.max() >= 40


def test_bad_input():
    for padding in (-0.1, 4, float("nan"), "half", True):
        with pytest.raises(ValueError, match="padding is "):
            RandomCrop(padding=padding)
