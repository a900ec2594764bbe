"""Networks that runs start from: trained before them, once."""

from pathlib import Path

import pytest

from genbench import records
from genbench.checks import ConfigError
from genbench.runs import pretrained, sweep_plan
from genbench.runs.sweep import Job, Outcome
from tests.helpers.commands import command


def job(source, **more):
    config = {
        "name": "main",
        "runs_dir": "out",
        "threads": 2,
        "checkpoint_seconds": 7.0,
        "trainer": {"accelerator": "cpu", "max_steps": 5},
        "regularization": {"curriculum": {"source": source, "start": 0.2}, "l2": {"strength": 1}},
        "sources": {"teacher": ["model=cnn"], "unused": ["model=mlp"]},
        **more,
    }
    return Job((f"source={source}",), config, {})


def job_of(overrides):
    trainer = {"accelerator": "auto", "max_steps": 3000}
    return Job(tuple(overrides), {"name": "default", "runs_dir": "runs", "threads": 1, "trainer": trainer}, {})


class Trainer:
    """Stands for ``sweep.run``: what it was asked, and outcomes."""

    def __init__(self, source="planned", ends="completed"):
        self.asked, self.source, self.ends = [], source, ends

    def __call__(self, jobs, *, dry=False, listed=True):
        self.asked.append((list(jobs), dry))
        own = jobs[0].config["name"] == "teacher"
        if own and not dry:
            self.source = self.ends
        return [Outcome(f"id{i}", self.source if own else "planned" if dry else "completed") for i in range(len(jobs))]


def test_the_source_is_trained_first_and_its_folder_stands_for_its_name():
    train = Trainer()
    pretrained.run([job("teacher"), job(None)], train=train, job_of=job_of)
    first, checked, source, main = train.asked
    assert [dry for _, dry in train.asked] == [True, True, False, False]
    assert first == (source[0], True)
    (made,) = source[0]
    assert made.overrides == ("model=cnn",)
    assert made.config["name"] == "teacher"  # where and how the others train, for as long as it says itself
    assert (made.config["runs_dir"], made.config["threads"], made.config["checkpoint_seconds"]) == ("out", 2, 7.0)
    assert made.config["trainer"] == {"accelerator": "cpu", "max_steps": 3000}
    named = [each.config["regularization"]["curriculum"]["source"] for each in main[0]]
    assert named == [str(Path("out/teacher/id0")), None]
    assert [each.config["regularization"]["curriculum"]["source"] for each in checked[0]] == [None, None]


def test_a_dry_run_lists_the_source_and_the_runs_and_trains_none(capsys):
    train = Trainer()
    pretrained.run([job("teacher"), job(None)], train=train, job_of=job_of, dry=True)
    assert capsys.readouterr().out.splitlines() == [
        "train  model=cnn",
        "train  source=teacher",
        "train  source=None",
        "1 source run, then 2",
    ]
    assert all(dry for _, dry in train.asked)


def test_one_that_is_there_is_not_trained_again():
    train = Trainer(source="completed")
    pretrained.run([job("teacher")], train=train, job_of=job_of)
    assert [(each[0].config["name"], dry) for each, dry in train.asked] == [("teacher", True), ("main", False)]


def test_runs_that_start_from_nothing_need_none():
    train = Trainer()
    pretrained.run([job(None)], train=train, job_of=job_of, dry=True)
    assert [(each[0].config["name"], dry) for each, dry in train.asked] == [("main", True)]


def test_a_source_that_fails_ends_the_sweep_with_its_reason():
    with pytest.raises(ConfigError, match="the source teacher is diverged"):
        pretrained.run([job("teacher")], train=Trainer(ends="diverged"), job_of=job_of)


def test_overrides_that_are_no_list_are_refused():
    with pytest.raises(ConfigError, match=r"sources\.teacher is 'model=cnn'; accepted: a list of overrides"):
        pretrained.used([job("teacher", sources={"teacher": "model=cnn"})])


EXPERIMENT = """\
# @package _global_
name: mine
sources:
  small: [data.train_size=200, data.batch_size=20, trainer.max_steps=30, callbacks.measures=null]
data: {train_size: 100, batch_size: 20}
trainer: {max_steps: 10}
callbacks: {measures: null}
hydra:
  mode: MULTIRUN
  sweeper:
    params: {regularization: transfer, regularization.transfer.source: 'null,small', regularization.transfer.tune: all}
"""


def test_an_experiment_runs_as_it_stands(tmp_path):
    """Trained, and listed: the source once, the runs from it."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(EXPERIMENT)
    words = ["genbench", "--config-dir", str(tmp_path / "conf"), "experiment=mine", "trainer.accelerator=cpu"]
    done = command(words, tmp_path)
    assert done.returncode == 0, done.stderr
    (source,) = records.load(tmp_path / "runs" / "small").records
    assert source["config"]["trainer"]["max_steps"] == 30
    digest = records.file_digest(tmp_path / "runs" / "small" / source["run_id"] / "weights.pt")[:12]
    runs = records.load(tmp_path / "runs" / "mine").records
    started = {record["config"]["regularization"]["transfer"]["source"] for record in runs}
    assert started == {None, f"sha256:{digest}"}
    assert not (tmp_path / "runs" / "small" / "table.md").exists()  # of no use
    assert any(line.startswith("small") for line in done.stdout.splitlines())  # a row is called by its source

    done = command([*words, "--dry-run"], tmp_path)
    assert done.stdout.splitlines()[-1] == "2 of 2 were there already"
    assert done.stdout.count("there  ") == 2


def test_the_validation_accuracy_is_what_a_searching_sweeper_is_given():
    record = {"run_id": "a", "status": "completed", "error": None, "metrics": {"val/performance/accuracy": 0.25}}
    assert sweep_plan.validation(record) == 0.25
    none = sweep_plan.validation({**record, "metrics": {"val/performance/accuracy": None}})
    assert none != none  # nan
