"""One run from a configuration to its record, whatever happens in between."""

import csv
import fcntl
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from genbench import records
from genbench.data import MNIST1D
from genbench.data.base import TensorData
from genbench.measures import Estimate
from genbench.regularization import Method
from genbench.runs import build, execute, plan
from genbench.runs import run as run_module
from genbench.runs.executors.processes import start_server
from genbench.runs.provenance import commit, user_commit
from genbench.runs.results import final_record
from genbench.runs.run import Interrupted
from tests.helpers.faults import BROKEN, Faulty, Slow, node

FAST = ("measures.sam_sharpness.starts=2", "~measures.trace", "~measures.adaptive_sharpness")


def using(plain, method, **settings):
    plain["regularization"] = {"probe": node(method, **settings)}
    return plain


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def folder_of(record, tmp_path):
    return tmp_path / "runs" / record["experiment"] / record["run_id"]


class Drops(nn.Module):
    """Draws from torch's and NumPy's global generators, as a user's network may."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(40, 20), nn.Dropout(0.5), nn.Linear(20, classes))

    def forward(self, x):
        return self.layers(x) * (1 + 0.1 * np.random.rand() if self.training else 1)


def test_a_network_that_draws_from_the_global_generators_repeats(configure, tmp_path):
    """Whatever their states were before."""
    plain = {**configure("~callbacks.measures"), "model": {"_target_": f"{__name__}.Drops"}}
    found = []
    for state in (1, 2):
        torch.manual_seed(state), np.random.seed(state)
        found.append(execute.run({**plain, "runs_dir": str(tmp_path / f"{state}")}))
    assert [record["status"] for record in found] == ["completed"] * 2
    assert found[0]["files"]["weights.pt"] == found[1]["files"]["weights.pt"]
    other = execute.run({**plain, "seed": 1, "runs_dir": str(tmp_path / "other")})
    assert other["files"]["weights.pt"] != found[0]["files"]["weights.pt"]


class Drawing(MNIST1D):
    """Draws from every global generator when it is made and in each batch, as a user's data may."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.drawn = torch.rand(1), np.random.rand(), random.random()

    def train_dataloader(self):
        torch.rand(1), np.random.rand(), random.random()
        return super().train_dataloader()


def test_planning_and_checking_a_run_move_no_global_generator(configure):
    plain = configure("~callbacks.measures")
    plain |= {"model": {"_target_": f"{__name__}.Drops"}, "data": {**plain["data"], "_target_": f"{__name__}.Drawing"}}
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    planned = plan.plan(plain)
    plan.check(plain, planned.datamodule)
    torch.testing.assert_close(torch.get_rng_state(), before[0], rtol=0, atol=0)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert planned.datamodule.drawn[0] == torch.rand(1)


def test_a_run_leaves_a_record_that_can_be_read_back(configure, tmp_path):
    record = execute.run(
        configure("regularization=[l2,mixup]", "regularization.l2.strength=0.5"), choices={"model": "mlp"}
    )
    folder = folder_of(record, tmp_path)
    assert records.verify(folder) == record
    assert record["status"] == "completed"
    assert record["choices"] == {"model": "mlp", "regularization": ["l2", "mixup"]}
    assert record["config"]["regularization"]["l2"]["strength"] == 0.5
    for key in ("train/performance/accuracy", "test/gap/cross_entropy", "weights/norm/l2", "train/flatness/lambda_1"):
        assert isinstance(record["metrics"][key], float), key
    assert record["stderr"]["train/flatness/trace"] > 0
    assert record["converged"]["train/flatness/lambda_1"] in (True, False)
    assert record["measure_seconds"].keys() == record["metrics"].keys()
    assert 0 < record["measure_seconds"]["train/flatness/trace"] < record["seconds"]["measure"]
    assert record["seconds"]["total"] >= record["seconds"]["fit"] + record["seconds"]["measure"] > 0
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["test/performance/accuracy"]) == record["metrics"]["test/performance/accuracy"]
    assert sorted(weights(folder)) == sorted(torch.load(folder / "initial.pt", weights_only=True))


