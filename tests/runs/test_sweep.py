"""Whole commands, as a user types them: sweeps that are killed, fail, overlap and resume."""

import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from genbench import records
from genbench.cli import catalog
from tests.helpers.choices import choices
from tests.helpers.commands import (
    GENBENCH,
    TINY,
    alone,
    by_override,
    cells,
    ctrl_c,
    numbers,
    start,
    sweep,
    typed,
)
from tests.helpers.faults import Faulty, Slow, offer


@pytest.fixture
def work(tmp_path):
    """An empty folder beside one of configurations with misbehaving methods."""
    group = tmp_path / "conf" / "regularization"
    offer(group / "kills", Faulty, what="kill")
    offer(group / "exits", Faulty, what="exit 7", after=0)
    offer(group / "raises", Faulty, what="allocate 10 GiB", after=0)
    offer(group / "interrupts", Faulty, what="interrupt", after=0)
    offer(group / "slow", Slow, file="trainings.txt")
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_a_sweep_ends_with_its_table_and_files(work):
    status, out, err = sweep(work, "regularization=none,l2,[l2,mixup]")
    assert status == 0, err
    folder = work / "runs" / "default"
    assert {record["status"] for record in records.load(folder).records} == {"completed"}
    for name in ("table.md", "table.tex", "table.csv", "report.html"):
        assert (folder / name).stat().st_size > 100, name
    assert "l2+mixup" in out
    assert err.count("test accuracy") == 3
    assert not [path.name for path in work.iterdir() if path.name != "runs"]

    # a second time: nothing is trained, the same table
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    status, again, err = sweep(work, "regularization=none,l2,[l2,mixup]")
    assert (status, again) == (0, out), err
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")} == before

    # alone, with the same settings, a run is the one of the sweep, and a list of its numbers is all that is printed
    config_dir = ["--config-dir", str(work.parent / "conf")]
    status, out, err = typed(work, "genbench", *config_dir, *TINY, "regularization=l2", "runs_dir=alone")
    assert status == 0, err
    assert re.search(r"(?m)^ +lambda_1 +\d", out)
    assert out.splitlines()[-1].startswith("record: alone/default/")
    assert not (work / "alone" / "default" / "table.md").exists()
    (single,) = records.load(work / "alone" / "default").records
    assert numbers(folder)[single["run_id"]] == numbers(work / "alone" / "default")[single["run_id"]]


def test_hydras_own_launcher_ends_with_the_same_table(work):
    jobs = ["regularization=none,l2", "seed=0,1"]
    status, out, err = sweep(work, *jobs, "hydra/launcher=basic", "runs_dir=basic")
    assert status == 0, err
    assert [line for line in err.splitlines() if line.startswith("genbench: mlp on mnist1d")] == err.splitlines()
    assert sweep(work, *jobs)[0] == 0
    assert cells(work / "basic" / "default") == cells(work / "runs" / "default")
    assert "l2" in out


def test_a_bad_run_never_stops_the_others(work):
    status, out, err = sweep(work, "regularization=none,kills,exits,raises,l2")
    folder = work / "runs" / "default"
    found = {"+".join(r["choices"]["regularization"]) or "none": r for r in records.load(folder).records}
    assert {name: record["status"] for name, record in found.items()} == {
        "none": "completed",
        "l2": "completed",
        "kills": "failed",
        "exits": "failed",
        "raises": "failed",
    }
    assert "SIGKILL" in found["kills"]["error"]
    assert "exit status 7" in found["exits"]["error"]
    assert found["raises"]["error"] == "MemoryError: cannot allocate 10 GiB"
    assert status == 1
    assert "Traceback" not in out + err
    assert "failed" in (folder / "table.md").read_text()
    *_, last = out.strip().splitlines()
    named = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert sorted(re.search(r"regularization=(\w+)", line)[1] for line in named) == ["exits", "kills", "raises"]
    # the line that says how to run them again does so
    said, _, command = last.partition(": ")
    assert said == "run these again with the same command"
    program, *arguments = shlex.split(command)
    assert program == "genbench"
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    status, _, err = typed(work, program, *arguments)
    assert status == 1, err
    tried = {path for path, before in times.items() if path.stat().st_mtime_ns != before}
    assert {path.parent.name for path in tried} == {r["run_id"] for r in found.values() if r["status"] == "failed"}

    status, out, _ = typed(work, "genbench-table", "runs/default", "--status")
    assert re.search(r"2 done.*3 failed", out, re.S), out


