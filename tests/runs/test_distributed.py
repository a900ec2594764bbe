"""One run on two processes of this machine, from the command to the record, and what may go wrong with one of them."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from genbench import records
from genbench.runs import distributed, execute, plan
from genbench.runs.executors.processes import start_server
from genbench.runs.run import Interrupted
from tests.helpers.commands import PROGRAM, alone
from tests.helpers.faults import BROKEN, Faulty, Waits, node
from tests.helpers.forked import Forked

NOTHING = ("~callbacks.gap", "~callbacks.weight_norms", "~callbacks.measures")  # measured
DDP = ("trainer=ddp",)


class Torchs(nn.Module):
    """Draws from torch's global generator."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(40, classes))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def forked(monkeypatch):
    """The processes of a run begin with torch imported; where a test does without this, they import it themselves."""

    def start(environment, *, shown):
        return Forked(distributed._PROGRAM, environment={**os.environ, **environment})

    monkeypatch.setattr(distributed, "_start", start)


def probing(plain, method, **settings):
    plain["regularization"] = {"probe": node(method, **settings)}
    return plain


def alike(plain, other):
    """The records of one device and of two agree to the rounding of float32."""
    assert {"strategy": "ddp", "devices": 2}.items() <= other["config"]["trainer"].items()
    assert (plain["provenance"]["devices"], other["provenance"]["devices"]) == (1, 2)
    assert plain["run_id"] != other["run_id"]
    assert plain["metrics"].keys() == other["metrics"].keys()
    for key, value in plain["metrics"].items():
        assert other["metrics"][key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_two_processes_leave_what_one_does(configure, tmp_path):
    chosen = ("regularization=[dropout,mixup]", "model.activation=tanh", "~measures.trace")
    one, two = (execute.run(configure(*chosen, *more)) for more in ((), DDP))
    assert (one["status"], two["status"]) == ("completed", "completed")
    alike(one, two)
    folders = [tmp_path / "runs" / "default" / record["run_id"] for record in (one, two)]
    assert records.verify(folders[1]) == two
    left = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in folders]
    assert left[0] == left[1]
    rows = [(folder / "history.csv").read_text().count("\n") for folder in folders]
    assert rows[0] == rows[1]
    initial = [torch.load(folder / "initial.pt", weights_only=True) for folder in folders]
    assert all(torch.equal(initial[0][key], initial[1][key]) for key in initial[0])


@pytest.mark.usefixtures("forked")
def test_an_error_of_one_process_ends_the_run_at_once(configure, tmp_path, capfd):
    record = execute.run(probing(configure(*DDP, *NOTHING), Faulty, what=BROKEN, rank=1))
    assert record["status"] == "failed"
    assert record["error"] == "RuntimeError: broken on purpose second line, in …/file.py"
    folder = tmp_path / "runs" / "default" / record["run_id"]
    assert "broken on purpose" in (folder / "traceback.txt").read_text()
    assert records.read(folder / "record.json") == record
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("forked")
def test_an_error_of_all_processes_is_recorded_as_that_of_one(configure):
    record = execute.run(probing(configure(*DDP, *NOTHING), Faulty, what="quit 3"))
    assert (record["status"], record["error"]) == ("failed", "SystemExit: the run called exit(3)")
    assert record["history"] == "history.csv"


@pytest.mark.usefixtures("forked")
def test_a_run_that_diverges_is_recorded_once(configure):
    record = execute.run(configure(*DDP, *NOTHING, "optimizer=sgd", "optimizer.lr=1e30"))
    assert record["status"] == "diverged"


@pytest.mark.usefixtures("forked")
def test_a_killed_process_ends_the_run_which_continues_from_its_checkpoint(configure, tmp_path):
    second = {"what": "kill", "after": 0.6, "rank": 1, "flag": str(tmp_path / "flag")}
    plain = probing(configure(*DDP, *NOTHING, "checkpoint_seconds=0"), Faulty, **second)
    record = execute.run(plain)
    assert (record["status"], record["error"][:39]) == ("failed", "process 1 of 2: the process was killed ")
    folder = tmp_path / "runs" / "default" / record["run_id"]
    assert (folder / "checkpoint.ckpt").exists()
    assert execute.run(plain)["status"] == "completed"
    single = {"strategy": "auto", "devices": 1}
    whole = execute.run({**plain, "trainer": plain["trainer"] | single})
    a, b = (torch.load(path / "weights.pt", weights_only=True) for path in (folder, folder.parent / whole["run_id"]))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)
    assert not (folder / "checkpoint.ckpt").exists()


