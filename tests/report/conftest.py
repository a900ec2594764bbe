import pytest

from tests.helpers import factory


@pytest.fixture(scope="session")
def ablation(tmp_path_factory):
    """A complete sweep of 84 runs. Tests must not change its records."""
    return factory.ablation(tmp_path_factory.mktemp("runs") / "ablation")


@pytest.fixture(scope="session")
def holes(tmp_path_factory):
    """The same sweep with every kind of trouble."""
    return factory.holes(tmp_path_factory.mktemp("runs") / "ablation")
