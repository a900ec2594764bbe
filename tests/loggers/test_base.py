import importlib
import importlib.util
import inspect
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf

from genbench import config, loggers
from genbench.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tests.helpers.loggers import RECORD, ROW, log, make_run, read


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_each_file_is_one_keyed_entry_that_lists_every_setting(name):
    path = config.folder() / "logger" / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert list(node) == [name]
    target = node[name].pop("_target_")
    assert node[name].pop("_partial_") is True
    module, _, attribute = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert {"run", *node[name]} == set(parameters)
    defaults = {key: parameters[key].default for key in node[name]}
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()} == node[name]


def test_a_lightning_logger_of_the_users_own_is_taken_as_it_is(tmp_path):
    own = pl.loggers.CSVLogger(tmp_path, name="own")
    built = loggers.build({"own": own, "csv": partial(CSVLogger)}, make_run(tmp_path))
    assert built[0] is own
    log(built, ROW, step=1)
    loggers.finish(built, RECORD)
    assert float(read(Path(own.log_dir) / "metrics.csv")[0]["test/gap/accuracy"]) == 0.25


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_whose_package_is_missing_says_what_to_install(name, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *args: None if module == name else find(module, *args)
    )
    with pytest.raises(ValueError, match=rf'^logger {name} needs: pip install "genbench\[{name}\]"$'):
        loggers.build({"csv": partial(CSVLogger), name: partial(CSVLogger)}, make_run(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (partial(CSVLogger, flush_seconds=-1), "logger.csv.flush_seconds is -1; accepted: a number in"),
        (partial(TensorBoardLogger, flush_seconds=0.5), "logger.tensorboard.flush_seconds is 0.5; accepted"),
        (partial(WandbLogger, mode="on"), "logger.wandb.mode is 'on'; accepted: online, offline, disabled"),
        (partial(WandbLogger, timeout=0), "logger.wandb.timeout is 0; accepted: a number in"),
        (partial(WandbLogger, tags="paper"), "logger.wandb.tags is 'paper'; accepted: a list of words"),
        (partial(WandbLogger, tags=["a" * 65]), "logger.wandb.tags is .*; accepted: a list of words of 1 to 64"),
        (partial(WandbLogger, notes=3), "logger.wandb.notes is 3; accepted: a text, null"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_written(part, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        part(run=make_run(tmp_path))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_names_tell_strategies_apart(tmp_path):
    swept = make_run(tmp_path)
    assert swept.strategy == "l2+mixup, data.label_noise=0.2"
    assert make_run(tmp_path, seed=4, overrides=["seed=4", *swept.overrides[:2]]).strategy == swept.strategy
    alone = make_run(tmp_path, overrides=[])
    assert (alone.strategy, alone.name) == ("l2+mixup", "mnist1d, mlp, l2+mixup, seed 3")


def test_the_baseline_is_called_none(tmp_path):
    choices = {"data": "mnist1d", "model": "mlp", "regularization": []}
    swept = make_run(tmp_path, choices=choices, overrides=["regularization=none", "data.label_noise=0.2", "seed=3"])
    assert swept.regularization == "none"
    assert (swept.strategy, swept.name) == ("none, data.label_noise=0.2", "none, data.label_noise=0.2, seed 3")
    alone = make_run(tmp_path, choices=choices, overrides=[])
    assert (alone.strategy, alone.name) == ("none", "mnist1d, mlp, none, seed 3")
