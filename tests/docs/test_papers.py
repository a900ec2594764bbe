"""The pages of papers are what the experiments' YAML files and the committed summaries say, verdicts included."""

import re
import runpy
from pathlib import Path

import pytest

from genbench import config
from genbench.report.papers import experiments, page, scoreboard

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "papers"
PLACES = [config.folder()]
SUMMARIES = {path.stem for path in (config.folder() / "experiment").glob("*.csv")}
RUN = sorted(SUMMARIES & {*experiments.choices(PLACES)})
of_every_paper = pytest.mark.parametrize("name", RUN)


@pytest.fixture(scope="module")
def board():
    return scoreboard.board(PLACES)


@pytest.fixture(scope="module")
def entries(board):
    return {entry.experiment.choice: entry for entry in board.entries}


@of_every_paper
def test_a_page_is_what_the_summary_gives(board, entries, name):
    """``python docs/generate.py`` writes it again."""
    drawn = scoreboard.drawings(entries[name])
    assert (PAGES / f"{name}.md").read_text() == page.text(board, entries[name], drawn)
    own = {path.name for path in PAGES.glob(f"{name}-*")}
    assert own == {page.image(entries[name], each) for each in drawn}


@of_every_paper
def test_every_row_of_a_table_has_runs_or_published_values(name):
    rows = [line.split(" | ")[1:] for line in (PAGES / f"{name}.md").read_text().splitlines() if line.startswith("| ")]
    assert rows
    assert all(any("not run" not in cell or "[" in cell for cell in row) for row in rows)


@of_every_paper
def test_every_claim_has_a_verdict_by_the_rule_that_its_runs_were_trained_under(entries, name):
    entry, written = entries[name], (PAGES / f"{name}.md").read_text()
    assert {record["provenance"]["claims"] for record in entry.selection.records} == {entry.experiment.digest}
    assert len(entry.verdicts) == len(entry.experiment.nodes["claims"]["rules"])
    for row in entry.verdicts:
        assert f"| {row.claim} | {row.status} | {row.n} |" in written


def test_every_summary_and_every_page_is_of_a_paper(entries):
    assert set(RUN) == {name for name, entry in entries.items() if entry.selection is not None}
    shown = [each for entry in entries.values() for each in (entry, *entry.also)]
    assert {each.experiment.choice for each in shown if each.selection is not None} == SUMMARIES
    assert {path.stem for path in PAGES.glob("*.md")} == set(RUN)
    assert {path.suffix for path in PAGES.glob("*")} <= {".md", ".png"}


def test_every_paper_can_be_read(entries):
    """Also those that have not been run."""
    assert set(experiments.choices(PLACES)) <= set(entries)
    for name, entry in entries.items():
        assert entry.paper.title
        assert entry.experiment.runs > 0
        assert entry.verdicts, f"{name} claims nothing"


def test_the_index_has_a_row_for_every_paper(entries, tmp_path):
    runpy.run_path(str(ROOT / "docs" / "generate.py"))["write"](tmp_path)
    text = (tmp_path / "papers.md").read_text()
    assert set(re.findall(r"\.\./papers/(\w+)\.md", text)) == set(RUN)
    for name, entry in entries.items():
        assert name in text
        assert all(f"{row.claim}: {row.status}" in text for row in entry.verdicts)