class Searched(pl.Callback):
    """Leaves an estimate of a search, and one whose reason names a file."""

    def __init__(self):
        self.seconds, self.history, self.results = 0.0, [], {}

    def on_train_end(self, trainer, pl_module):
        self.results = {
            "train/flatness/found": Estimate(2.0, interval=(1.5, 2.5), seconds=0.25),
            "train/flatness/open": Estimate(2.0, interval=(1.5, float("inf"))),
            "train/flatness/lost": Estimate(None, interval=(0.0, 1.0), note="cannot read /somewhere/of/mine/x.pt"),
        }


def test_the_record_holds_intervals_and_no_path_of_a_reason(configure):
    plain = configure(*FAST)
    plain["callbacks"] = {"probe": {"_target_": f"{__name__}.Searched"}}
    record = execute.run(plain)
    assert record["interval"] == {"train/flatness/found": [1.5, 2.5]}
    assert record["measure_seconds"] == {key: 0.25 * key.endswith("found") for key in record["metrics"]}
    assert record["notes"] == {"train/flatness/lost": "cannot read …/x.pt"}


def test_history_holds_standard_errors_but_not_seconds(configure, tmp_path):
    schedule = "callbacks.measures.every_n_steps=18"
    record = execute.run(configure(schedule, "~measures.adaptive_sharpness"))
    with (folder_of(record, tmp_path) / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["train/flatness/trace"]] == [18, 27]
    last = rows[-1]
    assert float(last["stderr/train/flatness/trace"]) == record["stderr"]["train/flatness/trace"]
    assert "stderr/train/flatness/lambda_1" not in last
    assert not any(key.startswith("seconds/") for key in last)
    assert record["measure_seconds"]["train/flatness/trace"] > 0
    with (folder_of(record, tmp_path) / "metrics.csv").open() as file:
        *_, logged = csv.DictReader(file)
    assert float(logged["train/flatness/trace"]) == record["metrics"]["train/flatness/trace"]
    assert not any(key.startswith(("seconds/", "stderr/")) for key in logged)


def test_loggers_get_training_loss_and_learning_rate_at_a_cadence_in_steps(configure, tmp_path):
    """9 steps an epoch, 27 in all: an epoch's objectives have the mean that history gives, its rates are a cosine's."""
    quick = ("measures=norms", "scheduler=cosine", "regularization=[ensemble,l2]", "regularization.ensemble.members=2")
    rows = {}
    for every in (1, 4):
        record = execute.run(
            configure(*quick, f"trainer.log_every_n_steps={every}", f"runs_dir={tmp_path}/every{every}")
        )
        folder = tmp_path / f"every{every}" / record["experiment"] / record["run_id"]
        with (folder / "metrics.csv").open() as file:
            rows[every] = {int(row["step"]): row for row in csv.DictReader(file) if row["train/optimization/loss"]}
        with (folder / "history.csv").open() as file:
            means = [float(row["train/optimization/objective"]) for row in csv.DictReader(file)]
    assert list(rows[1]) == list(range(1, 28))
    assert list(rows[4]) == list(range(4, 28, 4))
    losses = [float(row["train/optimization/loss"]) for row in rows[1].values()]
    assert [sum(losses[i : i + 9]) / 9 for i in (0, 9, 18)] == pytest.approx(means, rel=1e-6)
    peak = record["config"]["optimizer"]["lr"]
    for step, row in rows[1].items():
        expected = peak * (1 + math.cos(math.pi * (step - 1) / 27)) / 2
        assert float(row["train/optimization/lr"]) == pytest.approx(expected, rel=1e-5)
        assert float(row["epoch"]) == pytest.approx(step / 9)
    for step, row in rows[4].items():
        assert row["train/optimization/loss"] == rows[1][step]["train/optimization/loss"]
    with pytest.raises(ValueError, match=r"^trainer\.log_every_n_steps is 0; accepted: an integer of at least 1$"):
        plan.plan(configure("trainer.log_every_n_steps=0"))


def test_norms_as_curves_and_among_the_measures_agree(configure):
    record = execute.run(configure("regularization=swa", *FAST))
    curves = execute.run(configure("regularization=swa", "~callbacks.measures"))
    single = execute.run(configure("regularization=swa", "~callbacks.weight_norms", *FAST))
    norms = [key for key in record["metrics"] if key.startswith("weights/")]
    assert len(norms) > 10
    for key in norms:
        assert record["metrics"][key] == curves["metrics"][key] == single["metrics"][key], key


