"""The page of a paper, from the experiment's YAML file and the summary of its runs."""

import re
from dataclasses import replace

import pytest

from genbench import config
from genbench.report import load
from genbench.report.papers import page, scoreboard, summary
from tests.helpers.papers import NAME, runs, written


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The folders of YAML files; beside the small experiment stands its summary."""
    work = tmp_path_factory.mktemp("page")
    file = written(work) / f"{NAME}.csv"
    file.write_text(summary.write(load(runs(work / "runs" / NAME))))
    return [config.folder(), work / "conf"]


@pytest.fixture
def work_of_two(places, tmp_path):
    """The same with a further experiment, which has a summary too."""
    folder = written(tmp_path)
    first, other = folder / f"{NAME}.yaml", folder / "other.yaml"
    first.write_text(first.read_text().replace("  limits:\n", "  also: [other]\n  limits:\n"))
    table = "table: {title: The same on other data}\n"
    other.write_text(
        f"# @package _global_\ndefaults: [{NAME}, _self_]\nname: other\npaper: null\nclaims: null\n{table}"
    )
    runs_of = (places[1] / "experiment" / f"{NAME}.csv").read_bytes()
    for file in (first, other):
        file.with_suffix(".csv").write_bytes(runs_of)
    return [config.folder(), tmp_path / "conf"]


@pytest.fixture(scope="module")
def target(places, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    page.write(scoreboard.board(places, names=[NAME]), folder)
    return folder


def test_the_page_of_a_study_of_genbenchs_own_says_what_is_asked(places, tmp_path):
    (shown,) = scoreboard.board(places, names=[NAME]).entries
    nodes = shown.experiment.nodes
    paper = {name: value for name, value in nodes["paper"].items() if name not in ("authors", "year", "link")}
    study = replace(shown, experiment=replace(shown.experiment, nodes={**nodes, "paper": paper}))
    lines = page.text(scoreboard.Board([study], {NAME: []}), study, []).splitlines()
    assert lines[2:5] == ["A study of genbench's own. 2 replicated, 1 not replicated.", "", "## What is asked"]


def test_a_page_has_what_the_yaml_and_the_summary_say(target):
    text = (target / f"{NAME}.md").read_text()
    assert re.findall(r"^#+ .*$", text, re.M) == [
        r"# nobody2020: On \*tiny\* penalties &amp; &lt;weights&gt;",
        "## What was claimed",
        "## What was run",
        "## The table",
        "### Penalties shrink &lt;weights&gt;",
        "## Figures",
        "### Norms",
        "## Verdicts",
        "### shrinks: replicated",
        "### grows: not replicated",
        "### positive: replicated",
        "## Limits",
        "## Critiques",
    ]
    for line in (
        "A. Nobody and B. Noone 2020, [arXiv:2001.00001](https://arxiv.org/abs/2001.00001). "
        "2 replicated, 1 not replicated.",
        "- `genbench --config-dir conf experiment=nobody2020`: 40 completed.",
        "- Made with genbench 0.1.0, python 3.11.7, torch 2.13.0.",
        "- A line a run, from which this page is made: `conf/experiment/nobody2020.csv`.",
        "- Laptop (`experiment=nobody2020`): 20 runs; 40 were trained and measured in 80 s of one process "
        "(cpu, threads=1).",
        "- Paper's scale (`experiment=nobody2020_paper`): 40 runs, not measured.",
        "- MNIST-1D in place of a large data set.",
        "![Norms](nobody2020-norms.png)",
        "A squared penalty shrinks the weights (Section 1).",
        "What was tried: Nothing else was tried.",
        "- Norms say little about functions. (Critic 2021)",
    ):
        assert line in text.splitlines()
    assert re.search(r"^\| shrinks \| replicated \| 10 \| [\d.e-]+ \| 1 \| \\\[[\d.]+, [\d.]+\\\] \|$", text, re.M)
    rule = "weights/norm/l2 of regularization=none, data.label\\_noise=0 exceeds weights/norm/l2"
    assert f"Rule:\n\n- {rule} of regularization=l2" in text
    assert "The chance of at least one false verdict" in text
    assert text.count("MNIST-1D in place of a large data set.") == 1
    assert "\n\n\n" not in text


def changed(tmp_path, *changes):
    """The page with changes of its experiment's file, which leave the runs as they are."""
    file = written(tmp_path) / f"{NAME}.yaml"
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    file.with_suffix(".csv").write_text(summary.write(load(runs(tmp_path / "runs" / NAME))))
    (tmp_path / "docs").mkdir()
    page.write(scoreboard.board([config.folder(), tmp_path / "conf"], names=[NAME]), tmp_path / "docs")
    return (tmp_path / "docs" / f"{NAME}.md").read_text()


