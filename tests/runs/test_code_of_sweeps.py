"""A sweep whose code changes while it runs, and one that finds runs of other code."""

import os

import pytest

from genbench import records
from genbench.runs import source, sweep, sweep_plan
from genbench.runs.executors import Processes

METHOD = """
import os
from pathlib import Path
from genbench.regularization import Method

STRENGTH = 1

class Edits(Method):
    '''Its user edits it while it trains, and its worker is killed.'''

    def __init__(self, *, edit=False):
        super().__init__()
        self.edit = edit

    def after_step(self, params, progress):
        if self.edit and STRENGTH == 1:
            path = Path(__file__)
            path.write_text(path.read_text().replace("STRENGTH = 1", "STRENGTH = 2"))
            os._exit(3)
"""


@pytest.fixture
def jobs(configure, tmp_path, monkeypatch):
    """``jobs(edit, …)``: a job for each."""
    monkeypatch.setattr(sweep_plan, "SWEPT", {})
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "edited_method.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def jobs(*edits):
        found = []
        for seed, edit in enumerate(edits):
            plain = configure("measures={}", "logger={}", "callbacks={}", "trainer.max_steps=9")
            target = {"_target_": "edited_method.Edits", "edit": edit}
            found.append(sweep.Job((f"seed={seed}",), {**plain, "seed": seed, "regularization": {"own": target}}, {}))
        return found

    return jobs


def test_a_worker_that_finds_other_code_than_planned_fails_with_that_line(jobs, tmp_path, capfd):
    """The edited run's worker is killed; the one in its place imports the new code."""
    first, second = sweep.run(jobs(True, False), command=[], executor=Processes(n_jobs=1))
    line = "the source of edited_method differs from the planned one: it was changed since, or is another version"
    assert first.status == second.status == "failed"
    assert first.error.startswith(line)
    assert second.error.startswith(line)
    loaded = records.load(tmp_path / "runs" / "default")
    assert {record["run_id"] for record in loaded.records} == {run["run_id"] for run in loaded.sweep["runs"]}
    assert [record["error"].startswith(line) for record in loaded.records] == [True, True]


def test_what_was_there_and_who_made_it_is_said(jobs, capfd, monkeypatch):
    sweep.run(jobs(False, False), command=[], executor=Processes(n_jobs=2))
    again = sweep.run(jobs(False, False), command=[], executor=Processes(n_jobs=2))
    assert "2 of 2 were there already\n" in capfd.readouterr().err
    assert all(outcome.genbench == source.of_genbench() for outcome in again)
    monkeypatch.setattr(source, "of_genbench", lambda: "another")
    sweep.run(jobs(False, False), command=[], executor=Processes(n_jobs=2))
    assert "2 of 2 were there already, 2 made by another genbench\n" in capfd.readouterr().err
