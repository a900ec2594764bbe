"""genbench-measure on a folder of runs: the values of the callback, beside the records, once, whatever happens."""

import json
import os
import re
import signal
import threading
import time

import pytest
import torch
from filelock import FileLock

from genbench import records
from genbench.checks import ConfigError
from genbench.measures import Estimate, Snapshot, measure
from genbench.records import added
from genbench.runs import execute, measure_folder, measure_group, measure_run
from genbench.runs.measure_run import measure_runs
from tests.helpers.commands import composed, importable, program, typed
from tests.helpers.forked import Forked

CALLBACKS = ["callbacks.gap=null", "callbacks.weight_norms=null", "callbacks.stop=null", "logger={}"]
UNMEASURED = [*CALLBACKS, "callbacks.measures=null"]
PARTS = ("metrics", "stderr", "converged", "residual", "interval", "notes", "measure_seconds")
L2 = ["measures=norms", "~measures.distance"]
MARGIN = "+measures.margin={_target_: genbench.measures.margin, _partial_: true}"
NONE = ["measures=norms", "~measures.l2", "~measures.distance"]


def asked(folder, *overrides):
    return composed(f"checkpoint={folder}", *overrides)


def here(folder, *overrides, patient=False):
    """Measure the runs of a folder in this process, as a worker does, without looking at what there is."""
    config = asked(folder, *overrides)
    return [measure_runs([path.parent], config, patient)[0] for path in sorted(folder.glob("*/record.json"))]


@pytest.fixture
def train(configure, tmp_path):
    """Train short runs, one for each list of overrides; the folder of their experiment."""

    def train(*each, measured=False):
        for overrides in each or ([],):
            record = execute.run(configure(*(CALLBACKS if measured else UNMEASURED), *overrides))
            assert record["status"] == "completed", record["error"]
        return tmp_path / "runs" / record["experiment"]

    return train


@pytest.fixture
def two(train):
    """The folder of two runs without measures."""
    return train(["seed=0"], ["seed=1"])


def of(name, *, settings=""):
    """An override that adds one of the functions below to the measures."""
    return f"+measures.{name}={{_target_: {__name__}.{name}, _partial_: true{settings and f', {settings}'}}}"


def names(folder):
    return sorted(path.parent.name for path in folder.glob("*/record.json"))


# -- the same values


KINDS = [
    ("train", ["data.train_size=1400"]),  # so many that curvature is measured on a part
    ("test", ["model=cnn", "regularization=[batch_norm,sam]"]),
    ("test", ["regularization=ensemble", "regularization.ensemble.members=2"]),
    ("val", ["regularization=[swa,mixup]"]),
    ("test", ["regularization=random_subspace"]),
    ("train", ["regularization=spectral_norm"]),
    ("all", ["model=gru", "data.label_noise=0.3"]),
]
CHOSEN = [
    "measures=standard",
    "measures.sam_sharpness.starts=2",
    "measures.sam_sharpness.steps=2",
    "measures.trace.probes=3",
    "~measures.average_sharpness",
    "~measures.adaptive_sharpness",
    "+measures.gap={_target_: genbench.measures.generalization_gap, _partial_: true}",  # compares with the train split
    MARGIN,
]


def measured_after(folder, run_id):
    """The record of a run if it had nothing but what was added."""
    record = records.read(folder / run_id)
    return added.merged({**record, **{part: {} for part in PARTS}}, added.read(folder / run_id))


@pytest.mark.parametrize(
    ("split", "overrides"), KINDS, ids=lambda each: " ".join(each) if isinstance(each, list) else each
)
def test_added_values_are_those_of_the_callback_bit_for_bit(split, overrides, train):
    folder = train([*overrides, *CHOSEN, f"callbacks.measures.split={split}"], measured=True)
    before = {path: path.read_bytes() for path in folder.glob("*/*") if path.is_file()}
    (outcome,) = here(folder, *CHOSEN, f"split={split}")
    assert outcome.error is None
    (record,) = records.load(folder).records
    found = measured_after(folder, record["run_id"])
    assert found["metrics"].keys() == record["metrics"].keys()
    assert found["metrics"][f"{split}/gap/accuracy"] is not None
    assert found["metrics"][f"{split}/flatness/trace"] is not None
    for key in record["metrics"]:
        for part in PARTS[:-1]:
            assert found[part].get(key) == record[part].get(key), (part, key)
    assert set(outcome.again.values()) == {True}
    new = {path for path in folder.glob("*/*") if path.is_file()} - before.keys()
    assert [path.name for path in new if path.name != ".lock"] == [added.FILE]
    assert {path: path.read_bytes() for path in before} == before


