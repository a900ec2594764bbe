"""A run that is broken off while its final measures are computed keeps them: it is measured to its end, not trained
again."""

import json
import multiprocessing
import os
import signal

import pytest
import pytorch_lightning as pl

from genbench import records
from genbench.callbacks import Measures, views
from genbench.records import Estimate, unfinished
from genbench.runs import execute
from genbench.runs.run import Interrupted
from genbench.runs.state import CHECKPOINT
from genbench.training import AtomicCheckpointIO, Training
from genbench.training.pack import Pack

NEVER = "checkpoint_seconds=1000000"  # no state of training is kept but its end
FEW = ("~measures.adaptive_sharpness", "~measures.average_sharpness", "~measures.sam_sharpness")


@pytest.fixture
def after(monkeypatch):
    """Have something done each time that a measure of this name is done, until ``monkeypatch`` is undone."""

    def after(measure, action):
        plain = views.evaluate

        def evaluate(*args, keep, **settings):
            def kept(name, found):
                keep(name, found)
                if name == measure:
                    action()

            return plain(*args, keep=kept, **settings)

        monkeypatch.setattr(views, "evaluate", evaluate)

    return after


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(train):
    """Whether it was, in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.fixture(autouse=True)
def every_part_is_written():
    """As if each had taken its second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished, "SECONDS", 0.0)
        yield