def test_killed_at_any_moment_it_resumes_to_the_same_table(work):
    arguments = ["regularization=slow,[slow,l2]", "seed=0,1"]
    status, _, err = sweep(work, *arguments, "runs_dir=whole")
    assert status == 0, err
    for delay in (0.3, 1.5):
        process = start(work, "--config-dir", str(work.parent / "conf"), "-m", *TINY, *arguments)
        deadline = time.monotonic() + 120
        while not list(work.glob("runs/default/*/checkpoint.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    status, _, err = sweep(work, *arguments)
    assert status == 0, err
    assert numbers(work / "runs" / "default") == numbers(work / "whole" / "default")
    assert cells(work / "runs" / "default") == cells(work / "whole" / "default")


def test_one_interrupted_worker_does_not_end_the_sweep(work):
    status, out, err = sweep(work, "regularization=interrupts,none,l2")
    assert status == 1
    folder = work / "runs" / "default"
    assert [record["status"] for record in records.load(folder).records] == ["completed", "completed"]
    assert "the run was interrupted" in err
    status, out, _ = typed(work, "genbench-table", "runs/default", "--status")
    assert "1 missing" in out


def test_one_run_written_in_two_ways_is_trained_once_and_has_one_place_in_the_plan(work):
    status, _, err = sweep(work, "regularization=[l2,mixup],[mixup,l2]")
    assert status == 0, err
    folder = work / "runs" / "default"
    assert len(records.read_sweep(folder)["runs"]) == len(records.load(folder).records) == 1


def test_hydras_own_launcher_works_too(work):
    status, out, _ = sweep(work, "hydra/launcher=basic", "regularization=none,raises,l2")
    assert status == 1
    folder = work / "runs" / "default"
    assert sorted(r["status"] for r in records.load(folder).records) == ["completed", "completed", "failed"]
    assert (folder / "table.md").exists()
    assert "failed: " in out


def test_loggers_of_a_sweep(work):
    # a process of its own: workers have the environment of the first command's, W&B's service included
    arguments = ("--config-dir", "../conf", "-m", *TINY, "logger=[csv,wandb,tensorboard]", "seed=0,1")
    status, _, err = alone(work, *arguments, "hydra.launcher.n_jobs=1")
    assert status == 0, err
    folder = work / "runs" / "default"
    offline = [path.name for path in (folder / "wandb").glob("offline-run-*")]
    ids = {record["run_id"] for record in records.load(folder).records}
    assert {name.rsplit("-", 1)[-1] for name in offline} == ids | {"report"}  # a W&B run each, and the sweep's report
    assert len(list(folder.glob("*/metrics.csv"))) == len(list(folder.glob("*/tensorboard"))) == 2


def test_shells_complete_choices(work):
    environment = {"COMP_LINE": "genbench model=", "COMP_POINT": "15", "COMP_CWORD": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        status, out, err = alone(work, "-sc", "query=bash")
    assert (status, out.split()) == (0, [f"model={name}" for name in choices("model")]), err


def test_workers_end_when_the_sweeping_process_is_killed_alone(work):
    process = start(work, "--config-dir", str(work.parent / "conf"), "-m", *TINY, "regularization=slow", "seed=0,1")
    deadline = time.monotonic() + 120
    while not (checkpoints := list(work.glob("runs/default/*/checkpoint.ckpt"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert checkpoints
    process.kill()
    process.communicate(timeout=10)  # returns when nobody holds the pipes any more
    time.sleep(1)
    folder = work / "runs" / "default"
    assert not any(records.running(path.parent) for path in checkpoints)
    assert not list(folder.glob("*/record.json"))


def test_files_that_cannot_be_written_leave_nothing_half_written(work):
    """A limit on the size of files stands for a full disk: records fit, weights and figures do not."""
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *GENBENCH]
    arguments = ["--config-dir", str(work.parent / "conf"), "-m", *TINY, "seed=0,1"]
    status, out, err = alone(work, *arguments, command=limited)
    assert status == 1
    assert "Traceback" not in out + err
    folder = work / "runs" / "default"
    assert {record["status"] for record in records.load(folder).records} == {"failed"}
    assert all("File too large" in record["error"] for record in records.load(folder).records)
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".pt", ".ckpt", ".tmp")]
    status, out, err = alone(work, *arguments)  # once there is room again
    assert status == 0, err
    assert {record["status"] for record in records.load(folder).records} == {"completed"}


def test_ctrl_c_keeps_what_was_done_and_says_how_to_go_on(work):
    arguments = ["--config-dir", str(work.parent / "conf"), "-m", *TINY, "regularization=slow", "seed=range(8)"]
    process = start(work, *arguments)
    ctrl_c(process, once=lambda: list(work.glob("runs/default/*/record.json")))
    assert 1 <= len(records.load(work / "runs" / "default").records) < 8


def test_two_processes_on_one_sweep_train_no_run_twice(work):
    arguments = ["--config-dir", str(work.parent / "conf"), "-m", *TINY, "regularization=slow", "seed=range(5)"]
    first, second = start(work, *arguments), start(work, *arguments)
    outputs = [process.communicate(timeout=240) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    folder = work / "runs" / "default"
    assert len(records.load(folder).records) == 5
    assert not records.load(folder).problems
    assert (work / "trainings.txt").read_text() == "begun\n" * 5
    assert outputs[0][0] == outputs[1][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=mpl"], "model=mpl: no such choice; did you mean 'mlp'?"),
        (["regularization=droput"], "regularization=droput: no such choice; did you mean 'dropout'?"),
        (["optimizer=xyz"], f"optimizer=xyz: no such choice; accepted: {', '.join(choices('optimizer'))}"),
        (["data.trian_size=5"], "data.trian_size is not a setting; did you mean 'data.train_size'?"),
        (["regularisation=l2"], "regularisation is not a setting; did you mean 'regularization'?"),
        (["seed=abc"], "seed"),
        (["seed=-1"], "seed is -1; accepted: an integer of at least 0"),
        (["data.train_size=-5"], "data.train_size is -5; accepted: an integer from 1 to 4000"),
        (["optimizer.lr=abc"], "optimizer.lr is 'abc'; accepted: a number"),
        (["optimizer.lr=nan"], "optimizer.lr is nan; accepted: a number"),
        (["trainer.accelerator=gpu"], "trainer"),
        (["-m", "regularization=none,l2", "regularization.l2.strength=-1"], "regularization.l2"),
        (["-m", "seed=0,1", "data.label_noise=0,2"], "data.label_noise is 2"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs is 0"),
        (["-m", "experiment=ablation,optimizers"], "each experiment is a command of its own"),
        (["runs_dir=/proc/nothing"], "runs_dir='…/nothing' cannot be written"),
        (["-m", "runs_dir=/proc/nothing", "seed=0,1"], "runs_dir='…/nothing' cannot be written"),
        (["trainer.max_steps=0"], "trainer.max_steps is 0; accepted"),
        (["trainer.max_epochs=0"], "trainer.max_epochs is 0; accepted"),
        (["data.label_noise=1.5"], "data.label_noise is 1.5; accepted"),
        (["data.train_size=5000"], "data.train_size is 5000; accepted: an integer from 1 to 4000"),
        (["runs_dir=null"], "runs_dir=null"),
        (["data=mnist2d"], "data=mnist2d: no such choice; did you mean 'mnist1d'?"),
        (["scheduler=cosin"], "did you mean 'cosine'?"),
        (["measures=standart"], "did you mean 'standard'?"),
        (["callbacks=defaults"], "did you mean 'default'?"),
        (["logger=wanb"], "did you mean 'wandb'?"),
        (["trainer=gpu"], "trainer=gpu: no such choice; did you mean 'cpu'? (accepted: cpu, ddp, default)"),
        (["experiment=ablatoin"], "did you mean 'ablation'?"),
        (["hydra/launcher=process"], "did you mean 'processes'?"),
        (["seed=1", "model"], "model"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(work, arguments, message):
    status, out, err = typed(work, "genbench", *arguments)
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    *first, said = err.strip().splitlines()  # what is to be done, and why it is not
    assert len(first) <= 1, err
    assert said.startswith("genbench: ")
    assert out == ""
    assert not list(work.iterdir())


def test_a_misspelt_key_in_a_users_experiment_file_is_found(work):
    folder = work.parent / "conf" / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\nname: mine\noptimizer:\n  lrr: 0.1\n")
    status, _, err = typed(work, "genbench", "--config-dir", str(folder.parent), "experiment=mine")
    assert (status, err.splitlines()[-1]) == (
        1,
        "genbench: optimizer.lrr is not a setting of torch.optim.Adam; did you mean 'lr'?",
    )
    (folder / "mine.yaml").write_text("# @package _global_\nname: mine\noptimiser:\n  lr: 0.1\n")
    status, _, err = typed(work, "genbench", "--config-dir", str(folder.parent), "experiment=mine")
    assert (status, err.strip()) == (1, "genbench: optimiser is not a setting; did you mean 'optimizer'?")
    assert not list(work.iterdir())


def test_help_is_quick_and_lists_every_choice(work):
    times = []
    for _ in range(3):
        started = time.monotonic()
        status, out, _ = alone(work, "--help", command=GENBENCH)
        times.append(time.monotonic() - started)
    assert status == 0
    assert min(times) < 2

    for group, found in catalog.groups().items():
        for name in found:
            assert re.search(rf"^  {name}\b", out, re.M), (group, name)
    assert out.count("  genbench ") >= 3


def test_a_damaged_record_is_named_and_only_that_run_is_redone(work):
    status, _, err = sweep(work, "seed=0,1")
    assert status == 0, err
    folder = work / "runs" / "default"
    run_id, other = by_override(folder, "seed=0"), by_override(folder, "seed=1")
    path = folder / run_id / "record.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    untouched = (folder / other / "record.json").stat().st_mtime_ns
    status, out, _ = typed(work, "genbench-table", "runs/default")
    assert status == 0
    assert run_id in out
    status, out, err = sweep(work, "seed=0,1")
    assert status == 0, err
    assert json.loads(path.read_text())["metrics"] == json.loads(whole)["metrics"]
    assert (folder / other / "record.json").stat().st_mtime_ns == untouched


def test_scripts_are_the_same_programs(work):
    scripts = Path(__file__).parents[2] / "scripts"
    for name in ("train", "table"):
        status, out, err = alone(work, "--help", command=[sys.executable, str(scripts / f"{name}.py")])
        assert status == 0, err
        assert "genbench" in out


@pytest.mark.parametrize(
    ("words", "packs", "reasons"),
    [
        ("regularization=none,batch_norm", "", ["regularization=none, regularization=batch_norm (no other run"]),
        ("seed=0,1", "", ["seed=0, seed=1 (so that 2 processes have work)"]),
        ("seed=range(5) hydra.launcher.lanes=1", "", ["seed=0, seed=1, seed=2 and 2 more (hydra.launcher.lanes=1)"]),
        ("seed=0,1,2 hydra.launcher.n_jobs=1", " as 1 pack", []),
        (
            "regularization=none,l2 seed=0,1,2 hydra.launcher.lanes=2",
            " as 2 packs and 2 alone",
            ["regularization=none seed=2, regularization=l2 seed=2 (hydra.launcher.lanes=2)"],
        ),
    ],
)
def test_a_packed_sweep_says_which_runs_train_alone_and_why(tmp_path, words, packs, reasons):
    status, out, err = typed(tmp_path, "genbench", "-m", *TINY, "hydra/launcher=packed", *words.split(), "--dry-run")
    assert status == 0, err
    runs = out.count("train  ")
    _, _, said = out.partition(f"{runs} runs: {runs} to train{packs}\n")
    assert [line.startswith(f"  alone: {reason}") for line, reason in zip(said.splitlines(), reasons, strict=True)] == [
        True for _ in reasons
    ]
