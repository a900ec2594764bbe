import os
from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.data import MNIST1D
from genbench.data.mnist1d import generate

SAMPLE = Path(__file__).parents[1] / "fixtures" / "mnist1d_sample.npz"  # rows of the authors' frozen set


@pytest.mark.usefixtures("untouched")
def test_generator_gives_the_frozen_set_and_leaves_global_random_states_alone():
    made, sample = generate(), np.load(SAMPLE)
    np.testing.assert_allclose(made["x"][sample["rows"]], sample["x"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(made["x_test"][sample["rows_test"]], sample["x_test"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([made["y"], made["y_test"]]), sample["labels"])


@pytest.mark.skipif("GENBENCH_DATA" not in os.environ, reason="GENBENCH_DATA names no folder of real data")
def test_generator_gives_the_whole_frozen_set():
    made, frozen = generate(), np.load(Path(os.environ["GENBENCH_DATA"]) / "mnist1d_frozen.npz")
    for name in ("x", "x_test"):
        np.testing.assert_allclose(made[name], frozen[name], rtol=0, atol=1e-12)
    for name in ("y", "y_test"):
        np.testing.assert_array_equal(made[name], frozen[name])


def test_shapes_types_and_classes():
    data = MNIST1D()
    x, y = data.tensors("train")
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((4000, 1, 40), torch.float32, (4000,), torch.int64)
    assert data.tensors("test")[0].shape == (1000, 1, 40)
    assert (data.input_shape, data.classes, data.steps_per_epoch) == ((1, 40), 10, 40)


def test_every_example_is_there():
    data = MNIST1D(seed=5)
    ours = data.tensors("train")[0][:, 0].sort(dim=0).values
    frozen = torch.from_numpy(generate()["x"]).float().sort(dim=0).values
    assert torch.equal(ours, frozen)
