"""The training that these tests share."""

from collections.abc import Callable

import pytest

from genbench.training import Training
from tests.helpers import runs


@pytest.fixture
def fit() -> Callable[..., Training]:
    """Train networks (one per lane) with methods on the blobs; return the finished module."""
    return runs.fit
