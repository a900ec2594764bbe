"""Digits: 8 × 8 images of handwritten digits."""

from importlib.metadata import version

import numpy as np

from genbench.data.base import TensorData
from genbench.data.cache import Arrays, cached


def _read() -> Arrays:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8) / 16.0
    test = np.arange(len(labels)) % 5 == 4
    return {"x": images[~test], "y": labels[~test], "x_test": images[test], "y_test": labels[test]}


class Digits(TensorData):
    """The test part of UCI's optical digits, as in scikit-learn: grey values in [0, 1], shape (1, 8, 8), 10 classes.

    These 1797 images have no published split. Here every fifth in scikit-learn's order (indices 4, 9, 14, …) is a test
    image: 1438 for training, 359 for testing. Settings are those of
    :class:`genbench.data.TensorData`.
    """

    name = "digits"
    classes = 10

    @staticmethod
    def load() -> Arrays:
        """Return the images divided by 16, their largest grey value."""
        return cached(f"digits-{version('scikit-learn')}", _read)
