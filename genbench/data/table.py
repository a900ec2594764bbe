"""Split tasks with finitely many inputs: some for training, all others for testing."""

from torch import Tensor

from genbench.data.cache import Arrays
from genbench.rng import StepRandom


def divided(x: Tensor, y: Tensor, train: int, *, seed: int) -> Arrays:
    """Split the table of a task, inputs [n, ...] and labels [n], into ``train`` training examples and a test set.

    The training set is the beginning of one random order for each seed, so that smaller ones lie within larger ones.

    Raises:
        ValueError: a split would be empty.
    """
    if not 1 <= train < len(y):
        raise ValueError(
            f"data would have {train} training examples of the {len(y)} that there are; accepted: 1 to {len(y) - 1}"
        )
    rows = StepRandom(seed, 0).permutation("data.table", len(y))
    train_rows, test_rows = rows[:train], rows[train:].sort().values
    return {
        "x": x[train_rows].numpy(),
        "y": y[train_rows].numpy(),
        "x_test": x[test_rows].numpy(),
        "y_test": y[test_rows].numpy(),
    }