def test_measuring_at_powers_of_two_and_at_the_end(configure, tmp_path):
    record = execute.run(configure("trainer.max_steps=90", *FAST))  # ten epochs
    with (folder_of(record, tmp_path) / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10  # the objective of every epoch
    measured = [int(row["epoch"]) for row in rows if row["test/performance/accuracy"]]
    assert measured == [1, 2, 4, 8, 10]


def test_a_record_names_no_machine_and_no_path(configure, tmp_path):
    record = execute.run(configure(*FAST))
    for name in ("record.json", "history.csv", "metrics.csv"):
        text = (folder_of(record, tmp_path) / name).read_text()
        for secret in (socket.gethostname(), str(tmp_path), str(Path.home()), os.getcwd()):
            assert secret not in text, (name, secret)


def test_a_finished_run_is_not_trained_again(configure, tmp_path):
    plain = configure(*FAST)
    record = execute.run(plain)
    before = (folder_of(record, tmp_path) / "record.json").stat().st_mtime_ns
    assert execute.run(plain) == record
    assert (folder_of(record, tmp_path) / "record.json").stat().st_mtime_ns == before


def test_the_same_configuration_gives_the_same_numbers(configure, tmp_path):
    plain = configure("regularization=[dropout,augmentation]", *FAST)
    first = execute.run(plain)
    kept = weights(folder_of(first, tmp_path))
    shutil.rmtree(tmp_path / "runs")
    torch.manual_seed(123)
    second = execute.run(plain)
    assert first["metrics"] == second["metrics"]
    for key, value in weights(folder_of(second, tmp_path)).items():
        assert torch.equal(value, kept[key])


@pytest.fixture
def built(monkeypatch):
    """The datamodules that are built, in a process that has checked no configuration yet."""
    found, content = [], TensorData.content  # which each reads once, when it is built
    monkeypatch.setattr(TensorData, "content", lambda data: (found.append(data), content(data))[1])
    monkeypatch.setattr(plan, "_CHECKED", {})
    return found


def test_the_data_are_built_once(configure, built, monkeypatch, tmp_path):
    plain = configure("data.label_noise=0.2", "regularization=early_stopping", "data.val_fraction=0.2", *FAST)
    once = execute.run(plain)
    assert len(built) == 1

    def forgetful(config, **settings):
        return replace(plan.plan(config, **settings), datamodule=None)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "plan", forgetful)
        patch.setattr(plan, "_CHECKED", {})
        again = execute.run({**plain, "runs_dir": str(tmp_path / "again")})
    assert len(built) == 4  # for the plan, the check and the run
    assert once["status"] == "completed"
    for part in ("run_id", "metrics", "stderr", "notes", "files"):
        assert once[part] == again[part]


def test_a_pack_builds_the_data_of_each_run_once(configure, built, tmp_path):
    configs = [configure(f"seed={seed}", *FAST) for seed in (0, 1)]
    found = execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    assert [record["status"] for record in found] == ["completed", "completed"]
    assert len(built) == 2
    execute.run_packed(configs, choices=[{}] * 2, overrides=[()] * 2)
    assert len(built) == 4  # the content identifies the runs; neither is trained again


def test_a_pickled_plan_leaves_the_data_out(configure):
    planned = plan.plan(configure())
    sent = pickle.loads(pickle.dumps(planned))
    assert planned.datamodule is not None
    assert sent.datamodule is None
    assert sent == planned


def test_callbacks_do_not_change_training(configure, tmp_path):
    """Bit-identical final weights with everything measured at every epoch and with nothing measured."""
    methods = "regularization=[dropout,batch_norm,sam,mixup]"
    measured = execute.run(configure(methods, "callbacks=full", "callbacks.measures.every_n_steps=5"))
    bare = execute.run(configure(methods, "~callbacks.gap", "~callbacks.weight_norms", "~callbacks.measures"))
    assert measured["run_id"] != bare["run_id"]
    assert bare["metrics"] == {}
    a, b = (weights(folder_of(record, tmp_path)) for record in (measured, bare))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("damage", ["truncated", "other weights", "foreign"])
