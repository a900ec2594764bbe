"""Papers in a user's own experiments, from the file to the scoreboard, as a user types the commands."""

import csv
import io
import json
import re
import shutil

import pytest

from genbench import config, records
from genbench.report.papers import experiments
from tests.helpers import browser
from tests.helpers.commands import typed
from tests.helpers.papers import NAME, runs, written
from tests.helpers.rendered import Outline

GIVEN = ("--config-dir", "conf", f"experiment={NAME}", "seed=0,1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the experiments and the finished sweep of the small one. Tests must not change it."""
    work = tmp_path_factory.mktemp("papers")
    written(work)
    status, _, err = typed(work, "genbench", *GIVEN)
    assert status == 0, err
    return work


def test_a_folder_of_runs_keeps_its_paper(trained):
    paper = records.read_sweep(trained / "runs" / NAME)["paper"]
    assert paper["title"] == "On *tiny* penalties & <weights>"
    assert paper["critiques"] == [{"text": "Norms say little about functions.", "source": "Critic 2021"}]


def test_an_experiment_chooses_its_launcher_and_the_command_another(trained):
    shown = ("--cfg", "hydra", "--package", "hydra.launcher")
    for words, lanes in (([], "auto"), (["hydra/launcher=processes"], "null")):
        status, out, err = typed(trained, "genbench", *GIVEN[:-1], *shown, *words)
        assert status == 0, err
        assert f"lanes: {lanes}\n" in out


def test_a_paper_is_no_part_of_a_run(trained):
    status, out, err = typed(trained, "genbench", *GIVEN, "paper=null", "--dry-run")
    assert status == 0, err
    assert out.splitlines()[-1] == "8 of 8 were there already"


def test_pilots_train_without_the_claims_of_which_something_was_tried(trained):
    status, out, err = typed(trained, "genbench", *GIVEN, "claims=null", "+paper.tried.shrinks=more", "--dry-run")
    assert status == 0, err
    assert out.splitlines()[-1] == "8 of 8 were there already"


def test_a_misspelt_key_is_refused_before_a_run_trains(trained, tmp_path):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    for setting, message in (
        ("+paper.auhtors=me", "paper.auhtors is not a setting; did you mean 'authors'?"),
        ("+paper.tried.shrink=more", "paper.tried.shrink is no claim of the experiment; did you mean 'shrinks'?"),
    ):
        status, out, err = typed(tmp_path, "genbench", *GIVEN, setting)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1] == f"genbench: {message}"
        assert not (tmp_path / "runs").exists()


def test_a_summary_is_printed_by_a_command(trained):
    status, out, err = typed(trained, "genbench-table", f"runs/{NAME}", "--summary")
    assert (status, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"completed"}
    assert len({row["claims"] for row in rows}) == 1
    about = json.loads(rows[0]["sweep"])
    assert about["command"] == list(GIVEN)
    assert 0 < about["seconds"] < 60
    assert str(trained) not in out
    status, out, err = typed(trained, "genbench-table", f"runs/{NAME}", "--summary", "--all")
    assert (status, out) == (1, "")
    assert err == "genbench-table: --summary takes one folder and no other option\n"


def papers(work, *arguments, columns=120):
    return typed(work, "genbench-table", "--papers", "--config-dir", "conf", *arguments, columns=columns)


@pytest.fixture
def work(tmp_path):
    """A folder with the experiments and made-up runs of the small one, with an effect in each."""
    written(tmp_path)
    runs(tmp_path / "runs" / NAME)
    return tmp_path


def test_the_scoreboard_has_claims_costs_and_verdicts(work):
    status, out, err = papers(work, NAME)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:7] == [
        "nobody2020: On *tiny* penalties & <weights> (A. Nobody and B. Noone 2020, arXiv:2001.00001)",
        "  laptop         experiment=nobody2020        20 runs; 40 were trained and measured in 80 s of one process "
        "(cpu, threads=1)",
        "  paper's scale  experiment=nobody2020_paper  40 runs, not measured",
        "  2 replicated, 1 not replicated (runs/nobody2020)",
        "  shrinks   replicated      A squared penalty shrinks the weights.",
        "  grows     not replicated  A squared penalty lets the weights grow.",
        "  positive  replicated      Norms are positive.",
    ]
    assert lines[7].startswith("At most 10 % is the chance that at least one verdict on a paper is false: 5 % that ")
    assert lines[8:] == ["written: runs/papers.html"]


