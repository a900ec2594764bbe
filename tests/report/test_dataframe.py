"""Tables of results from elsewhere: a DataFrame, a CSV file."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from genbench import records, report
from tests.helpers.commands import typed

METHODS = {"none": [0.70, 0.72, 0.74], "sam": [0.75, 0.76, 0.80], "=swa": [0.71, 0.74, 0.73]}
CSV = "method,lr,seed,acc\n" + "".join(
    f"{method},0.10,{seed},{value}\n" for method, values in METHODS.items() for seed, value in enumerate(values)
)


def by_row(table):
    return {row.label: line for row, line in zip(table.rows, table.cells, strict=True)}


def test_a_frame_of_records_has_the_table_of_the_records(ablation):
    metrics = [
        "test/performance/accuracy",
        "train/performance/accuracy",
        "test/gap/cross_entropy",
        "train/flatness/adaptive_sharpness",
        "seconds.fit",
    ]
    spec = {
        "rows": ["regularization", "data.label_noise"],
        "columns": [{"label": metric, "metric": metric} for metric in metrics],
        "baseline": "none/0",
    }
    selection = report.load(ablation)
    expected = by_row(report.build(selection, spec))
    planned = [run.run_id for run in selection.runs]  # in the same order, sums are equal to the last bit
    found = by_row(
        report.table_of(
            records.load(ablation).frame().set_index("run_id").loc[planned],
            rows=["choices.regularization", "config.data.label_noise"],
            columns=metrics,
            baseline="none/0",
        )
    )
    assert found.keys() == expected.keys()
    assert len(found) == 28
    for row, line in expected.items():
        for one, other in zip(found[row], line, strict=True):
            assert one.values == {str(seed): value for seed, value in other.values.items()}
            assert (one.mean, one.difference, one.p) == (other.mean, other.difference, other.p)
            assert (one.status, one.planned, one.comparable) == (other.status, other.planned, other.comparable)


@pytest.mark.parametrize("shuffled", [False, True])
def test_intervals_and_tests_are_those_of_scipy(shuffled):
    frame = pd.read_csv(io.StringIO(CSV))
    if shuffled:  # pairs share a seed, not a position
        frame = frame.sample(frac=1, random_state=0)
    table = report.table_of(frame, rows=["method"], columns=["acc"], baseline="none")
    cells = {label: line[0] for label, line in by_row(table).items()}
    for method, values in METHODS.items():
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        mean = cells[method].mean
        assert (mean.low, mean.high, mean.n) == (pytest.approx(low), pytest.approx(high), 3)
    paired = {method: stats.ttest_rel(METHODS[method], METHODS["none"]) for method in ("sam", "=swa")}
    assert cells["none"].difference is None
    for method, test in paired.items():
        assert cells[method].difference.p == pytest.approx(test.pvalue)
        interval = test.confidence_interval(0.95)
        assert cells[method].difference.low == pytest.approx(interval.low)
    smallest, largest = sorted(test.pvalue for test in paired.values())
    assert cells["sam"].p == pytest.approx(2 * smallest)  # Holm of two
    assert cells["=swa"].p == pytest.approx(max(2 * smallest, largest))


def test_rows_and_columns_are_found_and_the_caption_says_so():
    table = report.table_of(pd.read_csv(io.StringIO(CSV)))
    assert [row.label for row in table.rows] == ["=swa", "none", "sam"]
    assert [column.label for column in table.columns] == ["lr", "acc"]
    assert "No rows were named: these are the text columns that vary (method)." in table.caption[0]
    named = report.table_of(pd.read_csv(io.StringIO(CSV)), rows=["method"], columns=["acc"])
    assert not any("were named" in line or "No column holds seeds" in line for line in named.caption)


def test_without_seeds_runs_are_numbered_within_their_row():
    frame = pd.read_csv(io.StringIO(CSV)).drop(columns="seed")
    table = report.table_of(frame, rows=["method"], columns=["acc"], baseline="none")
    assert by_row(table)["sam"][0].values == {"0": 0.75, "1": 0.76, "2": 0.80}
    assert by_row(table)["sam"][0].difference.p == pytest.approx(stats.ttest_rel(*list(METHODS.values())[1::-1]).pvalue)
    assert any("numbered within their row in the given order" in line for line in table.caption)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("diverged", "seed 1: 'diverged' is no number"),
        ("1_000", "seed 1: '1_000' is no number"),
        ("nan", "seed 1: 'nan' is no number"),
        ("1e400", "seed 1: Infinity is too large to be averaged"),
        ("1e308", "seed 1: 1.00e+308 is too large to be averaged"),
        ("", "seed 1: acc was not measured"),
    ],
)
def test_a_cell_that_is_no_number_spoils_itself_alone(tmp_path, cell, reason):
    path = tmp_path / "results.csv"
    path.write_text(CSV.replace("0.76", cell))
    out = tmp_path / "out"
    out.mkdir()
    status, _, err = typed(
        tmp_path, "genbench-table", path, "--rows", "method", "--metric", "acc", "--baseline", "none", "--output", out
    )
    assert (status, err) == (0, "")
    cells = pd.read_csv(out / "table.csv", keep_default_na=False).set_index("row")
    assert (cells.loc["sam", "status"], cells.loc["sam", "notes"]) == ("n=2/3", reason)
    assert float(cells.loc["sam", "mean"]) == pytest.approx((0.75 + 0.80) / 2)
    assert float(cells.loc["none", "mean"]) == pytest.approx(0.72)
    assert (cells.loc["none", "status"], cells.loc["none", "notes"]) == ("complete", "")


def test_integers_beyond_floats_and_missing_values_of_a_frame():
    frame = pd.DataFrame({"method": ["a", "a", "a", "b"], "seed": [0, 1, 2, 0], "acc": [0.5, 10**400, pd.NA, True]})
    table = report.table_of(frame, columns=["acc"])
    assert by_row(table)["a"][0].values == {"0": 0.5}
    assert {"seed 1: 1.00e+400 is too large to be averaged", "seed 2: acc was not measured"} <= set(table.notes)
    assert "'true' is no number" in table.notes


def test_one_number_has_one_label_and_words_for_missing_stay_words(tmp_path):
    text = "method;rate;seed;acc\nNone;0.10;0;1\nNone;0.1;1;2\n NA ;;0;3\n"
    path = tmp_path / "results.csv"
    path.write_text(text, encoding="utf-8-sig")
    table = report.table_of(report.read_csv(path), rows=["method", "rate"], columns=["acc"])
    assert [row.label for row in table.rows] == ["NA/–", "None/0.1"]
    assert by_row(table)["None/0.1"][0].mean.value == 1.5
    close = pd.DataFrame({"rate": [12345678.1, 12345678.2], "acc": [1.0, 2.0]})  # one text of six digits
    assert len(report.table_of(close, rows=["rate"], columns=["acc"]).rows) == 2


def test_names_and_cells_of_others_bring_no_control_characters():
    frame = pd.DataFrame({"me\x1bthod": ["a\x1b[2J", "b"], "acc\x1b[2J": [0.5, "\x1b[2J"]})
    table = report.table_of(frame, rows=["method"], columns=["acc[2J"])
    text = report.table_text(table, "markdown")
    assert "\x1b" not in text
    assert "a[2J" in text.replace("\\", "")


def test_command_prints_the_table_and_writes_it_only_where_it_is_told(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(CSV)
    chosen = [path, "--rows", "method", "--columns", "acc", "--baseline", "none"]
    status, out, err = typed(tmp_path, "genbench-table", *chosen)
    assert (status, err) == (0, "")
    assert "0.770 ±0.066*" in out
    assert os.listdir(tmp_path) == ["results.csv"]
    (tmp_path / "out").mkdir()
    assert typed(tmp_path, "genbench-table", *chosen, "--output", tmp_path / "out")[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["table.csv", "table.md", "table.tex"]
    for kind, name in (("markdown", "table.md"), ("latex", "table.tex"), ("csv", "table.csv")):
        assert typed(tmp_path, "genbench-table", *chosen, "--format", kind)[1] == (tmp_path / "out" / name).read_text()
    assert typed(tmp_path, "genbench-table", *chosen, "--output", tmp_path / "out")[0] == 0  # its own are replaced
    assert "'=swa" in (tmp_path / "out" / "table.csv").read_text()
    assert path.read_text() == CSV


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["table.csv", "--rows", "metod"], "there is no column 'metod'; did you mean 'method'?"),
        (["table.csv", "--columns", "ac"], "there is no column 'ac'; did you mean 'acc'?"),
        (["table.csv", "--seed", "sed"], "there is no column 'sed'; did you mean 'seed'?"),
        (
            ["table.csv", "--rows", "method", "--baseline", "nne"],
            "no row 'nne' to be the baseline; did you mean 'none'?",
        ),
        (
            ["table.csv", "--rows", "lr", "--columns", "acc"],
            "holds seed 0 twice (runs 1 and 4); name in rows what",
        ),
        (["table.csv", "--rows", "lr", "--columns", "acc"], "distinguishes them; they differ in method"),
        (["table.csv", "--output", "."], "--output . would overwrite table.csv; accepted: another folder"),
        (["twice.csv", "--output", "."], "--output . holds a foreign table.csv; accepted: another folder"),
        (["table.csv", "--output", "nowhere"], "--output is nowhere; accepted: a folder that there is"),
        (["table.csv", "--status"], "--status is of a folder of runs; table.csv is a file"),
        (["table.csv", "--format", "html"], "accepted here: terminal, markdown, latex, csv"),
        (["numbers.csv"], "no column of text can label the rows; name some in rows, of a, b"),
        (["words.csv"], "no column of numbers is left to show; name some in columns, of a, b"),
        (["head.csv", "--rows", "a", "--columns", "b"], "no runs to show in head"),
        (["twice.csv"], "the column 'a' appears twice"),
        (["long.csv"], "long.csv is no CSV file: Error tokenizing data"),
        (["empty.csv"], "empty.csv is no CSV file: No columns to parse"),
        (["latin.csv"], "latin.csv is no CSV file: it is not UTF-8 text"),
        (["large.csv"], "large.csv cannot be read: Larger than"),
        (["pipe.csv"], "there is no folder pipe.csv"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, arguments, match):
    files = {
        "table": CSV, "numbers": "a,b\n1,2\n", "words": "a,b\nx,y\n", "head": "a,b\n", "twice": "a,a\nx,1\n",
        "long": "a,b\nx,1,2\n", "empty": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "latin.csv").write_bytes("méthode,acc\n".encode("latin-1"))
    with open(tmp_path / "large.csv", "wb") as file:
        file.truncate(records.LIMIT + 1)
    os.mkfifo(tmp_path / "pipe.csv")
    status, out, err = typed(tmp_path, "genbench-table", *arguments)
    assert (status, out) == (1, "")
    assert match in err
    assert err.count("\n") == 1
    assert (tmp_path / "table.csv").read_text() == CSV


def test_the_same_options_show_another_table_of_a_folder(ablation, tmp_path):
    before = sorted(os.listdir(ablation))
    chosen = ["--columns", "adaptive,test/performance/cross_entropy,seconds.fit", "--baseline", "sam/0"]
    chosen += ["--rows", "regularization,data.label_noise"]
    status, out, err = typed(tmp_path, "genbench-table", ablation, *chosen, "--format", "csv")
    assert (status, err) == (0, "")
    cells = pd.read_csv(io.StringIO(out), keep_default_na=False)
    titles = ["sharpness, adaptive", "test/performance/cross_entropy", "cost, seconds"]  # its own where it has them
    assert list(cells["column"].drop_duplicates()) == titles
    loss = cells[cells["column"] == titles[1]].set_index("row")
    frame = records.load(ablation).frame().set_index(["choices.regularization", "config.data.label_noise", "seed"])
    values = frame["test/performance/cross_entropy"].sort_index()
    test = stats.ttest_rel(values["swa", 0.2], values["sam", 0.0])
    assert float(loss.loc["swa/0.2", "p"]) == pytest.approx(test.pvalue)
    assert loss.loc["sam/0", "p"] == ""
    for option, match in (
        (["--columns", "adaptiv"], "there is no column and no metric 'adaptiv'; did you mean 'adaptive'?"),
        (["--baseline", "smm"], "there is no row 'smm' to be the baseline; did you mean 'sam'?"),
        (["--rows", "regularisation"], "the table names the setting 'regularisation', which no run has"),
        (["--seed", "seed"], "--seed is of CSV files"),
    ):
        status, _, err = typed(tmp_path, "genbench-table", ablation, *option)
        assert (status, err.count("\n")) == (1, 1)
        assert match in err
    assert sorted(os.listdir(ablation)) == before
