"""The page on error rates shows what its script computes."""

import runpy
from pathlib import Path

import pytest

from genbench.claims import rules

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "error_rates.py"))
PAGE = (ROOT / "docs" / "error-rates.md").read_text()
CASES = SCRIPT["CASES"]
COLUMNS = [(shape, n) for shape in SCRIPT["NOISE"] for n in SCRIPT["SEEDS"]]


def rows():
    """The cells of the first table, by rule and side."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:2] == "| "]
    return {(line[0], line[1]): line[2:] for line in lines if len(line) == 2 + len(COLUMNS)}


@pytest.mark.parametrize(
    ("name", "side", "shape", "n"),
    [
        ("Difference", "contradicts", "skew", 5),
        ("Equivalence", "supports", "normal", 8),
        ("Proportion", "supports", "normal", 16),
        ("Distance", "contradicts", "normal", 5),
        ("PeakSlope", "supports", "heavy tails", 8),
        ("Sooner", "supports", "normal", 5),
        ("Interacts", "contradicts", "normal", 8),
    ],
)
def test_a_cell_is_computed_again(name, side, shape, n):
    (case,) = [i for i, each in enumerate(CASES) if each[:2] == (name, side)]
    times, most = SCRIPT["TIMES"], 0.025
    assert rows()[name, side][COLUMNS.index((shape, n))] == SCRIPT["told"](SCRIPT["rate"](case, shape, n), most, times)


def test_every_rule_that_has_a_p_is_on_the_page_in_every_column():
    found = rows()
    assert list(found)[1:] == [each[:2] for each in CASES]
    for case, (name, side, *_) in enumerate(CASES):
        filled = [bool(cell) for cell in found[name, side]]
        assert filled == [SCRIPT["shown"](case, shape, n) for shape, n in COLUMNS]


def test_every_rule_that_has_a_p_is_tried():
    assert {name.partition(",")[0] for name, *_ in CASES} == {*rules.__all__} - {"Rule", "Exact"}


def test_normal_numbers_keep_the_level_and_skewed_ones_are_named_as_the_limit():
    bold = {(key, COLUMNS[i][0]) for key, cells in rows().items() for i, cell in enumerate(cells) if "**" in cell}
    assert {shape for (name, _), shape in bold if name != "Distance"} <= {"skew", "ties"}
    assert {key for key, shape in bold if shape == "normal"} <= {("Distance", "supports, noise alone")}
    assert SCRIPT["LIMITS"] in PAGE


def test_a_rate_of_more_than_three_errors_above_the_level_is_bold():
    assert [SCRIPT["told"](share, 0.025, 1000) for share in (0.0, 0.025, 0.039, 0.041)] == [
        "0.0",
        "2.5",
        "3.9",
        "**4.1**",
    ]