def _run(plain):
    try:
        execute.run(plain)
    except Interrupted:
        os._exit(130)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_command_and_the_same_one_continues(configure, tmp_path, how):
    plain = probing(configure(*DDP, *NOTHING, "checkpoint_seconds=0"), Waits, folder=str(tmp_path))
    command = start_server().Process(target=_run, args=(plain,))
    command.start()
    written = [tmp_path / "0", tmp_path / "1"]
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.read_text() for path in written):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(command.pid, how)
    command.join(60)
    assert command.exitcode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    pids = [int(path.read_text()) for path in written]
    while any(
        Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (checkpoint,) = (tmp_path / "runs").glob("*/*/checkpoint.ckpt")
    assert not (checkpoint.parent / "record.json").exists()
    (tmp_path / "go").touch()
    if how == signal.SIGKILL:
        assert execute.run(plain)["status"] == "completed"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=3"], "a batch has 20 examples (data.batch_size), which 3 processes cannot share"),
        (["trainer.devices=0"], "trainer.devices is 0; accepted: an integer of at least 1"),
        (["trainer.devices=auto"], "trainer.devices is 'auto'; accepted: an integer of at least 1"),
        (["trainer.strategy=dpp"], "trainer.strategy is 'dpp'; accepted: auto, ddp"),
        (["trainer.strategy=auto"], "trainer.devices is 2; accepted: 1, or more with trainer=ddp"),
        (["trainer.accelerator=mps"], "trainer.accelerator is 'mps'; accepted: auto, cpu, gpu"),
        (["trainer.num_nodes=2"], "trainer.num_nodes is 2; accepted: 1, or more where torchrun or srun starts"),
        pytest.param(
            ["trainer.accelerator=gpu"],
            "trainer: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(configure, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        execute.run(configure(*DDP, *overrides))
    assert message in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_what_draws_from_the_global_generator_is_refused(configure):
    plain = configure(*DDP)
    plain["model"] = {"_target_": f"{__name__}.Torchs"}
    with pytest.raises(ValueError, match="draw from torch's global generator"):
        execute.run(plain)


def test_one_device_is_the_run_of_any_trainer(configure):
    assert plan.plan(configure(*DDP, "trainer.devices=1")).run_id == plan.plan(configure()).run_id


def test_processes_of_another_number_are_refused(configure, monkeypatch):
    for key, value in distributed.environment_of(1, 2, 1).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match="num_nodes is 4; torchrun or srun has started 2 processes"):
        execute.run(configure(*DDP, "trainer.devices=4"))


def overrides(tmp_path, *more):
    short = ["data.train_size=200", "data.batch_size=20", "trainer.max_steps=10", "trainer.accelerator=cpu"]
    return [*more, f"runs_dir={tmp_path / 'runs'}", "trainer=ddp", *short, *NOTHING]


def test_runs_of_a_sweep_start_processes_of_their_own_which_no_pack_could(tmp_path):
    chosen = overrides(tmp_path, "-m", "hydra/launcher=packed", "hydra.launcher.n_jobs=1", "seed=0,1")
    status, _, err = alone(tmp_path, *chosen)
    assert status == 0, err
    found = [records.read(path) for path in (tmp_path / "runs").glob("*/*/record.json")]
    assert [record["status"] for record in found] == ["completed"] * 2
    said = "not packed: 2 runs (seed=0, seed=1): trainer=ddp shares one run among processes"
    assert said in " ".join(err.split())


def test_processes_that_torchrun_has_started_are_the_run(tmp_path):
    for _ in range(2):  # trained, and found to be
        with distributed.store() as (port, _):
            both = [
                Forked(
                    PROGRAM,
                    *overrides(tmp_path),
                    environment={**os.environ, **distributed.environment_of(rank, 2, port)},
                )
                for rank in range(2)
            ]
            (first, _), (second, wrong) = (one.communicate(timeout=200) for one in both)
        assert [one.returncode for one in both] == [0, 0], wrong
        assert "record: " in first
        assert second == ""
        (record,) = (tmp_path / "runs").glob("*/*/record.json")
        assert records.read(record)["status"] == "completed"
