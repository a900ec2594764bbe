"""MNIST-1D: ten classes of noisy one-dimensional signals."""

import random
from importlib.metadata import version

import numpy as np

from genbench.data.base import TensorData
from genbench.data.cache import Arrays, cached


def generate() -> Arrays:
    """Generate the authors' frozen MNIST-1D: x [4000, 40], y [4000], x_test [1000, 40], y_test [1000].

    The package ``mnist1d`` makes it with the published defaults (seed 42, 5000 samples, 80 % for training). It seeds
    the global generators of Python and NumPy; both are restored.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        dataset = make_dataset(get_dataset_args())
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
    return {key: dataset[key] for key in ("x", "y", "x_test", "y_test")}


class MNIST1D(TensorData):
    """MNIST-1D (Greydanus, 2020, arXiv 2011.14439): 4000 training and 1000 test signals of shape (1, 40), 10 classes.

    Settings are those of :class:`genbench.data.TensorData`.
    """

    name = "mnist1d"
    classes = 10

    @staticmethod
    def load() -> Arrays:
        """Return the frozen set of the authors, with a channel axis."""
        arrays = cached(f"mnist1d-{version('mnist1d')}", generate)
        return {key: value[:, None] if key.startswith("x") else value for key, value in arrays.items()}