def test_a_theorem_is_told_apart_from_claims(tmp_path):
    text = changed(tmp_path, ("statement: Norms are positive.", "statement: Norms are positive.\n      theorem: true"))
    assert "1 replicated, 1 not replicated, and 1 theorem holds." in text
    assert "### positive: holds\n\nNorms are positive.\n\nA theorem: it checks the code" in text
    assert text.count("A theorem: ") == 1
    rule = "weights/norm/l2 is at least 0 in every run over regularization = none, l2 and data.label\\_noise = 0, 0.5"
    assert f"- {rule}\n\nFinding: in all 40 runs, by at least " in text


def test_a_further_experiment_of_a_paper_has_its_table_on_the_page(work_of_two, tmp_path):
    """It is named with its runs and what they cost, and no claim is judged by it."""
    places = work_of_two
    page.write(scoreboard.board(places, names=[NAME]), tmp_path)
    text = (tmp_path / f"{NAME}.md").read_text()
    head, _, table = text.partition("## The tables\n\n### Penalties shrink &lt;weights&gt;\n\n| regularization |")
    assert "- A line a run, from which this page is made: `conf/experiment/other.csv`." in head.splitlines()
    assert "- Further table (`experiment=other`): 20 runs; 40 were trained and measured in 80 s of one process" in head
    assert "\n\n### The same on other data\n\n| regularization |" in table.partition("## Figures")[0]
    assert "\n\n\n" not in text
    assert text.count("### shrinks: ") == 1
    assert [entry.experiment.choice for entry in scoreboard.board(places, names=[NAME]).entries] == [NAME]


def test_a_further_experiment_that_is_none_is_refused(tmp_path):
    file = written(tmp_path) / f"{NAME}.yaml"
    file.write_text(file.read_text().replace("  limits:\n", "  also: [nobody2020_papr]\n  limits:\n"))
    with pytest.raises(ValueError, match=r"paper\.also names 'nobody2020_papr'; did you mean 'nobody2020_paper'"):
        scoreboard.board([config.folder(), tmp_path / "conf"], names=[NAME])


def test_a_page_names_figures_that_are_there(target):
    named = re.findall(r"\]\(([^):]+\.png)\)", (target / f"{NAME}.md").read_text())
    assert sorted(named) == sorted(path.name for path in target.glob("*.png")) == [f"{NAME}-norms.png"]
    assert (target / named[0]).read_bytes().startswith(b"\x89PNG")


def test_a_page_is_the_same_every_time(places, target, tmp_path):
    page.write(scoreboard.board(places, names=[NAME]), tmp_path)
    for path in target.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_paper_without_a_summary_has_no_page(tmp_path):
    written(tmp_path)
    assert page.write(scoreboard.board([config.folder(), tmp_path / "conf"], names=[NAME]), tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_a_paper_at_one_scale_says_why(tmp_path):
    folder = written(tmp_path)
    (folder / f"{NAME}_paper.yaml").unlink()
    file = folder / f"{NAME}.yaml"
    file.write_text(file.read_text().replace("paper:\n", "paper:\n  one_scale: Its *rates* are unknown.\n", 1))
    file.with_suffix(".csv").write_text(summary.write(load(runs(tmp_path / "runs" / NAME))))
    board = scoreboard.board([config.folder(), tmp_path / "conf"], names=[NAME])
    assert "  paper's scale  none                   Its *rates* are unknown." in scoreboard.lines(board)
    assert "<dt>paper's scale</dt><dd>none: Its *rates* are unknown.</dd>" in scoreboard.page(board)
    (tmp_path / "docs").mkdir()
    page.write(board, tmp_path / "docs")
    assert "- Paper's scale: none. Its \\*rates\\* are unknown.\n" in (tmp_path / "docs" / f"{NAME}.md").read_text()
