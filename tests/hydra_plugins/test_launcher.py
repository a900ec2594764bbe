"""The launcher composes as Hydra does, only faster."""

import multiprocessing
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

import hydra_plugins
from genbench import records
from genbench.config import folder, resolve
from hydra_plugins.genbench.launcher import Composer, _distinct, _load_check
from tests.helpers.choices import choices
from tests.helpers.commands import typed

JOBS = [
    ("regularization=none", "seed=0"),
    ("regularization=[l2,mixup]", "seed=1", "regularization.l2.strength=0.5"),
    ("regularization=l2", "seed=1", "data.label_noise=0.2", "optimizer=sgd", "optimizer.lr=0.3"),
    ("model=cnn", "+model.note=added", "~callbacks.measures", "name='with space'", "callbacks.gap={every_n_epochs:7}"),
]


@pytest.fixture
def loader():
    with initialize_config_dir(str(folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def test_it_composes_what_hydra_composes(loader):
    master = loader.load_configuration("train", ["experiment=ablation"], run_mode=RunMode.MULTIRUN)
    compose = Composer(loader, master)
    for overrides in [*JOBS, *JOBS]:
        expected = loader.load_sweep_config(master, list(overrides))
        expected = {k: v for k, v in OmegaConf.to_container(expected).items() if k != "hydra"}
        ours = compose(overrides)
        assert {k: v for k, v in OmegaConf.to_container(ours).items() if k != "hydra"} == expected
        assert resolve(ours)["data"]["seed"] == resolve(ours)["seed"]


def test_the_claims_of_a_sweep_are_one_object_in_all_jobs_that_do_not_set_them(loader):
    master = loader.load_configuration("train", ["experiment=keskar2017"], run_mode=RunMode.MULTIRUN)
    compose, one = Composer(loader, master), "experiment=keskar2017"
    jobs = [(one, "seed=0"), (one, "seed=1"), (one, "seed=2", "claims.rules.C1.source=mine", "table.title=ours")]
    first, second, own = (resolve(compose(job)) for job in jobs)
    assert first["claims"] is second["claims"]
    assert first["table"] is second["table"]
    assert own["claims"]["rules"]["C1"].pop("source") == "mine"
    assert own["table"].pop("title") == "ours"
    assert first["claims"]["rules"]["C1"].pop("source") != "mine"  # of the kept object: the jobs' own are apart from it
    assert first["table"].pop("title") != "ours"
    assert (own["claims"], own["table"]) == (second["claims"], second["table"])


def test_a_table_that_refers_to_a_setting_is_of_each_job(loader):
    words = ("experiment=ablation", "table.title='seed ${seed}'")
    compose = Composer(loader, loader.load_configuration("train", list(words), run_mode=RunMode.MULTIRUN))
    assert [resolve(compose((*words, f"seed={n}")))["table"]["title"] for n in range(2)] == ["seed 0", "seed 1"]


@pytest.mark.parametrize("asked", ["in a file", "in a word"])
def test_a_setting_that_asks_for_the_number_of_the_job_gets_it(asked, loader, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nname: ${hydra:job.num}-${seed}\nruns_dir: runs${hydra:job.id}\n"
    (tmp_path / "experiment" / "asking.yaml").write_text(text)
    where = [f"hydra.searchpath=[file://{tmp_path}]"]
    words = ["experiment=asking"]
    if asked == "in a word":
        words = ["name='${hydra:job.num}-${seed}'", "runs_dir='runs${hydra:job.id}'"]
    compose = Composer(loader, loader.load_configuration("train", [*where, *words], run_mode=RunMode.MULTIRUN))
    found = [resolve(compose((*words, f"seed={n + 5}"), number=n)) for n in range(2)]
    assert [each["name"] for each in found] == ["0-5", "1-6"]
    assert [each["runs_dir"] for each in found] == ["runs0", "runs1"]


def test_an_unknown_key_is_refused(loader):
    master = loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN)
    with pytest.raises(Exception, match=r"data\.trian_size"):
        Composer(loader, master)(["data.trian_size=5"])


def test_of_two_overrides_of_a_key_the_last_counts_and_repetitions_are_dropped():
    jobs = [["seed=0", "model=mlp", "seed=5"], ["seed=1", "model=mlp", "seed=5"]]
    assert _distinct(jobs) == [("seed=5", "model=mlp")]


def test_other_applications_find_our_groups(tmp_path):
    (tmp_path / "config.yaml").write_text("defaults:\n  - regularization: [l2]\n  - data: digits\nseed: 3\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composed = compose("config", ["regularization=[l2,sam]"])
    assert sorted(composed.regularization) == ["l2", "sam"]
    assert composed.data.seed == 3


def test_two_processes_of_one_thread_are_the_default(loader):
    config = loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN)
    assert config.hydra.launcher._target_ == "hydra_plugins.genbench.launcher.SweepLauncher"
    assert (config.hydra.launcher.n_jobs, config.threads) == (2, 1)


def swept(loader, *arguments):
    """The jobs of a multirun command, each as a dictionary."""
    config = loader.load_configuration(
        "train", [word for word in arguments if word.startswith("experiment=")], run_mode=RunMode.MULTIRUN
    )
    sweeper = instantiate(config.hydra.sweeper)
    sweeper.hydra_context = SimpleNamespace(config_loader=loader)
    parser = OverridesParser.create(config_loader=loader)
    words = [*sweeper._parse_config(), *(word for word in arguments if not word.startswith("experiment="))]
    (jobs,) = sweeper.split_arguments(parser.parse_overrides(words), None)
    return [dict(text.split("=", 1) for text in job) for job in jobs]


def test_a_sweep_without_grids_is_the_product_of_its_values(loader):
    jobs = swept(loader, "seed=0,1", "regularization=none,[l2,mixup]")
    assert [tuple(job.values()) for job in jobs] == [
        ("0", "none"), ("0", "[l2,mixup]"), ("1", "none"), ("1", "[l2,mixup]")
    ]  # fmt: skip


def test_the_command_line_picks_among_the_grids_of_an_experiment(loader):
    both = swept(loader, "experiment=ablation", "regularization=dropout,none", "seed=3")
    assert {job["regularization"] for job in both} == {"dropout", "none"}
    assert len(both) == 2 * (5 + 1)
    assert {job["seed"] for job in both} == {"3"}
    own = swept(loader, "experiment=ablation", "regularization=[l2,mixup]", "seed=3")
    assert own == [{"seed": "3", "data.label_noise": noise, "regularization": "[l2,mixup]"} for noise in ("0.0", "0.2")]
    one = swept(loader, "experiment=ablation", "regularization=l2", "regularization.l2.strength=0.03", "seed=3")
    assert {job["regularization.l2.strength"] for job in one} == {"0.03"}  # the grid's 3e-2, once for each noise level
    assert len(one) == 2
    new = swept(loader, "experiment=ablation", "regularization=l2", "regularization.l2.strength=7", "seed=3")
    assert {job["regularization.l2.strength"] for job in new} == {"7"}


def test_the_ablation_is_what_it_says(loader):
    """Fourteen strategies, of each that has a strength the same number of them; the columns that a reader expects."""
    config = loader.load_configuration("train", ["experiment=ablation"], run_mode=RunMode.MULTIRUN)
    params = config.hydra.sweeper.params
    jobs = swept(loader, "experiment=ablation")
    conditions = {(job.pop("seed"), job.pop("data.label_noise")) for job in jobs}
    assert conditions == {(str(seed), noise) for seed in range(5) for noise in ("0.0", "0.2")}
    strategies = {job["regularization"] for job in jobs}
    assert len(strategies) == 14
    settings = {name: {tuple(job.items()) for job in jobs if job["regularization"] == name} for name in strategies}
    assert len(jobs) == sum(map(len, settings.values())) * len(conditions)
    assert strategies <= set(choices("regularization"))
    without = ("none", "batch_norm", "ensemble")
    assert {name: len(found) for name, found in settings.items()} == {n: 1 if n in without else 5 for n in strategies}
    assert config.table.choose == {"metric": "val/performance/accuracy", "best": "max"}
    assert not {"trainer.max_steps", "optimizer.lr"} & set(params)
    assert f"learning rate {config.optimizer.lr}" in config.table.caption
    assert f"{config.trainer.max_steps} steps in every row" in config.table.caption
    metrics = {column.metric for column in config.table.columns}
    families = ("performance/accuracy", "gap/accuracy", "lambda_1", "trace", "sam_sharpness", "adaptive_sharpness")
    for family in (*families, "norm/l2", "norm/distance", "seconds"):
        assert any(family in metric for metric in metrics), family


def test_every_strategy_is_measured_somewhere(loader):
    """Their page has a number for each, but for what needs a trained network, and for what papers on it measure."""
    found = [job for name in ("strategies", "image_strategies") for job in swept(loader, f"experiment={name}")]
    named = ("hochreiter1997", "keskar2017", "liu2020", "streams", "theory")
    papers = [job for name in named for job in swept(loader, f"experiment={name}")]
    of_papers = {name for job in papers for name in job.get("regularization", "none").strip("[]").split(",")}
    missing = set(choices("regularization")) - {job["regularization"] for job in found}
    assert missing == {
        "curriculum",
        "transfer",
        "flat_minimum_search",
        "gradient_norm",
        "ghost_batch_norm",
        "least_squares",
        "random_labels",
        "random_subspace",
        "squared_error",
        "warm_start",
        "weight_elimination",
    }
    assert missing - of_papers == {"curriculum", "transfer", "least_squares", "squared_error"}
    chosen = [
        loader.load_configuration("train", [f"experiment={name}"], run_mode=RunMode.RUN)
        for name in ("belkin2019", "cohen2021")
    ]
    assert {"least_squares", "squared_error"} <= {name for config in chosen for name in config.regularization}


class Forks(Launcher):
    """Runs each job in a process of its own, side by side, as Hydra's launchers for joblib, submitit and Ray do."""

    __module__ = "hydra_plugins.forks"  # Hydra takes no other

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        context = multiprocessing.get_context("fork")
        pipes, processes = [], []
        for number, overrides in enumerate(job_overrides):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=self.job, args=(list(overrides), initial_job_idx + number, theirs)))
            pipes.append(ours)
            processes[-1].start()
        found = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
        return found

    def job(self, overrides, number, pipe):
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        pipe.send(
            run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        )
        os._exit(0)