def test_runs_of_a_pack_and_of_several_structures(configure, tmp_path):
    configs = configure(*CALLBACKS, *CHOSEN, each=[{"seed": 0}, {"seed": 1}])
    execute.run_packed(configs, choices=[{}, {}], overrides=[[], []])
    execute.run(configure(*CALLBACKS, *CHOSEN, "model=linear"))
    folder = tmp_path / "runs" / "default"
    for outcome in here(folder, *CHOSEN):
        assert (outcome.error, set(outcome.again.values())) == (None, {True})
    assert len({len(record["metrics"]) for record in records.load(folder).records}) == 2


def test_data_are_made_once_for_runs_that_share_them(train, monkeypatch):
    folder = train(["data.seed=0", "seed=0"], ["data.seed=0", "seed=1"], ["data.seed=1", "seed=2"])
    measure_run._data.cache_clear()
    made = []
    plain = measure_run.build.build_data
    monkeypatch.setattr(measure_run.build, "build_data", lambda config: made.append(config) or plain(config))
    units = [*measure_folder._units(records.load(folder).records)]
    assert [len(unit) for unit in units] == [1, 1, 1]
    config = asked(folder, *L2)
    for (run_id,) in units:
        assert measure_runs([folder / run_id], config, False)[0].error is None
    assert len(made) == 2


# -- once


CALLS = []


@measure("norm", of_weights=True)
def counted(snapshot: Snapshot, *, scale: float = 1.0) -> Estimate:
    """A measure that is called by nobody else."""
    assert snapshot.size
    CALLS.append(scale)
    return Estimate(scale * len(CALLS))


@measure("other")
def stops(snapshot: Snapshot) -> Estimate:
    assert snapshot.size
    raise KeyboardInterrupt


def test_what_is_there_is_not_measured_again_and_other_settings_replace_it(two):
    CALLS.clear()
    first = here(two, *NONE, of("counted"))
    assert ([outcome.taken for outcome in first], len(CALLS)) == ([1, 1], 2)
    again = here(two, *NONE, of("counted"))
    assert ([outcome.taken for outcome in again], len(CALLS)) == ([0, 0], 2)
    assert [record["metrics"] for record in records.load(two).records] == [
        {"weights/norm/counted": 1.0},
        {"weights/norm/counted": 2.0},
    ]
    # a second command adds, and another split is nothing to a measure of the weights
    here(two, *L2, of("counted"), "split=test", "examples=3", "seed=5")
    assert len(CALLS) == 2
    other = here(two, *NONE, of("counted", settings="scale: 10"))
    assert [outcome.replaced for outcome in other] == [{"weights/norm/counted": "other settings"}] * 2
    for record in records.load(two).records:
        assert record["metrics"]["weights/norm/counted"] in (30.0, 40.0)
        assert record["metrics"]["weights/norm/l2"] > 0


def test_values_on_data_depend_on_split_examples_and_loss(two):
    here(two, *NONE, MARGIN)
    for other in ("examples=10", "seed=1", "loss._target_=torch.nn.functional.multi_margin_loss"):
        found = here(two, *NONE, MARGIN, other)
        assert [outcome.replaced for outcome in found] == [{"train/margin/margin": "other settings"}] * 2
    (record, _) = records.load(two).records
    assert "the loss is torch.nn.functional.multi_margin_loss" in record["notes"]["train/margin/margin"]


OWN = """\
import torch
from genbench.measures import Estimate, measure
@measure("norm", of_weights=True)
def own(snapshot):
    return Estimate({value})
"""
NET = """\
import torch
class Net(torch.nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.layer = torch.nn.Linear(40, classes)
    def forward(self, x):
        return {sign}self.layer(x.flatten(1))
"""


def test_values_of_other_code_are_replaced_and_a_network_whose_code_changed_says_so(configure, tmp_path):
    (tmp_path / "own_net.py").write_text(NET.format(sign=""))
    (tmp_path / "own_measure.py").write_text(OWN.format(value=1))
    with importable(tmp_path):
        record = execute.run({**configure(*UNMEASURED), "model": {"_target_": "own_net.Net"}})
        folder = tmp_path / "runs" / "default"
        words = [*NONE, MARGIN, "+measures.own={_target_: own_measure.own, _partial_: true}"]
        (first,) = here(folder, *words)
    (tmp_path / "own_net.py").write_text(NET.format(sign="-"))
    (tmp_path / "own_measure.py").write_text(OWN.format(value=2))
    measure_group.users_code.cache_clear()
    measure_run._asked.cache_clear()
    with importable(tmp_path):
        (again,) = here(folder, *words)
    measure_group.users_code.cache_clear()
    assert (first.taken, first.replaced) == (2, {})
    assert again.replaced == {"weights/norm/own": "other code", "train/margin/margin": "other code"}
    (record,) = records.load(folder).records
    assert record["metrics"]["weights/norm/own"] == 2
    assert record["notes"]["train/margin/margin"] == "the user's code has changed since the training"
    assert "weights/norm/own" not in record["notes"]


