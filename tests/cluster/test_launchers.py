"""Whole sweeps on joblib, submitit and Ray in their local modes, and on a stand-in for SLURM: ``make test-cluster``.

What they leave must be what processes of this machine leave, to the bit.
"""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from genbench import records
from tests.cluster import slurm
from tests.helpers.commands import TINY, ended_by, start_afresh
from tests.helpers.faults import Counts, Faulty, offer

PATIENCE = 600  # seconds; beside the rest of the suite a sweep of seconds can take minutes
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(4 * PATIENCE)]

LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm", "ray")
SHORT = (*TINY, "trainer.max_steps=20")


class Work:
    """A folder to sweep in, with faults to choose and, in PATH, the stand-in for SLURM."""

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path / "work", uuid.uuid4().hex
        self.said = ""
        self.path.mkdir(parents=True, exist_ok=True)
        offer(path / "conf" / "regularization" / "kills", Faulty, what="kill", after=0)
        offer(path / "conf" / "callbacks" / "slow", Counts, file="steps.txt")
        self.cluster = path / "slurm"
        root = Path(__file__).parents[2]
        self.environment = {
            **slurm.install(self.cluster),
            "PYTHONPATH": f"{root}:{path}",
            "COLUMNS": "200",
            "MARK": self.mark,
        }

    @property
    def experiment(self) -> Path:
        return self.path / "runs" / "default"

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        own = str(self.path.parent / "conf")
        return start_afresh(self.path, "--config-dir", own, "-m", *SHORT, *arguments, **self.environment)

    def sweep(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"after {PATIENCE} s:\n{out}\n{err}")
        self.said = err
        return process.returncode, out, err

    def by_method(self, method: str) -> list[dict]:
        found = records.load(self.experiment).records
        found = [record for record in found if record["choices"]["regularization"] == ([method] if method else [])]
        return sorted(found, key=lambda record: record["seed"])

    def processes(self) -> list[psutil.Process]:
        """Those that this folder's sweeps have started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
        return found

    def assert_nothing_is_left(self) -> None:
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left
        assert not list(self.experiment.glob("packs"))


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, testrun_uid):
    """What processes of this machine leave: each run by itself, and both as one. Made once for all test processes."""
    root = tmp_path_factory.getbasetemp().parent / f"reference-{testrun_uid}"
    with FileLock(f"{root}.lock"):
        found = {lanes: Work(root / lanes) for lanes in ("null", "auto")}
        for lanes, work in found.items():
            if not work.experiment.exists():
                status, _, err = work.sweep(f"hydra.launcher.lanes={lanes}", "hydra.launcher.n_jobs=1", "seed=0,1")
                assert status == 0, err
    return found


def assert_same(work, reference, *, lanes):
    """The two runs without a method are those of the reference, to the bit."""
    assert len(work.by_method("")) == len(reference.by_method("")), work.said
    for ours, theirs in zip(work.by_method(""), reference.by_method(""), strict=True):
        assert ours["status"] == "completed"
        assert ours["provenance"]["lanes"] == theirs["provenance"]["lanes"] == lanes
        assert ours["metrics"].keys() == theirs["metrics"].keys()
        a, b = (
            torch.load(w.experiment / record["run_id"] / "weights.pt", weights_only=True)
            for w, record in ((work, ours), (reference, theirs))
        )
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_packs_are_jobs_of_the_launcher_and_what_dies_dies_alone(launcher, work, reference):
    chosen = (f"hydra/launcher={launcher}", "hydra.launcher.lanes=auto", "hydra.launcher.n_jobs=2", "seed=0,1")
    status, out, err = work.sweep(*chosen, "regularization=none,kills")
    assert status == 1, err
    assert "Traceback" not in out + err, err
    assert_same(work, reference["auto"], lanes=2)
    killed = work.by_method("kills")
    assert [record["status"] for record in killed] == ["failed", "failed"]
    reasons = {
        "joblib": r"the process was killed by SIGKILL \(out of memory\?\)",
        "submitit_local": r"the job ended without a result: killed \(out of memory\?\)",
        "submitit_slurm": r"the job ended without a result: FAILED",
        "ray": r"Ray's process was killed \(out of memory\?\)",
    }
    assert all(re.fullmatch(reasons[launcher], record["error"]) for record in killed), killed[0]["error"]
    assert (work.experiment / "table.md").exists()
    assert not [record for record in records.load(work.experiment).records if str(work.path) in str(record)]
    # none: one job; kills: one that dies, then each run alone, and once more
    jobs = slurm.scripts(work.cluster)
    assert len(jobs) == (6 if launcher == "submitit_slurm" else 0)

    # once more, without what is killed: nothing is left to do
    before = {path: path.stat().st_mtime_ns for path in work.experiment.glob("*/record.json")}
    status, again, err = work.sweep(*chosen, "regularization=none")
    assert status == 0, err
    assert "none" in again
    assert {path: path.stat().st_mtime_ns for path in work.experiment.glob("*/record.json")} == before
    assert len(slurm.scripts(work.cluster)) == len(jobs)
    work.assert_nothing_is_left()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c_ends_what_was_started_and_the_same_command_continues(launcher, work, reference):
    chosen = (f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=1", "callbacks=slow", "seed=0,1")
    process = work.start(*chosen)
    wait_for(lambda: list(work.experiment.glob("*/record.json")) or process.poll() is not None)
    if launcher == "ray":
        listening = [c.laddr.ip for p in work.processes() for c in p.net_connections() if c.status == "LISTEN"]
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "the same command continues" in err
    assert "Traceback" not in out + err, err
    assert len(records.load(work.experiment).records) == 1
    work.assert_nothing_is_left()
    status, _, err = work.sweep(*chosen)
    assert status == 0, err
    assert_same(work, reference["null"], lanes=1)
    work.assert_nothing_is_left()
    assert not list(work.experiment.glob("submitit"))  # jobs that ended well leave nothing


@pytest.mark.parametrize(("launcher", "number"), [("submitit_local", signal.SIGTERM), ("ray", signal.SIGUSR1)])
def test_a_signal_to_the_command_ends_its_jobs_and_the_same_command_continues(launcher, number, work, reference):
    chosen = (f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=1", "callbacks=slow", "seed=0,1")
    process = work.start(*chosen)
    steps = work.path / "steps.txt"
    wait_for(lambda: (steps.exists() and steps.stat().st_size >= 12) or process.poll() is not None)
    ended_by(process, number, within=120)
    work.assert_nothing_is_left()
    assert list(work.experiment.glob("*/checkpoint.ckpt"))
    status, _, err = work.sweep(*chosen)
    assert status == 0, err
    assert_same(work, reference["null"], lanes=1)
    assert 40 <= steps.stat().st_size < 50  # from an epoch's end at the worst, of 10 steps
    work.assert_nothing_is_left()


@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
def test_a_job_that_is_preempted_is_queued_again_and_continues(launcher, work, reference):
    chosen = (f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=1", "hydra.launcher.lanes=auto")
    process = work.start(*chosen, "callbacks=slow", "seed=0,1")
    steps = work.path / "steps.txt"
    wait_for(lambda: steps.exists() and steps.stat().st_size >= 24)  # 12 of each run; an epoch has 10

    interrupted = [p for p in work.processes() if "submitit.core._submit" in p.cmdline()]
    for job in interrupted:
        job.send_signal(signal.SIGUSR2)  # what submitit has SLURM send before it ends a job
    wait_for(lambda: not any(job.is_running() for job in interrupted), 60)
    assert process.poll() is None
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err, err
    work.said = err
    assert_same(work, reference["auto"], lanes=2)
    assert steps.read_bytes().count(1) == 2  # a pack begun anew takes the first step of both runs again
    work.assert_nothing_is_left()


def test_what_slurm_is_asked_for(work):
    settings = {
        "n_jobs": "1",
        "timeout_min": "30",
        "mem_gb": "2.5",
        "cpus_per_task": "3",
        "slurm_partition": "small",
        "slurm_setup": '["export A=1"]',
        "slurm_additional_parameters": "{exclude: node7}",
    }
    more = [f"hydra.launcher.{key}={value}" for key, value in settings.items()]
    status, _, err = work.sweep("hydra/launcher=submitit_slurm", *more, "seed=0")
    assert status == 0, err
    (script,) = slurm.scripts(work.cluster)
    lines = script.splitlines()
    for option in ("time=30", "mem=2560MB", "cpus-per-task=3", "partition=small", "exclude=node7", "job-name=genbench"):
        assert f"#SBATCH --{option}" in lines, script
    assert "#SBATCH --signal=USR2@90" in lines
    assert "export A=1" in lines
    assert not [line for line in lines if "gpus" in line or "account" in line]

    status, _, err = work.sweep("hydra/launcher=submitit_slurm", "hydra.launcher.slurm_partition=closed", "seed=2,3")
    assert (status, err.strip().splitlines()[-1]) == (
        1,
        "genbench: SLURM does not take the job: sbatch: error: invalid partition specified: closed",
    )


def test_a_ray_cluster_that_runs_is_used_and_left(work, tmp_path):
    code = """
import ray, sys
where = ray.init(address="local", num_cpus=2, include_dashboard=False)
print(where.address_info["gcs_address"], flush=True)
sys.stdin.read()
print(ray.is_initialized() and ray.cluster_resources()["CPU"])
ray.shutdown()
"""
    # as the executor has them for a cluster of its own, and the token that it makes itself
    work.environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    work.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": work.mark * 2}
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,  # not the folder of the sweep
        env={**os.environ, **work.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    address = owner.stdout.readline().strip()
    try:
        status, _, err = work.sweep("hydra/launcher=ray", f'hydra.launcher.address="{address}"', "seed=0,1")
        assert status == 0, err
        assert len(records.load(work.experiment).records) == 2
    finally:
        out, _ = owner.communicate(input="", timeout=PATIENCE)
    assert out.strip() == "2.0"
