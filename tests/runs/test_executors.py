"""What a sweep asks of its executor, and what is refused. Those for clusters are tested by tests/cluster."""

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import get_object

from genbench import records
from genbench.checks import ConfigError
from genbench.config import folder
from genbench.process import termination
from genbench.runs import executors, sweep, sweep_plan
from genbench.runs.executors import base, processes

LAUNCHERS = sorted((folder() / "hydra" / "launcher").glob("*.yaml"))
SUBMITIT = {"timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0}


@pytest.fixture(autouse=True)
def not_swept(monkeypatch):
    """What these sweeps leave is no table of a command that another test runs in this process."""
    monkeypatch.setattr(sweep_plan, "SWEPT", {})


class Elsewhere(executors.Executor):
    """Processes that stand for another machine, and remember what was asked of them."""

    here = False

    def __init__(self, *, n_jobs, gpu):
        super().__init__(n_jobs=n_jobs)
        self.gpu, self.submitted, self.folder = gpu, [], None
        self.processes = executors.Processes(n_jobs=n_jobs)

    def start(self, *, units, folder):
        self.folder, self.units = folder, units
        self.processes.start(units=units, folder=folder)

    def submit(self, function, *args):
        self.submitted.append((function.__name__, args))
        return self.processes.submit(function, *args)

    def result(self, future):
        return self.processes.result(future)

    def stop(self, *, abort):
        self.processes.stop(abort=abort)


def jobs(configure, *settings):
    few = ("~measures.trace", "~measures.adaptive_sharpness", "~measures.average_sharpness", "trainer.max_steps=5")
    return [
        sweep.Job((f"seed={seed}",), configure(*few, *settings, f"seed={seed}"), {"model": "mlp"}) for seed in range(3)
    ]


def test_processes_take_the_gpus_in_turn(monkeypatch):
    taken, begun = [], executors.start_server().Value("i", 0)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for gpus in (0, 1, 3, 3, 3):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        processes._take_gpu(begun)
    assert taken == [2, 0, 1]


def test_a_pack_is_one_job_and_a_complete_sweep_starts_nothing(configure):
    executor = Elsewhere(n_jobs=1, gpu=False)
    outcomes = sweep.run(jobs(configure), command=[], executor=executor, lanes="auto")
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3
    assert [name for name, _ in executor.submitted] == ["execute_pack"]
    assert executor.units == 1
    found = records.load(executor.folder).records
    assert [record["provenance"]["lanes"] for record in found] == [3, 3, 3]

    again = Elsewhere(n_jobs=1, gpu=False)
    assert sweep.run(jobs(configure), command=[], executor=again, lanes="auto") == outcomes
    assert (again.submitted, again.folder) == ([], None)


@pytest.mark.parametrize("gpu", [False, True])
def test_the_device_is_what_the_executor_gives_and_not_what_this_machine_has(configure, gpu):
    executor = Elsewhere(n_jobs=1, gpu=gpu)
    planned = jobs(configure, "trainer.accelerator=auto")
    if gpu and torch.cuda.is_available():
        pytest.skip("there is a GPU: it would train")
    outcomes = sweep.run(planned[:1], command=[], executor=executor)
    ((_, (job, *_)),) = executor.submitted
    assert job.config["trainer"]["accelerator"] == ("gpu" if gpu else "cpu")
    # the plan and the run are of one mind about who they are
    (run,) = records.read_sweep(executor.folder)["runs"]
    assert run["run_id"] == outcomes[0].run_id
    assert outcomes[0].status == ("failed" if gpu else "completed")  # there is none here, either
    assert planned[0].config["trainer"]["accelerator"] == "auto"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: executors.Processes(n_jobs=0), "hydra.launcher.n_jobs is 0; accepted: an integer of at least 1"),
        (lambda: executors.Submitit(n_jobs=1, cluster="pbs", **SUBMITIT), "hydra.launcher.cluster is 'pbs'; accepted"),
        (lambda: executors.Ray(n_jobs=1, address=None, num_cpus=-1, num_gpus=0), "hydra.launcher.num_cpus is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("launcher", ["joblib", "ray", "submitit_local", "submitit_slurm"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch, launcher):
    def missing(name):
        raise ImportError(name)

    settings = yaml.safe_load((folder() / "hydra" / "launcher" / f"{launcher}.yaml").read_text())
    for name in ("_target_", "lanes", "timeout", "retries"):
        del settings[name]
    executor = get_object(settings.pop("executor"))
    extra = launcher.partition("_")[0]
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError) as caught:
        executor(**settings)
    assert str(caught.value) == f'hydra/launcher={launcher} needs: pip install "genbench[{extra}]"'


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_every_launcher_says_what_it_is_and_has_the_same_first_settings(path):
    settings = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# ")
    assert "lanes" in settings
    assert settings.get("defaults") or "n_jobs" in settings


def test_a_call_means_the_same_folder_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = pickle.loads(pickle.dumps(base.Call(os.getcwd, ())))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert call() == (str(tmp_path), None)


def test_what_a_call_raises_comes_back_as_it_was():
    value, error = base.Call(int, ("many",))()
    assert value is None
    assert isinstance(error, ValueError)


def test_how_a_process_ended_is_said():
    assert executors.cause_of_death(7) == "the process ended with exit status 7"
    assert executors.cause_of_death(-signal.SIGTERM) == "the process was killed by SIGTERM"
    assert executors.cause_of_death(-signal.SIGKILL) == "the process was killed by SIGKILL (out of memory?)"


class Submitting:
    """A module submitit whose executor starts a process and gets signals while it submits."""

    def __init__(self, *numbers):
        self.numbers, self.log, self.job_id, self.state = numbers, [], "17", "RUNNING"

    def AutoExecutor(self, *_args, **_settings):
        return self

    def update_parameters(self, **_settings):
        pass

    def submit(self, _call):
        says = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        for number in self.numbers:
            os.kill(os.getpid(), number)
        self.log += ["submitted", subprocess.check_output([sys.executable, "-c", says], text=True).strip()]
        return self

    def cancel(self, check):
        self.log.append("cancelled")

    def done(self):
        return "cancelled" in self.log

    core = SimpleNamespace(utils=SimpleNamespace(FailedJobError=OSError))


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGUSR1)])
def test_a_signal_while_a_job_is_submitted_ends_the_command_once_it_has_the_jobs_number(
    monkeypatch, request, tmp_path, numbers
):
    submitit = Submitting(*numbers)
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    executor = executors.Submitit(n_jobs=1, cluster="slurm", **SUBMITIT)
    executor.start(units=1, folder=tmp_path)
    (tmp_path / "submitit").mkdir()
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, own))
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt), termination.terminable():
        executor.submit(print)
    assert submitit.log == ["submitted", "True"]  # the job's process does not get Ctrl-C
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before
    executor.stop(abort=True)
    assert submitit.log[2:] == ["cancelled"]