def test_values_of_other_weights_are_replaced(two):
    here(two, *NONE, of("counted"))
    first = names(two)[0]
    weights = two / first / "weights.pt"
    torch.save({key: value + 1 for key, value in torch.load(weights).items()}, weights)
    changed(two, first)
    assert "not of the weights of the record" in records.load(two).problems[0][1]
    found = here(two, *NONE, of("counted"))
    assert [outcome.replaced for outcome in found] == [{"weights/norm/counted": "other weights"}, {}]
    assert records.load(two).problems == []


def test_values_of_another_genbench_stay_and_are_counted(two, monkeypatch, capfd):
    measure_folder.run(asked(two, *L2))
    monkeypatch.setattr(measure_folder.source, "of_genbench", lambda: "another")
    measure_folder.run(asked(two, *L2))
    assert "2 runs: 0 to measure; 2 measured already, 2 by another genbench" in capfd.readouterr().err


def test_an_interrupted_command_continues(two):
    CALLS.clear()
    first = names(two)[0]
    with pytest.raises(KeyboardInterrupt):
        here(two, *NONE, of("counted"), of("stops"))
    assert added.read(two / first).parts["weights/norm/counted"].estimates["weights/norm/counted"].value == 1.0
    assert not (two / first / "progress.json").exists()
    here(two, *NONE, of("counted"))
    assert [record["metrics"]["weights/norm/counted"] for record in records.load(two).records] == [1.0, 2.0]


SLOW = """\
import time
from genbench.measures import Estimate, measure
@measure("norm", of_weights=True)
def slow(snapshot):
    total = float(snapshot.vector.sum())
    time.sleep(0.4)
    with open({called!r}, "a") as file:
        file.write(f"{{total}}\\n")
    return Estimate(1.0)
"""


def test_a_killed_command_continues_and_measures_nothing_twice(train, tmp_path):
    folder, called = train(*(["model=linear", f"seed={seed}"] for seed in range(4))), tmp_path / "called"
    (tmp_path / "slow_measure.py").write_text(SLOW.format(called=str(called)))
    own = ["+measures.slow._target_=slow_measure.slow", "+measures.slow._partial_=true"]
    words = ["genbench-measure", f"checkpoint={folder}", *NONE, *own, "n_jobs=1"]
    with importable(tmp_path):
        process = Forked(program(words), folder=tmp_path, environment={**os.environ, "PYTHONPATH": str(tmp_path)})
        while not called.exists() or len(called.read_text().splitlines()) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.kill()
        process.wait(60)
        while any(records.running(folder / name) for name in names(folder)):
            time.sleep(0.1)  # its worker ends with it
        there = sum(len(added.read(folder / name).parts) for name in names(folder))
        assert 1 <= there < 4
        status, _, err = typed(tmp_path, *words)
    assert status == 0, err
    assert f"4 runs: {4 - there} to measure; {there} measured already" in err
    assert [record["metrics"] for record in records.load(folder).records] == [{"weights/norm/slow": 1.0}] * 4
    # one at most was broken off after the call and before the value was there
    lines = called.read_text().splitlines()
    assert len(set(lines)) == 4
    assert len(lines) <= 5
    assert not [*folder.glob("*/.*.tmp")]


def test_two_commands_at_once_share_the_runs(two):
    first, second = names(two)
    with FileLock(two / first / records.LOCK, thread_local=False):
        found = here(two, *L2)
        assert [outcome and outcome.run_id for outcome in found] == [None, second]
        waiting = threading.Thread(target=lambda: found.extend(here(two, *L2, patient=True)))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
    waiting.join(60)
    assert [(outcome.run_id, outcome.taken) for outcome in found[2:]] == [(first, 1), (second, 0)]