def test_a_damaged_run_is_detected_and_redone(configure, tmp_path, damage):
    plain = configure(*FAST)
    record = execute.run(plain)
    folder = folder_of(record, tmp_path)
    path = folder / "record.json"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "foreign":
        path.write_text('{"hello": 1}')
    else:
        (folder / "weights.pt").write_bytes(b"nothing")
    assert final_record(folder) is None
    again = execute.run(plain)
    assert again["metrics"] == record["metrics"]
    assert records.verify(folder) == again


def test_a_run_that_raises_is_recorded_with_its_reason_and_tried_again(configure, tmp_path):
    plain = using(configure(*FAST), Faulty, what=BROKEN)
    record = execute.run(plain)
    assert record["status"] == "failed"
    assert record["error"] == "RuntimeError: broken on purpose second line, in …/file.py"
    folder = folder_of(record, tmp_path)
    assert "broken on purpose" in (folder / "traceback.txt").read_text()
    assert final_record(folder) is None
    first = (folder / "record.json").stat().st_mtime_ns
    execute.run(plain)
    assert (folder / "record.json").stat().st_mtime_ns > first


def test_a_run_that_exits_is_recorded(configure):
    record = execute.run(using(configure(*FAST), Faulty, what="quit 3"))
    assert (record["status"], record["error"]) == ("failed", "SystemExit: the run called exit(3)")


def test_a_run_that_diverges_is_final_and_has_no_numbers(configure, tmp_path):
    plain = configure("optimizer=sgd", "optimizer.lr=1e30", *FAST)
    record = execute.run(plain)
    assert record["status"] == "diverged"
    assert "not finite" in record["error"]
    assert set(record["metrics"].values()) <= {None}
    assert all(note.startswith("diverged") for note in record["notes"].values())
    assert final_record(folder_of(record, tmp_path)) == record


def _run(plain):
    execute.run(plain)