def test_a_paper_without_runs_has_none_or_those_of_its_summary(work):
    (work / "conf" / "experiment" / f"{NAME}.csv").write_text(
        typed(work, "genbench-table", f"runs/{NAME}", "--summary")[1]
    )
    both = "  2 replicated, 1 not replicated (runs/nobody2020; the committed summary: 2 replicated, 1 not replicated)"
    assert both in papers(work, NAME, columns=200)[1].splitlines()
    shutil.rmtree(work / "runs")
    status, out, err = papers(work, NAME)
    assert (status, err) == (0, "")
    assert out.splitlines()[3] == "  2 replicated, 1 not replicated (the committed summary)"
    assert "written" not in out
    assert not (work / "runs").exists()
    (work / "conf" / "experiment" / f"{NAME}.csv").unlink()
    status, out, err = papers(work, NAME)
    assert [line.split()[:2] for line in out.splitlines()[1:5]] == [
        ["laptop", f"experiment={NAME}"],
        ["paper's", "scale"],
        ["3", "not"],
        ["shrinks", "not"],
    ]
    assert "  laptop         experiment=nobody2020        20 runs, not measured\n" in out


def test_a_folder_of_experiments_may_have_any_name(work):
    (work / "conf").rename(work / "it's mine, all")
    status, out, err = typed(work, "genbench-table", "--papers", "--config-dir", "it's mine, all", NAME)
    assert (status, err) == (0, "")
    assert "  2 replicated, 1 not replicated (runs/nobody2020)\n" in out


def test_runs_at_the_paper_s_scale_have_verdicts_of_their_own(work):
    runs(work / "runs" / f"{NAME}_paper")
    status, out, _ = papers(work, "runs")
    assert status == 0
    assert "\nnobody2020_paper: On *tiny* penalties" in out
    assert "  2 replicated, 1 not replicated (runs/nobody2020_paper)" in out
    costs = [line for line in out.splitlines() if f"experiment={NAME}_paper " in line]  # of both entries of the paper
    assert costs
    assert all(line.endswith("40 runs, trained and measured in 80 s of one process (cpu, threads=1)") for line in costs)


def test_a_middle_scale_is_listed_between_the_others_and_has_verdicts_of_its_own(work):
    folder = work / "conf" / "experiment"
    scaled = (folder / f"{NAME}_paper.yaml").read_text()
    (folder / f"{NAME}_middle.yaml").write_text(scaled.replace(f"{NAME}_paper", f"{NAME}_middle"))
    runs(work / "runs" / f"{NAME}_middle")
    status, out, _ = papers(work, "runs")
    assert status == 0
    block = out[out.index(f"\n{NAME}_middle: ") :].splitlines()[2:6]
    assert [line.split("  ")[1] for line in block[:3]] == ["laptop", "middle scale", "paper's scale"]
    assert block[3] == f"  2 replicated, 1 not replicated (runs/{NAME}_middle)"


def test_a_study_of_genbenchs_own_names_no_paper(work):
    file = work / "conf" / "experiment" / f"{NAME}.yaml"
    left_out = ("  authors:", "  year:", "  link:")
    file.write_text("".join(line for line in file.open() if not line.startswith(left_out)))
    status, out, _ = papers(work, NAME)
    assert status == 0
    assert out.splitlines()[0] == f"{NAME}: On *tiny* penalties & <weights> (A study of genbench's own)"
    shown = (work / "runs" / "papers.html").read_text()
    assert "A study of genbench&#39;s own" in shown
    assert 'href="None"' not in shown


def test_every_paper_of_genbench_is_listed(tmp_path):
    (tmp_path / "runs").mkdir()
    status, out, err = typed(tmp_path, "genbench-table", "--papers")
    assert (status, err) == (0, "")
    listed = [line.partition(":")[0] for line in out.splitlines() if line[0] != " "][:-2]
    assert listed == sorted(experiments.choices([config.folder()])) or listed == ["no experiment has a paper"]