def test_wandb_gets_what_tables_show_of_the_added_values(train, monkeypatch):
    folder = train(["measures=norms"], measured=True)
    sent = []
    monkeypatch.setattr(measure_run.loggers, "add", lambda parts, folder, **said: sent.append((list(parts), said)))
    (outcome,) = here(folder, "measures=norms", MARGIN, "logger=wandb")
    assert outcome.taken == 3
    (record,) = records.load(folder).records
    value = record["metrics"]["train/margin/margin"]
    assert sent == [(["wandb"], {"experiment": "default", "metrics": {"train/margin/margin": value}})]
    (outcome,) = here(folder, "measures=norms", MARGIN, "logger=wandb")  # what is there may not be logged yet
    assert (outcome.taken, len(sent)) == (0, 2)


# -- what cannot be measured


@measure("norm", of_weights=True)
def deadly(snapshot: Snapshot, *, least: float = 0.0) -> Estimate:
    """Ends the process of some networks."""
    if float(snapshot.vector.norm()) > least:
        os.kill(os.getpid(), signal.SIGKILL)
    return Estimate(1.0)


@measure("norm", of_weights=True)
def undefined(snapshot: Snapshot) -> Estimate:
    return Estimate(None, note=f"undefined: the norm is {float(snapshot.vector.norm())}")


def test_a_run_that_fails_leaves_the_others(two):
    first, second = names(two)
    weights = two / first / "weights.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    found = measure_folder.run(asked(two, *L2))
    assert found.failed
    assert [line for line in found.lines if "failed" in line] == [
        f"failed: {first}: checkpoint: the run {first} cannot be read: its record weights.pt is damaged: its digest "
        "does not match"
    ]
    one, other = records.load(two).records
    assert one["metrics"]["weights/norm/l2"] is None
    assert "its digest does not match" in one["notes"]["weights/norm/l2"]
    assert other["metrics"]["weights/norm/l2"] > 0
    weights.write_bytes(whole)  # the same command tries it again, and it alone
    before = (two / second / added.FILE).read_bytes()
    found = measure_folder.run(asked(two, *L2))
    assert not found.failed
    assert all(record["metrics"]["weights/norm/l2"] > 0 for record in records.load(two).records)
    assert (two / second / added.FILE).read_bytes() == before


def test_a_run_that_ends_its_process_leaves_the_others(two):
    first, second = records.load(two).records
    here(two, *L2)
    norms = [record["metrics"]["weights/norm/l2"] for record in records.load(two).records]
    least = sum(norms) / 2
    victim = (first, second)[norms[1] > least]["run_id"]
    found = measure_folder.run(asked(two, *L2, of("deadly", settings=f"least: {least}")))
    assert found.failed
    assert [line for line in found.lines if line.startswith("failed")] == [
        f"failed: {victim}: Died: the process was killed by SIGKILL (out of memory?)"
    ]
    for record in records.load(two).records:
        assert record["metrics"]["weights/norm/deadly"] == (None if record["run_id"] == victim else 1.0)
        assert record["metrics"]["weights/norm/l2"] > 0


def test_a_value_that_is_not_defined_is_null_with_its_reason_and_no_failure(two):
    found = measure_folder.run(asked(two, *L2, of("undefined")))
    assert not found.failed
    (line,) = [line for line in found.lines if line.startswith("no value")]
    assert line.startswith("no value: weights/norm/undefined of 2 runs: undefined: the norm is")
    for record in records.load(two).records:
        assert record["metrics"]["weights/norm/undefined"] is None
        assert record["notes"]["weights/norm/undefined"].startswith("undefined: the norm is")
    assert all(outcome.taken == 0 for outcome in here(two, *L2, of("undefined")))


def test_a_split_that_some_runs_lack(train):
    folder = train(["data.val_fraction=0"], ["data.val_fraction=0.1"])
    found = measure_folder.run(asked(folder, *L2, MARGIN, "split=val"))
    assert "no value: val/margin/margin of 1 run: there is no val split" in found.lines
    values = {record["config"]["data"]["val_fraction"]: record["metrics"] for record in records.load(folder).records}
    assert values[0]["val/margin/margin"] is None
    assert values[0.1]["val/margin/margin"] is not None
    assert values[0]["weights/norm/l2"] > 0


# -- which runs


def changed(folder, run_id, **changes):
    records.write(folder / run_id, {**records.read(folder / run_id), **changes})


