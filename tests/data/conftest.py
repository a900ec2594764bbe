import random

import numpy as np
import pytest
import torch


@pytest.fixture
def untouched():
    """Fails where the test has changed a global random state."""

    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            np.random.get_state()[2:],
            torch.get_rng_state().tolist(),
        )

    before = states()
    yield
    assert states() == before
