import random

import numpy as np
import pytest
import torch

from genbench.models import MLP
from genbench.regularization import Augmentation
from genbench.rng import StepRandom

NET = MLP(input_shape=(1, 4), classes=3)
SEQUENCES, IMAGES = torch.randn(64, 2, 40), torch.rand(64, 1, 8, 8)
Y = torch.zeros(64, dtype=torch.long)
OFF = {"shift": 0.0, "scale": 0.0, "rotation": 0.0, "noise": 0.0}


def apply(x, step=0, **settings):
    moved, y = Augmentation(**{**OFF, **settings}).transform(NET, x, Y, StepRandom(0, step))
    assert y is Y
    assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
    return moved


def test_zero_strength_is_the_identity():
    assert torch.equal(apply(SEQUENCES), SEQUENCES)
    assert torch.allclose(apply(IMAGES), IMAGES, atol=1e-5)


def test_sequences_are_shifted_circularly_by_whole_points():
    moved = apply(SEQUENCES, shift=0.1)
    shifts = []
    for before, after in zip(SEQUENCES, moved, strict=True):
        fits = [k for k in range(-20, 20) if torch.equal(before.roll(k, dims=1), after)]
        assert len(fits) == 1
        shifts += fits
    assert set(shifts) == set(range(-4, 5))  # each example its own, both ways, at most a tenth of 40


def test_sequences_are_scaled():
    factors = apply(SEQUENCES, scale=0.2) / SEQUENCES
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors), rtol=1e-4)
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2


@pytest.mark.parametrize("x", [SEQUENCES, IMAGES], ids=["sequences", "images"])
def test_noise_has_the_stated_deviation(x):
    noise = (apply(x, noise=0.3) - x).flatten()
    assert noise.mean().abs() < 4 * 0.3 / len(noise) ** 0.5
    assert noise.std().item() == pytest.approx(0.3, abs=4 * 0.3 / (2 * len(noise)) ** 0.5)


def centres(images):
    """The centre of mass of each image, as (column, row)."""
    grid = torch.arange(images.shape[-1], dtype=images.dtype)
    mass = images.sum((1, 2, 3))
    return torch.stack([(images.sum((1, 2)) * grid).sum(1) / mass, (images.sum((1, 3)) * grid).sum(1) / mass], dim=1)


def test_images_are_shifted_by_at_most_a_share_of_the_side():
    blob = torch.zeros(64, 1, 20, 20)
    blob[:, :, 9:11, 9:11] = 1
    offset = centres(apply(blob, shift=0.2)) - centres(blob)
    assert offset.abs().max() <= 4 + 1e-4
    assert (offset.amin(0) < -3).all()
    assert (offset.amax(0) > 3).all()


def test_images_are_turned_about_their_centre():
    blob = torch.zeros(64, 1, 21, 21)
    blob[:, :, 9:12, 15:18] = 1  # six points to the right of the centre
    arm = centres(apply(blob, rotation=30.0)) - 10
    angle = torch.atan2(arm[:, 1], arm[:, 0]).rad2deg()
    assert torch.allclose(arm.norm(dim=1), torch.full((64,), 6.0), atol=0.1)
    assert angle.abs().max() < 31
    assert angle.min() < -25
    assert angle.max() > 25


@pytest.mark.parametrize("x", [SEQUENCES, IMAGES], ids=["sequences", "images"])
def test_same_step_same_batch_and_global_generators_untouched(x):
    settings = {"shift": 0.1, "scale": 0.1, "rotation": 10.0, "noise": 0.1}
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    first, same, other = (apply(x, step, **settings) for step in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert (random.getstate(), str(np.random.get_state())) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_double_precision_is_kept():
    assert apply(SEQUENCES.double(), shift=0.1, scale=0.1, noise=0.1).dtype == torch.float64
    assert apply(IMAGES.double(), shift=0.1, rotation=10.0, noise=0.1).dtype == torch.float64


def test_bad_input():
    for name, value in (("shift", 1.5), ("scale", -0.1), ("rotation", 181), ("noise", float("nan"))):
        with pytest.raises(ValueError, match=f"{name} is "):
            Augmentation(**{**OFF, name: value})
    with pytest.raises(ValueError, match=r"inputs of shape \(64, 5\); accepted: sequences"):
        apply(torch.zeros(64, 5))