def test_runs_that_cannot_be_measured_are_counted(train, monkeypatch, capfd):
    folder = train(*([f"seed={seed}", "model=linear"] for seed in range(7)))
    diverged, failed, damaged, bare, foreign, strange, good = names(folder)
    changed(folder, diverged, status="diverged", error="the loss is nan")
    changed(folder, failed, status="failed", error="RuntimeError: no")
    (folder / damaged / "record.json").write_text("{")
    (folder / bare / "weights.pt").unlink()
    for run_id, target in ((foreign, "genbench.models.Linear"), (strange, "somebodys.Net")):
        record = records.read(folder / run_id)
        content = {**record, "config": {**record["config"], "model": {"_target_": target}}}
        content = {key: value for key, value in content.items() if key not in ("digest", "mark")}
        content["digest"] = records.digest(content)
        (folder / run_id / "record.json").write_text(json.dumps(content))
    planned = {"experiment": "default", "command": [], "table": None, "claims": None, "paper": None}
    records.write_sweep(folder, {**planned, "runs": [{"run_id": name} for name in ("not_begun", good)]})
    (folder / "training").mkdir()
    lock = FileLock(folder / "training" / records.LOCK, thread_local=False)
    with lock:
        found = measure_folder.run(asked(folder, *L2))
    assert not found.failed
    _, err = capfd.readouterr()
    lines = err.splitlines()
    assert "2 runs: 2 to measure (weights/norm/l2)" in lines
    for line in (
        "left out: 1 run that diverged",
        "left out: 1 run that failed",
        "left out: 1 run without weights.pt",
        "left out: 1 run unfinished",
        "left out: 1 run still in training",
    ):
        assert line in lines, err
    (said,) = [line for line in lines if "of somebody else" in line]
    assert "somebodys.Net" in said
    assert "trust=true" in said
    assert [line for line in lines if line.startswith(f"not read: {damaged}/record.json is truncated")]
    there = sorted(path.parent.name for path in folder.glob(f"*/{added.FILE}"))
    assert there == sorted([foreign, good])


def test_runs_on_files_are_told_where_these_lie(train, tmp_path):
    images = os.environ["GENBENCH_TINY"]
    folder = train(["model=linear", "data=fashion_mnist", "data.channels=3", f"data.path={images}"], ["model=linear"])
    with pytest.raises(ConfigError, match=r"1 run trained on files, .*; accepted: data\.path=FOLDER, the same files"):
        measure_folder.run(asked(folder, *NONE, MARGIN))
    assert not [*folder.glob(f"*/{added.FILE}")]
    assert [outcome.error for outcome in here(folder, *NONE, MARGIN, f"+data.path={images}")] == [None, None]
    assert all(record["metrics"]["train/margin/margin"] is not None for record in records.load(folder).records)
    assert images not in "".join(path.read_text() for path in folder.glob(f"*/{added.FILE}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["output=x"], "output=x is of one network; accepted with a folder of runs: null"),
        (["key=x"], "key=x is of one network"),
        (["initial=x"], "initial=x is of one network"),
        (
            ["data=digits"],
            r"data\.\w+: the runs of a folder are measured on their own data; accepted: data\.path=FOLDER",
        ),
        (["+data.label_noise=0"], r"data\.label_noise: the runs of a folder are measured on their own data"),
        (["+model.width=3"], r"model\.width: the model is that of each run"),
        (["device=tpu"], "device is 'tpu'"),
        (["n_jobs=0"], "n_jobs is 0; accepted: an integer of at least 1"),
        (["split=dev"], "split is 'dev'; accepted: train, val, test, all"),
        (["examples=0"], "examples is 0"),
        (["~measures.l2"], "measures is empty"),
        (["measures=standard", "measures.trace.probes=1"], r"measures\.trace\.probes is 1; accepted"),
        (["logger=csv"], "logger=csv does not take measures of finished runs; accepted: wandb"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(overrides, message, two):
    with pytest.raises(ValueError, match=message) as caught:
        measure_folder.run(asked(two, *L2, *overrides))
    assert "\n" not in str(caught.value)
    assert not [*two.glob(f"*/{added.FILE}")]


def test_folders_without_runs(two, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (tmp_path / "empty", "checkpoint='empty' is a folder without record.json, and none of its folders has one"),
        (two.parent, "none of its folders has one; did you mean .*default"),
        (tmp_path / "runs" / "defualt", "there is no file or folder 'defualt'; did you mean 'default'?"),
    ):
        status, _, err = typed(tmp_path, "genbench-measure", f"checkpoint={folder}")
        assert status == 1
        assert err.count("\n") == 1
        assert re.search(message, err), err
    for name in names(two):
        (two / name / "weights.pt").unlink()
    with pytest.raises(ConfigError, match=r"has no run that can be measured; left out: 2 runs without weights\.pt"):
        measure_folder.run(asked(two, *L2))