def test_a_folder_that_mixes_configurations_spoils_no_other_paper(work):
    folder = work / "conf" / "experiment"
    (folder / "someone2021.yaml").write_text((folder / f"{NAME}.yaml").read_text().replace(NAME, "someone2021"))

    def change(item):
        if item["seed"] > 4:
            item["config"]["optimizer"]["lr"] = 0.1

    runs(work / "runs" / "someone2021", change=change)
    (work / "runs" / "someone2021" / "damaged").mkdir()
    (work / "runs" / "someone2021" / "damaged" / "record.json").write_text("{")
    status, out, err = papers(work, NAME, "someone2021")
    assert (status, err) == (0, "")
    assert "  2 replicated, 1 not replicated (runs/nobody2020)\n" in out
    assert "(runs/someone2021; left out: damaged/record.json is truncated or not JSON" in out
    page = Outline((work / "runs" / "papers.html").read_text()).text
    assert (
        "No figures: column 'test accuracy (%)', row 'none' mixes configurations: optimizer.lr is 0.005 and 0.1" in page
    )
    assert page.count("Means over seeds") == 1


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("  year: 2020", "  year: soon", "paper.year is 'soon'; accepted: an integer from 1600 to 2100"),
        ("/data: mnist1d", "/data: mnist2d", "Could not find 'data/mnist2d'"),
        ("_target_: genbench.claims.rules.Exact", "_target_: genbench.claims.rules.Exakt", "did you mean 'Exact'?"),
    ],
)
def test_an_experiment_that_cannot_be_read_is_named(work, right, wrong, message):
    path = work / "conf" / "experiment" / f"{NAME}.yaml"
    path.write_text(path.read_text().replace(right, wrong))
    status, out, err = papers(work, NAME)
    assert (status, out) == (1, "")
    assert err.startswith("genbench-table: nobody2020.yaml: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody2021"], "there is no paper 'nobody2021'; did you mean 'nobody2020'?"),
        (["--claims"], "--papers takes no other option than --config-dir"),
        (["--trust"], "--papers takes no other option than --config-dir"),
        (["runs", "conf"], "--papers takes one folder of all runs; got runs, conf"),
    ],
)
def test_what_the_scoreboard_does_not_take(work, arguments, message):
    status, out, err = papers(work, *arguments)
    assert (status, out, err) == (1, "", f"genbench-table: {message}\n")


def test_a_paper_that_is_named_twice_is_shown_once(work):
    assert papers(work, NAME, NAME) == papers(work, NAME)


def test_options_of_the_scoreboard_alone(work):
    status, _, err = typed(work, "genbench-table", f"runs/{NAME}", "--config-dir", "conf")
    assert (status, "--config-dir is of --papers" in err) == (1, True)
    status, _, err = typed(work, "genbench-table", "--papers", "--config-dir", "runs")
    assert (status, "accepted: a folder that holds experiment/*.yaml" in err) == (1, True)
    status, _, err = typed(work, "genbench-table")
    assert (status, "the following arguments are required: folder" in err) == (1, True)


def test_the_page_has_a_row_a_paper_and_a_cell_a_claim(work):
    assert papers(work, NAME)[0] == 0
    text = (work / "runs" / "papers.html").read_text()
    page = Outline(text)
    assert page.open == []
    assert [each for each in page.fetched if not each.startswith(("data:", "#"))] == [
        "https://arxiv.org/abs/2001.00001"
    ]
    assert page.tags.count("section") == 1
    assert re.findall(r'<details class="([a-z-]*replicated)">', text) == ["replicated", "not-replicated", "replicated"]
    assert "On *tiny* penalties & <weights>" in page.text
    for said in (
        "A squared penalty lets the weights grow.",
        "weights/norm/l2 of regularization=none, data.label_noise=0 exceeds",
        "At most 10 % is the chance",
        "Nothing else was tried.",
        "MNIST-1D in place of a large data set.",
        "Norms say little about functions. (Critic 2021)",
        "Means over seeds with Student-t 95 % intervals",
    ):
        assert said in page.text
    (anchor,) = {each for each in page.fetched if each.startswith("#")}
    assert f'<figure id="{anchor[1:]}">' in text
    assert str(work) not in text


@browser.needs_chromium
@pytest.mark.parametrize("width", [1400, 800])
def test_the_page_fits_a_browser_s_window(work, width):
    assert papers(work)[0] == 0
    browser.assert_fits(work / "runs" / "papers.html", width)
