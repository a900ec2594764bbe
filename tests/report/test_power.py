"""How many seeds would show the differences of a table."""

import io
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from genbench.claims.family import smallest_effect
from genbench.report.power import power, renderable
from genbench.report.selection import load
from genbench.report.table import build
from tests.helpers import factory
from tests.helpers.commands import typed
from tests.helpers.factory import ACCURACY

VALUES = {
    "none": [0.60, 0.70, 0.65, 0.62, 0.66, 0.64],
    "l1": [0.63, 0.72, 0.66, 0.64, 0.71, 0.65],
    "l2": [0.70, 0.65, 0.75, 0.60, 0.68, 0.61],
}
SPEC = {"rows": ["regularization"], "baseline": ["none"], "columns": [{**ACCURACY, "scale": 100, "digits": 1}]}


def made(folder, values=VALUES, spec=SPEC):
    return build(load(factory.toy(folder, values, spec)))


def probability(effect, spread, n, level):
    """Power of a one-sided paired t test of ``n`` seeds by the noncentral t, from a spread measured on six."""
    bound = spread * np.sqrt(5 / stats.chi2.ppf(0.2, 5))
    return stats.nct.sf(stats.t.ppf(1 - level, n - 1), n - 1, effect * np.sqrt(n) / bound)


def test_seeds_and_the_smallest_difference_have_a_power_of_80_per_cent(tmp_path):
    (column,) = power(made(tmp_path))
    assert column.comparisons == 2
    l1 = column.rows[0]
    differences = 100 * (np.array(VALUES["l1"]) - VALUES["none"])
    spread, level = differences.std(ddof=1), 0.05 / 2 / 2
    assert (l1.row, l1.n) == ("l1", 6)
    assert probability(l1.shown, spread, 6, level) == pytest.approx(0.8, abs=1e-6)
    assert probability(differences.mean(), spread, l1.seeds, level) >= 0.8
    assert probability(differences.mean(), spread, l1.seeds - 1, level) < 0.8


def test_the_seeds_at_hand_are_those_that_their_smallest_difference_needs(tmp_path):
    table = made(tmp_path)
    smallest = power(table)[0].rows[0].shown
    assert power(table, smallest * 1.0001)[0].rows[0].seeds == 6
    assert power(table, smallest * 0.99)[0].rows[0].seeds == 7


def test_a_simulated_experiment_finds_the_smallest_difference_that_often():
    """With the true spread in place of its upper bound: that is what the bound is for."""
    n, level = 8, 0.025
    bound = np.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
    drawn = np.random.default_rng(0).normal(smallest_effect(1 / bound, n, level=level), 1, (20_000, n))
    found = stats.ttest_1samp(drawn, 0, axis=1, alternative="greater").pvalue <= level
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_rows_that_nothing_is_known_of_say_why(tmp_path):
    values = {"none": [0.6, 0.7, 0.65], "l1": [0.61, 0.71, 0.66], "l2": [0.7], "sam": [0.6, 0.7, 0.65]}
    (column,) = power(made(tmp_path, values))
    assert {row.row: (row.reason, row.n, row.seeds) for row in column.rows} == {
        "l1": ("equal in every seed", 3, 7),
        "l2": ("n=1/3", 1, None),
        "sam": ("equal in every seed", 3, None),
    }
    text = printed(made(tmp_path / "again", values), 120)
    assert re.search(r"l1 +\+1\.0 ± 0\.0 +3 +equal in every seed", text)


def printed(table, width, effect=None):
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(renderable(table, power(table, effect), effect))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [120, 80])
def test_it_fits_the_terminal_and_says_what_it_assumes(tmp_path, width):
    text = printed(made(tmp_path), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    assert "acc (2 comparisons)" in words
    assert "with the upper 80 % bound of the spread of the differences" in words
    assert re.search(r"l1 +\+2\.3 ± 1\.6\* +6 +3\.8 +12\b", text)
    assert re.search(r"l2 +\+2\.0 ± 6\.9 +6 +16\.5 +more than 200", text)


def test_the_command_prints_it_for_any_column(tmp_path):
    factory.toy(tmp_path / "runs", VALUES, SPEC)
    status, out, err = typed(tmp_path, "genbench-table", "runs", "--power", "--columns", "weights/norm/l2,acc")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if "comparisons)" in line] == [
        "weights/norm/l2 (2 comparisons)", "acc (2 comparisons)",
    ]  # fmt: skip
    status, out, _ = typed(tmp_path, "genbench-table", "runs", "--power", "--effect", "3")
    assert (status, "seeds for a difference of 3" in " ".join(out.split())) == (0, True)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_file()) == ["sweep.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--effect", "3"], "--effect is of --power; see genbench-table --help"),
        (["--power", "--effect", "-1"], "--effect is -1.0; accepted: a number in (0, inf)"),
        (["--power", "--format", "csv"], "--power takes none of --format, --output, --status, --claims, --dashboard"),
        (["--power", "--claims"], "--power takes none of --format, --output, --status, --claims, --dashboard"),
        (
            ["--power", "--columns", "acc,weights/norm/l2", "--effect", "1"],
            "--effect is in the unit of one column; accepted: --columns with one of acc, weights/norm/l2",
        ),
        (["--power", "--columns", "accc"], "there is no column and no metric 'accc'; did you mean 'acc'?"),
    ],
)
def test_what_is_not_accepted_is_said_in_one_line(tmp_path, arguments, said):
    factory.toy(tmp_path / "runs", VALUES, SPEC)
    status, out, err = typed(tmp_path, "genbench-table", "runs", *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_a_table_without_a_baseline_has_nothing_to_compare(tmp_path):
    said = "^--power compares rows with a baseline; accepted: --baseline with one of none, l1, l2$"
    with pytest.raises(ValueError, match=said):
        power(made(tmp_path, spec={**SPEC, "baseline": None}))


def test_one_seed_says_nothing(tmp_path):
    table = made(tmp_path, {"none": [0.6], "l1": [0.7]})
    with pytest.raises(ValueError, match="no row has two seeds in common with the baseline"):
        power(table)


def test_a_file_of_results_has_it_too(tmp_path):
    lines = [f"{name},{seed},{value}" for name, found in VALUES.items() for seed, value in enumerate(found)]
    (tmp_path / "results.csv").write_text("method,seed,accuracy\n" + "\n".join(lines) + "\n")
    status, out, err = typed(tmp_path, "genbench-table", "results.csv", "--baseline", "none", "--power")
    assert (status, err) == (0, "")
    assert "accuracy (2 comparisons)" in out
