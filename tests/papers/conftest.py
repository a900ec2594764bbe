"""What the papers' own scales train on in the tests."""

import pytest

from tests.helpers.pictures import write_splits


@pytest.fixture(scope="session")
def _images(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("images"), train=60, test=20, side=32)


@pytest.fixture
def small(_images, monkeypatch):
    """A folder of images like those of CIFAR-10 and MNIST, 60 to train on and 20 to test, beside their cache."""
    monkeypatch.setenv("GENBENCH_CACHE", str(_images / "cache"))
    return _images
