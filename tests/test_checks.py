import math
import re
import tomllib
from pathlib import Path

import pytest

from genbench.checks import ConfigError, require

ROOT = Path(__file__).parents[1]


def test_a_module_that_is_there_is_returned():
    assert require("math", extra="hub", needed_by="a test") is math


def test_a_missing_module_is_named_by_its_extra():
    with pytest.raises(ConfigError) as caught:
        require("no_such_module", extra="hub", needed_by="model.weights='hf://a/b'", otherwise="a file")
    assert str(caught.value) == "model.weights='hf://a/b' needs: pip install \"genbench[hub]\"; accepted also: a file"


def test_every_extra_that_a_message_names_is_one():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = [path.read_text() for path in (ROOT / "genbench").rglob("*.py")]
    named = {name for text in code for name in re.findall(r'extra="(\w+)"', text)}
    assert {"datasets", "hub", "joblib", "optimizers", "ray", "submitit", "wandb"} <= named <= set(extras)