def test_jobs_that_another_launcher_runs_in_other_processes_are_one_plan(tmp_path, monkeypatch):
    plugin = ModuleType("hydra_plugins.forks")
    plugin.Forks = Forks
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    monkeypatch.setattr(hydra_plugins, "forks", plugin, raising=False)
    Plugins.instance().register(Forks)
    launchers = tmp_path / "conf" / "hydra" / "launcher"
    launchers.mkdir(parents=True)
    (launchers / "forks.yaml").write_text("_target_: hydra_plugins.forks.Forks\n")
    work = tmp_path / "work"
    work.mkdir()

    def swept(*arguments):
        short = ("trainer.max_steps=10", "data.train_size=100", "callbacks.measures=null", "trainer.accelerator=cpu")
        status, out, err = typed(
            work, "genbench", "--config-dir", "../conf", "-m", "hydra/launcher=forks", *short, *arguments
        )
        assert status == 0, err
        plan = records.read_sweep(work / "runs" / "default")
        seeds = {word for run in plan["runs"] for word in run["overrides"] if word.startswith("seed=")}
        return out, plan["command"][-len(arguments) :], seeds

    out, words, planned = swept("seed=0,1")
    assert (words, planned) == (["seed=0,1"], {"seed=0", "seed=1"})
    assert "over n = 2 seeds" in " ".join(out.split())
    # another command's plan takes its place, whether its runs were there or not
    _, words, planned = swept("seed=1,3")
    assert (words, planned) == (["seed=1,3"], {"seed=1", "seed=3"})
    assert (work / "runs" / "default" / "table.csv").exists()


def test_a_table_may_name_a_setting_that_only_some_networks_have(tmp_path):
    def run(**model):
        bound, choices = {"model": model}, {"model": "mlp"}
        plan = SimpleNamespace(bound=bound, choices=choices, folder=tmp_path / "a")
        return {"table": {"rows": ["model.depth"]}}, SimpleNamespace(plan=plan)

    check = _load_check([], reported=False)
    check([run(width=1), run(width=1, depth=2)])
    with pytest.raises(ValueError, match=r"'model\.depth' is neither a group nor a setting of the runs"):
        check([run(width=1), run(width=2)])
