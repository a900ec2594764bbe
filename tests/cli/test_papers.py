"""Papers in a user's own experiments, from the file to the scoreboard, as a user types the commands."""

import csv
import io
import json
import shutil

import pytest

from genbench import records
from tests.helpers.commands import typed
from tests.helpers.papers import NAME, written


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the experiments and the finished sweep of the small one. Tests must not change it."""
    work = tmp_path_factory.mktemp("papers")
    written(work)
    status, _, err = typed(work, "genbench", "--config-dir", "conf", f"experiment={NAME}")
    assert status == 0, err
    return work


def test_a_folder_of_runs_keeps_its_paper(trained):
    paper = records.read_sweep(trained / "runs" / NAME)["paper"]
    assert paper["title"] == "On *tiny* penalties & <weights>"
    assert paper["critiques"] == [{"text": "Norms say little about functions.", "source": "Critic 2021"}]


def test_an_experiment_chooses_its_launcher_and_the_command_another(trained):
    given = ("--config-dir", "conf", f"experiment={NAME}", "--cfg", "hydra", "--package", "hydra.launcher")
    for words, lanes in (([], "auto"), (["hydra/launcher=processes"], "null")):
        status, out, err = typed(trained, "genbench", *given, *words)
        assert status == 0, err
        assert f"lanes: {lanes}\n" in out


def test_a_paper_is_no_part_of_a_run(trained):
    status, out, err = typed(
        trained, "genbench", "--config-dir", "conf", f"experiment={NAME}", "paper=null", "--dry-run"
    )
    assert status == 0, err
    assert out.splitlines()[-1] == "20 of 20 were there already"


def test_a_misspelt_key_is_refused_before_a_run_trains(trained, tmp_path):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    given = ("--config-dir", "conf", f"experiment={NAME}")
    for setting, message in (
        ("+paper.auhtors=me", "paper.auhtors is not a setting; did you mean 'authors'?"),
        ("+paper.tried.shrink=more", "paper.tried.shrink is no claim of the experiment; did you mean 'shrinks'?"),
    ):
        status, out, err = typed(tmp_path, "genbench", *given, setting)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1] == f"genbench: {message}"
        assert not (tmp_path / "runs").exists()


def test_a_summary_is_printed_by_a_command(trained):
    status, out, err = typed(trained, "genbench-table", f"runs/{NAME}", "--summary")
    assert (status, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 20
    assert {row["status"] for row in rows} == {"completed"}
    assert len({row["claims"] for row in rows}) == 1
    about = json.loads(rows[0]["sweep"])
    assert about["command"] == ["--config-dir", "conf", f"experiment={NAME}"]
    assert 0 < about["seconds"] < 60
    assert str(trained) not in out
    status, out, err = typed(trained, "genbench-table", f"runs/{NAME}", "--summary", "--all")
    assert (status, out) == (1, "")
    assert err == "genbench-table: --summary takes one folder and no other option\n"
