"""Pages that are written when the site is built."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

import genbench.measures
from genbench.checks import nearest
from tests.helpers.choices import choices

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.fixture(scope="module")
def pages(generate, tmp_path_factory):
    target = tmp_path_factory.mktemp("generated")
    generate["write"](target)
    return {path.stem: path.read_text() for path in target.glob("*.md")}


def headings(page, level):
    return re.findall(rf"^{'#' * level} (\w+)$", page, re.M)


def test_every_choice_has_its_section(pages):
    assert headings(pages["strategies"], 2) == sorted(set(choices("regularization")) - {"none"})
    assert headings(pages["data"], 2) == sorted(choices("data"))
    assert headings(pages["models"], 2) == sorted(choices("model"))
    assert headings(pages["experiments"], 2) == sorted(choices("experiment"))
    assert headings(pages["optimizers"], 3) == sorted(choices("optimizer")) + sorted(choices("scheduler"))


def test_every_measure_has_its_section_and_is_in_the_sets_that_hold_it(pages):
    measures = {name for name in genbench.measures.__all__ if hasattr(getattr(genbench.measures, name), "family")}
    assert set(headings(pages["measures"], 3)) == measures
    text = pages["measures"].partition("### sam_sharpness\n")[2].partition("\n### ")[0]
    assert "`rho=0.05`" in text
    assert "`measures=standard`" in text


def test_every_measure_names_the_tests_of_its_value(pages):
    for name in headings(pages["measures"], 3):
        text = pages["measures"].partition(f"### {name}\n")[2].partition("\n### ")[0]
        line = re.search(r"^Oracle: (.*)\.$", text, re.M)
        assert line, f"no test is marked as an oracle of {name}"
        for part in line[1].split("; "):
            *tests, path = re.findall(r"`([^`]+)`", part)
            there = re.findall(r"^def (test_\w+)\(", (ROOT / path).read_text(), re.M)
            assert tests
            assert set(tests) <= set(there)


def test_every_mark_of_an_oracle_is_read_and_names_measures(generate):
    measures = [name for name in genbench.measures.__all__ if hasattr(getattr(genbench.measures, name), "family")]
    read = generate["oracles"]()
    for name, files in read.items():
        assert name in measures, f"{[*files]}: {name!r} is no exported measure; {nearest(name, measures)}"
    tests = {(path, test) for files in read.values() for path, found in files.items() for test in found}
    assert all(test.startswith("test_") for _, test in tests)
    marks = sum(len(re.findall(r"mark\.oracle\(", path.read_text())) for path in (ROOT / "tests").rglob("*.py"))
    assert len(tests) == marks, "a mark is not the decorator of a test"


def test_a_strategy_has_its_definition_its_settings_and_its_numbers(pages):
    text = pages["strategies"].partition("\n## dropout\n")[2].partition("\n## ")[0]
    assert re.search(r"^\| `regularization\.dropout\.rate` \| `[\d.]+` \|", text, re.M)
    assert re.search(r"^\| test acc\. \(%\), clean \| [\d.]+ ± [\d.]+ \| [+−][\d.]+ ± [\d.]+ \| \S+ \|$", text, re.M)


def test_no_number_of_the_strategies_is_lost(pages):
    measured = (ROOT / "docs" / "measured" / "strategies.md").read_text().partition("\n## ")[2]
    lines = "".join(re.findall(r"^\*\*.*$", measured, re.M))
    numbers = r"[+−]?[\d.]+(?:e−\d+)? ± [\d.]+(?:e−\d+)?"
    shown = pages["strategies"].partition("\n## ")[2]
    assert re.findall(numbers, lines) == re.findall(numbers, "\n".join(re.findall(r"^\|.*±.*$", shown, re.M)))
    verdicts = [len(re.findall(rf"\*?\*?{word}\*?\*? \|$", shown, re.M)) for word in ("better", "worse", "undecided")]
    assert sum(verdicts) == len(re.findall(r"\*[^*]+\*", re.sub(r"\*\*.*?After correction: ", "", lines)))


def test_the_project_says_who_to_cite_and_what_it_runs_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert {"Typing :: Typed", *(f"Programming Language :: Python :: 3.{n}" for n in (11, 12, 13))} <= set(
        project["classifiers"]
    )
    assert (ROOT / "genbench" / "py.typed").exists()


def test_the_rankings_stand_side_by_side(generate):
    """``python docs/generate.py`` writes them again."""
    page = generate["PREDICTS"].read_text()
    assert page == generate["what_predicts"]()
    ranked = {path.stem: path.read_text() for path in generate["RANKINGS"].glob("*.md")}
    assert all(f"[{name}](rankings/{name}.md)" in page for name in ranked)
    for text in ranked.values():
        value = dict(generate["column"](text, "τ"))["(noisy oracle)"]
        assert f"{value}; 0 of " in page
