"""Workers of a sweep that end with any status, are killed or hang."""

import time

import pytest

from genbench import records
from genbench.runs import sweep, sweep_plan
from genbench.runs.executors import Joblib, Processes
from genbench.training import AtomicCheckpointIO
from tests.helpers.faults import jobs


@pytest.fixture(autouse=True)
def not_swept(monkeypatch):
    """What these sweeps leave is no table of a command that another test runs in this process."""
    monkeypatch.setattr(sweep_plan, "SWEPT", {})


def errors(outcomes):
    return [outcome.error for outcome in outcomes]


@pytest.mark.parametrize("executor", [Processes, Joblib])
def test_a_worker_that_exits_with_any_status_is_recorded_as_died(configure, tmp_path, capfd, executor):
    planned = jobs(configure, "exit 0", None, "exit 7", "kill")
    outcomes = sweep.run(planned, command=[], executor=executor(n_jobs=2), retries=0)
    assert errors(outcomes) == [
        "the process ended with exit status 0",
        None,
        "the process ended with exit status 7",
        "the process was killed by SIGKILL (out of memory?)",
    ]
    found = {record["seed"]: record["status"] for record in records.load(tmp_path / "runs" / "default").records}
    assert found == {0: "failed", 1: "completed", 2: "failed", 3: "failed"}


def test_a_killed_run_is_tried_again_and_one_that_raises_is_not(configure, tmp_path, capfd):
    planned = jobs(configure, "exit 0", "raise once", flag=str(tmp_path / "flag"))
    planned[1].config["callbacks"]["fault"]["flag"] = str(tmp_path / "other")
    outcomes = sweep.run(planned, command=[], executor=Processes(n_jobs=1))
    assert errors(outcomes) == [None, "RuntimeError: once"]
    assert "seed=0: the process ended with exit status 0; tried again" in capfd.readouterr().err


def test_what_is_killed_every_time_is_tried_as_often_as_retries_says(configure, tmp_path, capfd):
    (outcome,) = sweep.run(jobs(configure, "kill"), command=[], executor=Processes(n_jobs=1), retries=2)
    assert outcome.status == "failed"
    assert capfd.readouterr().err.count("tried again") == 2


def test_what_hangs_is_ended_and_not_tried_again(configure, capfd):
    started = time.monotonic()
    outcomes = sweep.run(jobs(configure, "hang", None), command=[], executor=Processes(n_jobs=2), timeout=5)
    assert errors(outcomes) == ["it took longer than hydra.launcher.timeout allows", None]
    assert time.monotonic() - started < 60
    assert "tried again" not in capfd.readouterr().err


def test_a_pack_may_take_as_long_as_its_runs_together(configure, monkeypatch):
    asked = []

    class Noting(Processes):
        def submit(self, function, *args):
            asked.append((function.__name__, args[-1]))
            return super().submit(function, *args)

    outcomes = sweep.run(
        jobs(configure, None, None), command=[], executor=Noting(n_jobs=1), lanes=2, timeout=60, retries=0
    )
    assert [outcome.status for outcome in outcomes] == ["completed"] * 2
    assert asked[-1] == ("execute_pack", 120)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"timeout": 0}, "hydra.launcher.timeout is 0; accepted"), ({"retries": -1}, "hydra.launcher.retries is -1")],
)
def test_what_makes_no_sense_is_refused(configure, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        sweep.run(jobs(configure, None), command=[], executor=Processes(n_jobs=1), **setting)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("executor", [Processes, Joblib])
def test_workers_write_their_state_before_they_are_ended(configure, tmp_path, executor, capfd):
    (job,) = jobs(configure, None)
    job.config["checkpoint_seconds"] = 1e6
    job.config["trainer"]["max_steps"] = 5000
    steps = tmp_path / "steps"
    # no measures: one that is asked to end does so at once, and the run goes on from the checkpoint before it
    job.config["callbacks"] = {"counts": {"_target_": "tests.helpers.faults.Counts", "file": str(steps)}}

    class Impatient(executor):
        def submit(self, function, *args):
            future = super().submit(function, *args)
            if function.__name__ == "execute_run":
                deadline = time.monotonic() + 240
                while not (steps.exists() and steps.stat().st_size > 3) and time.monotonic() < deadline:
                    time.sleep(0.05)
                raise KeyboardInterrupt
            return future

    with pytest.raises(KeyboardInterrupt):
        sweep.run([job], command=[], executor=Impatient(n_jobs=1))
    (path,) = tmp_path.glob("runs/default/*/checkpoint.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == steps.stat().st_size > 3
    assert not records.running(path.parent)
