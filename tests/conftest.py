"""What tests of several rooms share."""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pictures import write_tiny

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several processes on few cores


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Data sets are made once for all processes of the tests, outside the user's own cache."""
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["GENBENCH_CACHE"] = str(own / "cache")


@pytest.fixture(scope="session", autouse=True)
def config(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The key that marks records is one of this session."""
    os.environ["GENBENCH_CONFIG"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images for every choice of data that would come from the hub."""
    os.environ["GENBENCH_TINY"] = str(write_tiny(tmp_path_factory.mktemp("images")))


@cache
def _composed(*overrides: str) -> Any:
    """A composition takes longer than many a test."""
    from hydra import compose, initialize_config_dir

    from genbench.config import folder

    with initialize_config_dir(str(folder()), version_base="1.3"):
        return compose("train", [*overrides])


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Any]:
    """The plain configuration that overrides give, for a short run in a temporary folder; with ``each``, one for each
    of these changes of values, composed once, which takes longer than such a run."""
    from omegaconf import OmegaConf

    def configure(*overrides: str, small: bool = True, each: Sequence[Mapping[str, Any]] | None = None) -> Any:
        short = ["data.train_size=200", "data.val_fraction=0.1", "data.batch_size=20", "trainer.max_steps=27"]
        composed = _composed("trainer.accelerator=cpu", *(short if small else []), *overrides)
        own = {} if any(word.startswith("runs_dir=") for word in overrides) else {"runs_dir": str(tmp_path / "runs")}
        found = []
        for changes in each or [{}]:
            changed = deepcopy(composed)
            for key, value in (own | dict(changes)).items():
                OmegaConf.update(changed, key, value)
            found.append(OmegaConf.to_container(changed, resolve=True))
        return found[0] if each is None else found

    return configure