def test_quick_parts_are_written_once_a_second(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(unfinished, "SECONDS", 1.0)
    monkeypatch.setattr(unfinished, "perf_counter", lambda: now)
    kept = unfinished.Unfinished(tmp_path, {"digest": "a"})
    seen = []
    for number in range(8):
        now += 0.3
        kept.keep("measures", str(number), {"train/a": Estimate(float(number))})
        seen.append([*unfinished.Unfinished(tmp_path, {"digest": "a"}).of("measures")])
    assert [len(parts) for parts in seen] == [0, 0, 0, 4, 4, 4, 4, 8]


def forbid_training(monkeypatch):
    for kind, name in ((Training, "training_step"), (Pack, "advance")):
        monkeypatch.setattr(kind, name, lambda *args, **settings: pytest.fail("it is trained again"))


def assert_same(ours, theirs, tmp_path):
    assert ours["status"] == theirs["status"] == "completed", ours["error"]
    for part in ("metrics", "stderr", "converged", "residual", "interval", "notes", "files"):
        assert ours[part] == theirs[part], part
    assert ours["provenance"]["lanes"] == theirs["provenance"]["lanes"]
    assert 0 < ours["seconds"]["measure"] < ours["seconds"]["total"]
    folder = tmp_path / "runs" / "default" / ours["run_id"]
    assert records.verify(folder) == ours
    assert not {path.name for path in folder.iterdir()} & {unfinished.FILE, CHECKPOINT}


@pytest.mark.parametrize(
    "settings",
    [
        ["callbacks=full", "regularization=dropout"],
        ["regularization=[swa,batch_norm]", "optimizer=schedule_free_sgd"],
        ["regularization=ensemble", "~callbacks.gap"],
        ["regularization=early_stopping", "trainer.max_steps=400", "model=cnn"],
    ],
    ids=["full", "averages", "ensemble", "stopped"],
)
def test_a_run_that_is_killed_while_it_is_measured(configure, tmp_path, monkeypatch, after, settings):
    plain = configure(NEVER, *FEW, *settings)
    whole = execute.run({**plain, "runs_dir": str(tmp_path / "whole")})
    after("lambda_1", kill)
    assert killed(lambda: execute.run(plain))
    monkeypatch.undo()
    (path,) = tmp_path.glob(f"runs/default/*/{unfinished.FILE}")
    assert "ended" in AtomicCheckpointIO().load_checkpoint(path.with_name(CHECKPOINT))
    forbid_training(monkeypatch)
    assert_same(execute.run(plain), whole, tmp_path)


def test_runs_of_a_pack_that_is_killed_while_they_are_measured(configure, tmp_path, monkeypatch, after):
    plains = configure(NEVER, *FEW, "regularization=[dropout,swa]", each=[{"seed": seed} for seed in range(3)])

    def pack(root, chosen=(0, 1, 2)):
        there = [{**plains[i], "runs_dir": str(tmp_path / root)} for i in chosen]
        return execute.run_packed(there, choices=[{}] * len(there), overrides=[()] * len(there))

    whole = pack("whole")
    after("lambda_1", kill)
    assert killed(lambda: pack("runs"))
    monkeypatch.undo()
    folders = [tmp_path / "runs" / "default" / record["run_id"] for record in whole]
    assert [(folder / unfinished.FILE).exists() for folder in folders] == [True, False, False]
    forbid_training(monkeypatch)
    assert_same(execute.run(plains[2]), whole[2], tmp_path)  # alone, as another command may
    for ours, theirs in zip(pack("runs"), whole, strict=True):
        assert_same(ours, theirs, tmp_path)
    assert not list(tmp_path.glob("runs/default/packs"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("packed", [False, True])
def test_a_signal_while_it_is_measured(configure, tmp_path, monkeypatch, after, number, packed):
    plain = configure(NEVER, *FEW)

    def train(root="runs"):
        config = {**plain, "runs_dir": str(tmp_path / root)}
        return execute.run_packed([config], choices=[{}], overrides=[()])[0] if packed else execute.run(config)

    whole = train("whole")
    after("trace", lambda: signal.raise_signal(number))
    with pytest.raises(Interrupted):
        train()
    monkeypatch.undo()
    forbid_training(monkeypatch)
    after("lambda_1", lambda: signal.raise_signal(number))  # known already
    assert_same(train(), whole, tmp_path)


def test_what_is_taken_is_of_this_end_and_this_code(configure, tmp_path, monkeypatch, after):
    plain = configure(NEVER, *FEW, "~callbacks.gap")
    after("trace", lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute.run(plain)
    monkeypatch.undo()
    (path,) = tmp_path.glob(f"runs/default/*/{unfinished.FILE}")
    checkpoint = path.with_name(CHECKPOINT)
    kept = json.loads(path.read_text())
    parts = next(found for callback, found in kept["measured"].items() if "trace" in callback)
    assert list(parts) == ["l2", "distance", "spectral", "lambda_1", "trace"]
    parts["trace"]["train/flatness/trace"]["value"] = 12345.0
    state = checkpoint.read_bytes()

    def again(**changes):
        checkpoint.write_bytes(state)
        (checkpoint.parent / records.RECORD).unlink(missing_ok=True)
        path.write_text(json.dumps({**kept, **changes}))
        return execute.run(plain)["metrics"]["train/flatness/trace"]

    forbid_training(monkeypatch)
    assert again() == 12345.0
    assert again(ended="another") != 12345.0
    assert again(provenance={**kept["provenance"], "genbench_code": "another"}) != 12345.0
    assert again(measured="damaged") != 12345.0


class Unkept(pl.Callback):
    """Has a state that cannot be written."""

    def state_dict(self):
        return {"function": lambda: None}


def test_an_end_that_cannot_be_kept_is_measured_as_ever(configure):
    plain = configure(NEVER, *FEW, "~measures.trace")
    plain["callbacks"]["unkept"] = {"_target_": f"{__name__}.Unkept"}
    with pytest.warns(UserWarning, match=r"the end of training could not be kept: .*pickle"):
        assert execute.run(plain)["status"] == "completed"


def test_a_measurement_that_fails_is_tried_again_and_an_end_that_cannot_be_read_is_trained_again(
    configure, tmp_path, monkeypatch
):
    plain = configure(NEVER, *FEW)
    with monkeypatch.context() as patch:
        patch.setattr(Measures, "on_train_end", lambda *args: 1 / 0)
        assert execute.run(plain)["error"] == "ZeroDivisionError: division by zero"
    (checkpoint,) = tmp_path.glob(f"runs/default/*/{CHECKPOINT}")
    state = AtomicCheckpointIO().load_checkpoint(checkpoint)
    with monkeypatch.context() as patch:
        forbid_training(patch)
        assert execute.run(plain)["status"] == "completed"
    assert not checkpoint.exists()
    (checkpoint.parent / records.RECORD).unlink()
    AtomicCheckpointIO().save_checkpoint({**state, "weights": {}}, checkpoint)
    assert "Missing key" in execute.run(plain)["error"]
    assert execute.run(plain)["status"] == "completed"