def test_a_killed_run_continues_to_the_numbers_of_an_uninterrupted_one(configure, tmp_path):
    settings = ("checkpoint_seconds=0", "regularization=[]", "callbacks=full", *FAST)
    flag = tmp_path / "killed"
    plain = using(configure(*settings), Faulty, what="kill", after=0.6, flag=str(flag))
    process = start_server().Process(target=_run, args=(plain,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "runs").glob("*/*/checkpoint.ckpt")
    assert not list((tmp_path / "runs").glob("*/*/record.json"))

    resumed = execute.run(plain)
    assert resumed["status"] == "completed"
    assert not checkpoint.exists()
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    assert resumed["metrics"] == whole["metrics"]
    folder = folder_of(resumed, tmp_path)
    other = tmp_path / "whole" / resumed["experiment"] / resumed["run_id"]
    a, b = weights(folder), weights(other)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert (folder / "history.csv").read_text() == (other / "history.csv").read_text()


class Remembers(Method):
    """Pulls towards the last weights, with noise that falls with the steps; both are kept in plain attributes, and with
    ``window`` in one that no checkpoint holds."""

    def __init__(self, *, window: bool = False) -> None:
        super().__init__()
        self.window, self.seen, self.past = window, 0, []

    def gradient(self, params, grads, draw):
        self.seen += 1
        for past in self.past:
            grads = [g + 0.1 * (p.detach() - q) for g, p, q in zip(grads, params, past, strict=True)]
        return [g + draw.normal(f"noise{i}", *g.shape) / self.seen for i, g in enumerate(grads)]

    def after_step(self, params, progress):
        self.past.append([p.detach().clone() for p in params])
        self.past = deque(self.past, 3) if self.window else self.past[-3:]


@pytest.mark.parametrize("window", [False, True])
def test_a_method_that_remembers_in_plain_attributes_continues_bit_for_bit(configure, tmp_path, window, recwarn):
    """Interrupted twice. What no checkpoint holds is said at once, and the run starts again."""
    plain = using(configure("checkpoint_seconds=0", "~callbacks.gap", "measures=norms"), Remembers, window=window)
    flags = [tmp_path / name for name in "ab"]
    for flag, after in zip(flags, (8 / 27, 20 / 27), strict=True):
        plain["regularization"][flag.name] = node(Faulty, what="interrupt", after=after, flag=str(flag))
        flag.touch()
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    assert whole["status"] == "completed"
    for flag in flags:
        flag.unlink()
    for _ in flags:
        recwarn.clear()
        with pytest.raises(KeyboardInterrupt):
            execute.run(plain)
        assert len(list(tmp_path.glob("runs/*/*/checkpoint.ckpt"))) == (not window)
        lines = [str(each.message) for each in recwarn if "Remembers" in str(each.message)]
        assert len(lines) == window
        assert all(re.match(r"Remembers\.past changes in training, .* this deque: ", line) for line in lines)
    resumed = execute.run(plain)
    assert resumed["metrics"] == whole["metrics"]
    a, b = weights(folder_of(resumed, tmp_path)), weights(tmp_path / "whole" / "default" / whole["run_id"])
    assert all(torch.equal(a[key], b[key]) for key in a)


def endless(snapshot):
    """A measure during which the process is asked to end, once."""
    assert snapshot.examples == 180  # what does not look at the snapshot ends where its settings are checked
    if ASKED:
        ASKED.pop()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return Estimate(1.0)


ASKED: list[bool] = []


def test_termination_does_not_wait_for_measures(configure, tmp_path):
    plain = configure("checkpoint_seconds=0", *FAST)
    plain["callbacks"]["measures"]["measures"]["endless"] = {"_target_": f"{__name__}.endless", "_partial_": True}
    before = signal.getsignal(signal.SIGTERM)
    ASKED.append(True)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        execute.run(plain)
    assert time.monotonic() - started < 40
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list((tmp_path / "runs").glob("*/*/record.json"))
    assert execute.run(plain)["metrics"]["train/other/endless"] == 1


def test_seconds_of_a_continued_run_include_those_before_the_kill(configure, tmp_path):
    pause, flag = 0.05, tmp_path / "interrupted"
    plain = using(configure("checkpoint_seconds=0", *FAST), Slow, seconds=pause)
    plain["regularization"]["fault"] = node(Faulty, what="interrupt", after=20 / 27, flag=str(flag))
    flag.touch()
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    flag.unlink()
    with pytest.raises(KeyboardInterrupt):
        execute.run(plain)
    resumed = execute.run(plain)
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["seconds"]["fit"] > 27 * pause
    assert resumed["seconds"]["total"] >= resumed["seconds"]["fit"] + resumed["seconds"]["measure"]


def test_every_method_gives_up_the_same_validation_split(configure):
    one, other = (build.build_data(configure(f"regularization={name}")) for name in ("none", "early_stopping"))
    assert torch.equal(one.tensors("val")[0], other.tensors("val")[0])
    assert torch.equal(one.tensors("train")[1], other.tensors("train")[1])


def test_a_damaged_checkpoint_starts_the_run_anew(configure, tmp_path):
    plain = configure(*FAST)
    folder = plan.plan(plain).folder
    folder.mkdir(parents=True)
    (folder / "checkpoint.ckpt").write_bytes(b"x" * 100)
    assert execute.run(plain)["status"] == "completed"


def test_another_process_at_the_same_run_is_waited_for(configure, tmp_path):
    plain = configure(*FAST)
    folder = plan.plan(plain).folder
    folder.mkdir(parents=True)
    lock = (folder / ".lock").open("w")  # as another process holds it
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert execute.run(plain, wait=False) is None
    assert not (folder / "record.json").exists()
    started = time.monotonic()
    threading.Timer(1.0, lock.close).start()
    assert execute.run(plain)["status"] == "completed"
    assert time.monotonic() - started >= 1.0


def test_a_runs_folder_that_cannot_be_written_is_named(configure, tmp_path):
    (tmp_path / "file").write_text("in the way")
    plain = {**configure(*FAST), "runs_dir": str(tmp_path / "file")}
    with pytest.raises(ValueError, match=r"runs_dir=.*file' cannot be written"):
        execute.run(plain)


def test_a_full_disk_leaves_nothing_half_written(configure, tmp_path, monkeypatch):
    plain = configure(*FAST)
    real = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        execute.run(plain)
    monkeypatch.setattr(os, "fsync", real)
    assert not [path.name for path in (tmp_path / "runs").rglob("*") if path.suffix in (".json", ".pt", ".tmp")]
    assert execute.run(plain)["status"] == "completed"


def test_interrupting_a_run_keeps_its_checkpoint(configure, tmp_path, monkeypatch):
    plain = configure("checkpoint_seconds=0", *FAST)
    ours = run_module.build_callbacks

    class Interrupt(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 12:
                raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "build_callbacks", lambda config: {**ours(config), "interrupt": Interrupt()})
    with pytest.raises(KeyboardInterrupt):
        execute.run(plain)
    monkeypatch.undo()
    folder = plan.plan(plain).folder
    assert (folder / "checkpoint.ckpt").exists()
    assert not (folder / "record.json").exists()
    resumed = execute.run(plain)
    assert resumed["metrics"] == execute.run({**plain, "runs_dir": str(tmp_path / "whole")})["metrics"]


@pytest.mark.parametrize(
    ("setting", "key", "reached"),
    [
        ("train_accuracy=0.4", "train/performance/accuracy", lambda value: value >= 0.4),
        ("train_loss=1.2", "train/performance/cross_entropy", lambda value: value <= 1.2),
    ],
)
def test_training_ends_at_the_first_epoch_that_reaches_a_threshold(configure, tmp_path, setting, key, reached):
    each = "callbacks.gap.every_n_epochs=1"
    record = execute.run(configure(f"callbacks.stop.{setting}", "trainer.max_steps=900", each, *FAST))
    with (folder_of(record, tmp_path) / "history.csv").open() as file:
        *before, last = [float(row[key]) for row in csv.DictReader(file)]
    assert reached(last)
    assert 1 <= len(before) < 99
    assert not any(map(reached, before))


def test_a_record_is_canonical_json(configure, tmp_path):
    record = execute.run(configure(*FAST))
    text = (folder_of(record, tmp_path) / "record.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["digest"] == record["digest"]


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module of the user's own with a method and a measure in another; ``edit`` changes one of them."""
    import importlib
    import sys

    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_method.py").write_text(
        "from genbench.regularization import Method\nclass Own(Method):\n    strength = 1\n"
    )
    (folder / "own_measure.py").write_text(
        "from genbench.measures import Estimate\ndef own(snapshot):\n    return Estimate(1.0)\n"
    )
    monkeypatch.syspath_prepend(str(folder))

    def edit(name, old, new):
        path = folder / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        sys.modules.pop(name, None)  # as a process of its own would find it
        importlib.invalidate_caches()
        config_module._signature.cache_clear()

    from genbench import config as config_module

    yield edit
    for name in ("own_method", "own_measure"):
        sys.modules.pop(name, None)
    config_module._signature.cache_clear()


def with_own_code(plain):
    plain["regularization"] = {"own": {"_target_": "own_method.Own"}}
    plain["callbacks"] = {
        "own": {
            "_target_": "genbench.callbacks.Measures",
            "measures": {"own": {"_target_": "own_measure.own", "_partial_": True}},
        }
    }
    return plain


def test_a_run_is_identified_by_the_users_code_that_trains_it(configure, own_code):
    plain = with_own_code(configure())
    first = plan.plan(plain)
    assert list(first.source.modules) == ["own_method"]
    own_code("own_method", "class Own", "# a comment\nclass Own")
    assert plan.plan(plain).run_id == first.run_id
    own_code("own_measure", "1.0", "2.0")  # it is measured again, not trained again
    assert plan.plan(plain).run_id == first.run_id
    own_code("own_method", "strength = 1", "strength = 2")
    second = plan.plan(plain)
    assert second.run_id != first.run_id
    own_code("own_method", "strength = 2", "strength = 1")
    assert plan.plan(plain).run_id == first.run_id
    expected = "the source of own_method differs from the planned one: it was changed since, or is another version"
    assert plan.other_code(first, second).startswith(expected)
    assert plan.other_code(first, first) is None


def test_without_code_of_the_users_own_a_run_keeps_its_name(configure):
    """The identity of version 0.1: configuration and data alone."""
    from genbench.records import digest

    planned = plan.plan(configure())
    data = build.build_data(configure())
    assert planned.run_id == digest({"config": planned.bound, "inputs": {"data": data.digest}})[:12]


def test_a_run_whose_code_is_not_the_planned_one_fails_in_its_place(configure, own_code):
    plain = with_own_code(configure())
    planned = plan.plan(plain)
    own_code("own_method", "strength = 1", "strength = 2")
    record = execute.run(plain, expected=planned)
    assert (record["run_id"], record["status"]) == (planned.run_id, "failed")
    assert record["error"].startswith("the source of own_method differs from the planned one")
    assert not (planned.folder / "weights.pt").exists()


def test_provenance_tells_the_code(configure, own_code):
    from genbench.runs import source

    plain = with_own_code(configure())
    record = execute.run(plain, typed=["data.path=/home/somebody/x", "seed=0"])
    found = record["provenance"]
    assert found["code"] == plan.plan(plain).source.digest
    assert found["genbench_code"] == source.of_genbench()
    assert found["overrides"] == ["data.path=…/x", "seed=0"]
    assert found["finished"].endswith("+00:00")


def test_the_commit_of_the_users_repository_is_known(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.chdir(tmp_path)
    commit.cache_clear()
    assert user_commit() is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=b", "-c", "commit.gpgsign=false"]
    (tmp_path / "inside").mkdir()
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True, cwd=tmp_path)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    monkeypatch.chdir(tmp_path / "inside")
    assert user_commit() == head[:12]
    (tmp_path / "file").write_text("2")
    commit.cache_clear()
    assert user_commit() == f"{head[:12]}+"


def test_a_measure_that_changed_is_measured_again_and_nothing_is_trained(configure, own_code, tmp_path):
    plain = with_own_code(configure("callbacks.gap.every_n_epochs=1"))
    own_code("own_measure", "return Estimate(1.0)", "return {'a': Estimate(1.0), 'b': Estimate(snapshot.mean_loss)}")
    gap = configure()["callbacks"]["gap"]
    plain["callbacks"]["gap"] = gap
    first = execute.run(plain)
    folder = folder_of(first, tmp_path)
    before = (folder / "weights.pt").stat().st_mtime_ns
    assert execute.run(plain) == first
    own_code("own_measure", "'a': Estimate(1.0), ", "'c': Estimate(3.0, stderr=0.5), ")
    again = execute.run(plain)
    assert (folder / "weights.pt").stat().st_mtime_ns == before
    assert records.verify(folder) == again
    assert again["metrics"]["train/other/c"] == 3.0
    assert again["stderr"]["train/other/c"] == 0.5
    assert again["metrics"]["train/other/b"] == pytest.approx(first["metrics"]["train/other/b"], rel=1e-6)
    assert "train/other/a" not in again["metrics"] | again["measure_seconds"]
    kept = {key: value for key, value in first["metrics"].items() if not key.startswith("train/other/")}
    assert kept.items() <= again["metrics"].items()
    assert len(kept) > 10
    assert again["notes"]["measures"] == "own: measured again with other code; rows of the history are of the earlier"
    path = "callbacks.own.measures.own"
    codes = [record["provenance"]["measures"][path] for record in (first, again)]
    assert codes[0]["code"] != codes[1]["code"]
    assert [code["keys"] for code in codes] == [
        ["train/other/a", "train/other/b"],
        ["train/other/c", "train/other/b"],
    ]
    assert execute.run(plain) == again  # once


def test_a_measure_that_changed_sees_the_initial_weights_again(configure, own_code, tmp_path):
    plain = with_own_code(configure())
    text = (
        "return Estimate(float(sum((p - snapshot.initial[n]).square().sum() for n, p in snapshot.parameters.items())))"
    )
    own_code("own_measure", "return Estimate(1.0)", text)
    first = execute.run(plain)
    own_code("own_measure", "return Estimate(float(", "return Estimate(1 + float(")
    again = execute.run(plain)
    moved = first["metrics"]["train/other/own"]
    assert moved > 0
    assert again["metrics"]["train/other/own"] == pytest.approx(1 + moved, rel=1e-5)
