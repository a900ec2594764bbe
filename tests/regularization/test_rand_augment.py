import pytest
import torch

from genbench.regularization.rand_augment import AUTO_AUGMENT, RandAugment
from genbench.regularization.shared.operations import OPERATIONS, Choice, applied
from genbench.rng import StepRandom

X = torch.rand(64, 3, 12, 9, generator=torch.Generator().manual_seed(0)).double()


def test_n_operations_one_after_the_other_all_of_one_strength():
    draw = StepRandom(0, 3)
    ours, y = RandAugment(n=2, magnitude=4.0).transform(None, X, Y := torch.zeros(64).long(), draw)
    assert y is Y
    low, high = X.amin((1, 2, 3), keepdim=True), X.amax((1, 2, 3), keepdim=True)
    unit = (X - low) / (high - low)
    for i in range(2):
        operation = (14 * draw.uniform(f"rand_augment.{i}.operation", 64)).long()
        sign = torch.where(draw.uniform(f"rand_augment.{i}.sign", 64) < 0.5, 1.0, -1.0)
        unit = applied(unit, Choice(operation, torch.full((64,), 0.4), sign), AUTO_AUGMENT)
        assert len(set(operation.tolist())) > 9  # each image its own
    torch.testing.assert_close(ours, low + (high - low) * unit)


def test_magnitude_zero_leaves_what_the_strength_is_of():
    draw = StepRandom(0, 0)
    ours, _ = RandAugment(n=1, magnitude=0).transform(None, X, torch.zeros(64).long(), draw)
    operation = (14 * draw.uniform("rand_augment.0.operation", 64)).long()
    # with no strength these still change an image: a channel's range, its histogram, 8 bits, the very brightest point
    named = [OPERATIONS.index(name) for name in ("autocontrast", "equalize", "posterize", "solarize")]
    same = ~torch.isin(operation, torch.tensor(named))
    assert 20 < same.sum() < 64
    torch.testing.assert_close(ours[same], X[same])


def test_values_stay_within_those_of_the_image():
    for step in range(5):
        ours, _ = RandAugment(n=3, magnitude=10).transform(None, 7 * X - 3, torch.zeros(64).long(), StepRandom(1, step))
        assert (ours.amin((1, 2, 3)) > (7 * X - 3).amin((1, 2, 3)) - 1e-9).all()
        assert (ours.amax((1, 2, 3)) < (7 * X - 3).amax((1, 2, 3)) + 1e-9).all()


def test_bad_input():
    for n in (0, 1.5, True, "two"):
        with pytest.raises(ValueError, match=r"regularization RandAugment: n is .*; accepted: an integer of at"):
            RandAugment(n=n, magnitude=5)
    for magnitude in (-1, 11, float("nan"), "much"):
        with pytest.raises(ValueError, match="magnitude is "):
            RandAugment(n=2, magnitude=magnitude)
