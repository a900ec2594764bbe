"""The settings of an experiment that a command changed."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from genbench.cli.stated import changed, stated
from genbench.config import folder, resolve
from genbench.report.papers.experiments import jobs_of
from genbench.runs.sweep_plan import choices
from hydra_plugins.genbench.launcher import Composer
from tests.helpers.claims import EXPERIMENT

MORE = """\
# @package _global_
defaults:
  - shrinks
data: {train_size: 80}
"""


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    conf = tmp_path_factory.mktemp("stated") / "experiment"
    conf.mkdir()
    (conf / "shrinks.yaml").write_text(EXPERIMENT)
    (conf / "larger.yaml").write_text(MORE)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader(), f"hydra.searchpath=[file://{conf.parent}]"


def told(loader, *typed, experiment="shrinks"):
    """What a sweep of the command changes."""
    words = [f"experiment={experiment}", *typed]
    master = loader[0].load_configuration("train", [loader[1], *words], run_mode=RunMode.MULTIRUN)
    task = list(master.hydra.overrides.task)
    sweeper = master.hydra.sweeper
    swept = {word.partition("=")[0] for word in task}
    params = {key: value for key, value in sweeper.params.items() if key not in swept}
    jobs = jobs_of({**sweeper, "params": params}, loader[0], task)
    composed = [Composer(loader[0], master)(job) for job in jobs]
    runs = [(resolve(each), choices(each.hydra.runtime.choices)) for each in composed]
    every = stated(loader[0], master, task)
    for run in runs:
        assert changed(stated(loader[0], master, task, run=run), [run]) == changed(every, [run])
    return changed(every, runs)


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["seed=range(3)"],
        ["seed=0,7", "threads=2", "trainer.accelerator=gpu", "trainer=ddp", "hydra.launcher.n_jobs=1"],
        ["name=other", "runs_dir=elsewhere", "logger=[]", "checkpoint_seconds=3", "hydra/launcher=basic"],
        ["regularization=l2"],
        ["trainer.max_steps=20", "model=mlp"],
        ["claims.rules.shrinks.statement=Other", "claims.rules.shrinks.source=Other"],
        ["claims=null"],
    ],
    ids=" ".join,
)
def test_seeds_machine_names_and_a_part_of_the_grid_change_nothing(loader, typed):
    assert told(loader, *typed) == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["trainer.max_steps=10"], ["trainer.max_steps=10 where the experiment has 20"]),
        (
            ["data.train_size=40", "optimizer.lr=0.5,0.01"],
            [
                "data.train_size=40 where the experiment has 60",
                "optimizer.lr=0.5 where the experiment has 0.01",
            ],
        ),
        (["model=cnn"], ["model=cnn where the experiment has mlp"]),
        (["regularization=[l2,mixup]"], ["regularization=l2+mixup where the experiment has none"]),
        (["trainer.precision=bf16-mixed"], ["trainer.precision=bf16-mixed where the experiment has 32-true"]),
        (["claims.looks=[6]"], ["claims.looks=6 where the experiment has 5+10"]),
        (
            ["+claims.rules.shrinks.margin=0.1", "claims.rules.shrinks.than.regularization=l1"],
            [
                "claims.rules.shrinks.margin=0.1 where the experiment has –",
                "claims.rules.shrinks.than.regularization=l1 where the experiment has l2",
            ],
        ),
        (["data.seed=0"], ["data.seed=0 where the experiment has the seed"]),
        (["+sources.other=['seed=5']"], ["sources.other=seed=5 where the experiment has –"]),
        (
            ["hydra.sweeper.params.regularization='none,l1'"],
            ["regularization=l1 where the experiment has none"],
        ),
    ],
)
def test_other_settings_are_named(loader, typed, said):
    assert told(loader, *typed) == said


def test_an_experiment_made_from_another_has_its_own_settings(loader):
    assert told(loader, "trainer.max_steps=20", experiment="larger") == []
    assert told(loader, "data.train_size=60", experiment="larger") == ["data.train_size=60 where the experiment has 80"]


def test_an_experiment_without_claims_states_nothing(loader):
    assert told(loader, "trainer.max_steps=10", "seed=0", experiment="ablation") == []
