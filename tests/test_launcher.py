"""The launcher composes as Hydra does, only faster."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from genbench.config import folder
from hydra_plugins.genbench.processes import _Composer, _distinct, _plain

JOBS = [
    ("regularization=none", "seed=0"),
    ("regularization=[l2,mixup]", "seed=1", "regularization.l2.strength=0.5"),
    ("regularization=l2", "seed=1", "data.label_noise=0.2", "optimizer=sgd", "optimizer.lr=0.3"),
    ("model=cnn", "+model.note=added", "~callbacks.flatness", "name='with space'", "callbacks.gap={every_n_epochs:7}"),
]


@pytest.fixture
def loader():
    with initialize_config_dir(str(folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def test_it_composes_what_hydra_composes(loader):
    master = loader.load_configuration("train", ["experiment=ablation"], run_mode=RunMode.MULTIRUN)
    compose = _Composer(loader, master)
    for overrides in [*JOBS, *JOBS]:
        expected = loader.load_sweep_config(master, list(overrides))
        expected = {k: v for k, v in OmegaConf.to_container(expected).items() if k != "hydra"}
        ours = compose(overrides)
        assert {k: v for k, v in OmegaConf.to_container(ours).items() if k != "hydra"} == expected
        assert _plain(ours)["data"]["seed"] == _plain(ours)["seed"]


def test_an_unknown_key_is_refused(loader):
    master = loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN)
    with pytest.raises(Exception, match=r"data\.trian_size"):
        _Composer(loader, master)(["data.trian_size=5"])


def test_of_two_overrides_of_a_key_the_last_counts_and_repetitions_are_dropped():
    jobs = [["seed=0", "model=mlp", "seed=5"], ["seed=1", "model=mlp", "seed=5"]]
    assert _distinct(jobs) == [("seed=5", "model=mlp")]
