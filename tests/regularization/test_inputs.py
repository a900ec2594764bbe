"""What all methods have in common that change inputs."""

import random

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.config import folder
from genbench.models import MLP
from genbench.rng import StepRandom

IMAGES = torch.rand(24, 3, 12, 9, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(24, 2, 40, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
NET = MLP(input_shape=(3, 12, 9), classes=3)
BOTH = ["augmentation", "cutmix", "cutout", "input_noise", "mixup"]
ALONE = ["flip", "rand_augment", "random_crop", "rotation", "trivial_augment"]
CASES = [(name, x) for name in BOTH for x in (IMAGES, SEQUENCES)] + [(name, IMAGES) for name in ALONE]
NAMES = [f"{name}-{'images' if x is IMAGES else 'sequences'}" for name, x in CASES]


def method(name):
    return instantiate(OmegaConf.load(folder() / "regularization" / f"{name}.yaml")[name])


@pytest.mark.parametrize(("name", "x"), CASES, ids=NAMES)
def test_same_step_same_batch_and_nothing_else_changes(name, x):
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    kept = x.clone()
    (first, y), (same, z), (other, _) = (method(name).transform(NET, x, Y, StepRandom(0, step)) for step in (4, 4, 5))
    assert torch.equal(first, same)
    assert torch.equal(y, z)
    assert not torch.equal(first, other)
    assert not torch.equal(first, x)
    assert torch.equal(x, kept)
    assert (random.getstate(), str(np.random.get_state())) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "x"), CASES, ids=NAMES)
def test_shape_and_type_are_kept(name, x, dtype):
    moved, y = method(name).transform(NET, x.to(dtype), Y, StepRandom(0, 0))
    assert (moved.shape, moved.dtype) == (x.shape, dtype)
    assert y is Y or (y.shape, y.dtype) == ((24, 3), dtype)
    assert moved.isfinite().all()


@pytest.mark.parametrize("name", ALONE)
def test_images_alone(name):
    with pytest.raises(ValueError, match=rf"^regularization {name}: inputs of shape \(24, 2, 40\); accepted: images"):
        method(name).transform(NET, SEQUENCES, Y, StepRandom(0, 0))


@pytest.mark.parametrize("name", ["augmentation", "cutmix", "cutout"])
def test_images_and_sequences_alone(name):
    with pytest.raises(ValueError, match=rf"^regularization {name}: inputs of shape \(24, 5\); accepted: sequences"):
        method(name).transform(NET, torch.zeros(24, 5), Y, StepRandom(0, 0))
