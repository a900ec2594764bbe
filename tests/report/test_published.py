"""Published values beside measured ones, in a table of a paper's own shape."""

import csv
import io
import re

import pytest
import yaml

from genbench import records, report
from genbench.report import render
from genbench.report.latex import latex
from genbench.report.model import Published
from genbench.report.selection import load
from genbench.report.spec import changed, check
from genbench.report.table import build, points
from tests.helpers import factory
from tests.helpers.factory import ACCURACY
from tests.helpers.rendered import Outline

PAPER = yaml.safe_load("""
title: Table 1 of a paper
rows: [regularization]
order:  # of the paper, with its names
  dropout: Large net (1,649,402)
  l2: Small net
  none: Net of 3 × 512
baseline: null
source: Author et al. 2017, Table 1
third_party: true
columns:
  - &train
    group: no regularizer
    label: train
    metric: train/performance/accuracy
    scale: 100
    digits: 2
    published: {dropout: 100, l2: '99.90', none: 100}
  - {<<: *train, label: test, metric: test/performance/accuracy, published: {dropout: 89.05, l2: '81.22 ± 0.05', none: 53.35}}
  - {group: random labels, label: test, published: {dropout: 9.78, none: 10.48}}
""")  # noqa: E501
VALUES = {"none": [0.60, 0.62], "l2": [0.80, 0.82], "sam": [0.7, 0.7]}


@pytest.fixture
def folder(tmp_path):
    return factory.toy(tmp_path, VALUES, PAPER)


def cells(table, column):
    return {row.label: render.texts(table)[i][column] for i, row in enumerate(table.rows)}


def test_the_table_takes_the_paper_s_rows_in_its_order_and_under_its_names(folder):
    table = build(load(folder))
    assert [row.label for row in table.rows] == ["Large net (1,649,402)", "Small net", "Net of 3 × 512", "sam"]
    test = cells(table, 1)
    large, small, other = test["Large net (1,649,402)"], test["Small net"], test["sam"]
    assert (small.mean, small.half, small.published) == ("81.00", "12.71", "81.22 ± 0.05")
    assert (large.mean, large.status, large.published) == ("", "not run", "89.05")
    assert (other.mean, other.published) == ("70.00", "")
    assert cells(table, 0)["Small net"].published == "99.90"
    assert table.cells[0][1].notes == ()
    assert table.problems == []
    assert {point.row for point in points(load(folder))} == {"Small net", "Net of 3 × 512", "sam"}


def test_published_values_may_be_given_by_the_names_of_rows(folder):
    columns = [{**PAPER["columns"][0], "published": {"Small net": "99.90", "Large net (1,649,402)": 100, "none": 1}}]
    found = cells(build(load(folder), {**PAPER, "columns": columns}), 0)
    assert [text.published for text in found.values()] == ["100", "99.90", "1", ""]


def test_a_column_may_hold_published_values_alone(folder):
    table = build(load(folder))
    assert {row: (text.mean, text.status, text.published) for row, text in cells(table, 2).items()} == {
        "Large net (1,649,402)": ("", "", "9.78"),
        "Small net": ("", "", ""),
        "Net of 3 × 512": ("", "", "10.48"),
        "sam": ("", "", ""),
    }
    assert [column.title for column in table.columns][2] == "random labels, test"


def test_published_values_keep_a_column_that_nothing_was_measured_for(tmp_path):
    column = {"label": "top-1", "metric": "test/other", "published": {"l1": 59.8}, "source": "S"}
    spec = {"rows": ["regularization"], "columns": [ACCURACY, column, {**column, "published": None}]}
    table = build(load(factory.toy(tmp_path, {"none": [0.6], "l1": [0.7]}, spec)))
    assert len(table.columns) == 2
    assert [(text.status, text.published) for text in cells(table, 1).values()] == [("–", ""), ("–", "59.8")]


def test_every_value_carries_its_source_and_who_read_it(tmp_path):
    spec = {
        "rows": ["regularization"],
        "source": "A. Author 2020",
        "columns": [
            {**ACCURACY, "published": {"none": 0.6, "l1": {"value": 0.71, "third_party": True}, "l2": {"value": "> 0.9",
             "source": "B. Critic 2021"}}},
            {"label": "gap", "metric": "test/gap/accuracy", "published": {"none": 0.3}},
        ],
    }  # fmt: skip
    folder = factory.toy(tmp_path, {"none": [0.6], "l1": [0.7], "l2": [0.7]}, spec)
    table = build(load(folder))
    assert [line[0].published for line in table.cells] == [
        Published(text="0.6", source="A. Author 2020"),
        Published(text="0.71", source="A. Author 2020", third_party=True),
        Published(text="> 0.9", source="B. Critic 2021"),
    ]
    assert [text for text in table.caption if "Published" in text] == [
        "Published values of acc (none) and gap, in brackets: A. Author 2020.",
        "Published values of acc (l1), in brackets: A. Author 2020 (third party: not read in the source itself).",
        "Published values of acc (l2), in brackets: B. Critic 2021.",
    ]
    found = {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(render.comma_separated(table)))}
    assert found["l1", "acc"]["published"] == "0.71"
    assert found["l1", "acc"]["source"] == "A. Author 2020 (third party: not read in the source itself)"
    assert found["l1", "gap"]["source"] == ""


def test_one_source_of_all_values_is_named_once(folder):
    said = "Published values, in brackets: Author et al. 2017, Table 1 (third party: not read in the source itself)."
    assert said in build(load(folder)).caption


@pytest.mark.parametrize("same", [True, False])
def test_published_values_are_subtracted_only_at_their_scale(folder, same):
    sweep = records.read_sweep(folder)
    paper = {"scaled_down": ["MNIST-1D for CIFAR-10", "Nets of a hundredth of the parameters."]}
    records.write_sweep(folder, {**sweep, "table": {**PAPER, "same_scale": same}, "paper": paper})
    table = build(load(folder))
    small, net = (cells(table, 1)[row].published for row in ("Small net", "Net of 3 × 512"))
    assert (small, net) == (("81.22 ± 0.05, Δ −0.22", "53.35, Δ +7.65") if same else ("81.22 ± 0.05", "53.35"))
    caption = " ".join(table.caption)
    assert ("Δ: ours minus the published value, at its scale." in caption) is same
    assert (
        "No published value is subtracted from ours: they are not of one scale. Scaled down: MNIST-1D for CIFAR-10. "
        "Nets of a hundredth of the parameters." in caption
    ) is not same
    for text in (
        render.markdown(table),
        latex(table).replace("$-$", "−"),
        Outline(report.Report(folder).text("html")).text,
    ):
        assert re.search(r"81\.22 (±|\$\\pm\$) 0\.05, (Δ|\$\\Delta\$) −0\.22", text) is not None or not same
        assert "89.05" in text


def test_where_the_data_lie_changes_no_scale(folder):
    sweep = {**records.read_sweep(folder), "table": {**PAPER, "same_scale": True}}
    records.write_sweep(folder, {**sweep, "command": ["experiment=a", "data.path=cifar", "+threads=2", "seed=0,1"]})
    assert cells(build(load(folder)), 1)["Small net"].published == "81.22 ± 0.05, Δ −0.22"


def test_settings_that_the_command_changed_are_no_longer_of_the_published_scale(folder):
    sweep = {**records.read_sweep(folder), "table": {**PAPER, "same_scale": True}}
    records.write_sweep(folder, {**sweep, "command": ["experiment=a", "trainer.max_steps=5"]})
    table = build(load(folder))
    assert cells(table, 1)["Small net"].published == "81.22 ± 0.05"
    assert "No published value is subtracted from ours: they are not of one scale." in table.caption


def test_a_column_may_be_of_the_published_scale_by_itself(folder):
    columns = [{**PAPER["columns"][0], "same_scale": True}, *PAPER["columns"][1:]]
    caption = build(load(folder), {**PAPER, "columns": columns}).caption
    assert "Δ of no regularizer, train: ours minus the published value, at its scale." in caption
    assert "No published value of no regularizer, test is subtracted from ours: they are not of one scale." in caption


def test_a_row_that_no_run_has_is_named_with_the_nearest(folder):
    spec = {**PAPER, "order": None, "columns": [{**PAPER["columns"][1], "published": {"noen": 3, "l2": 4}}]}
    table = build(load(folder), spec)
    assert table.problems == [
        "published value of no regularizer, test, row noen: the table has no such row; did you mean 'none'?"
    ]
    assert [row.label for row in table.rows] == ["none", "l2", "sam"]


def test_rows_may_be_ordered_without_other_names(folder):
    table = build(load(folder), {"rows": ["regularization"], "order": ["sam", "none"], "columns": [ACCURACY]})
    assert [row.label for row in table.rows] == ["sam", "none", "l2"]
    assert table.baseline == 1


def test_no_value_is_null_or_none_in_an_order(folder):
    for nothing in ("null", "none", None):
        table = build(load(folder), {**PAPER, "order": {nothing: "plain", "l2": "Small net"}, "columns": [ACCURACY]})
        assert [row.label for row in table.rows] == ["plain", "Small net", "sam"]


def test_the_baseline_is_named_by_the_values_or_by_the_name_of_its_row(folder):
    for name in ("none", "Net of 3 × 512"):
        assert build(load(folder), {**PAPER, "baseline": name}).baseline == 2


def test_another_table_of_other_rows_has_no_published_values(folder):
    spec = changed(PAPER, ["x"], rows=["data.label_noise", "regularization"], columns=None, baseline=None)
    table = build(load(folder), spec)
    assert all(cell.published is None for line in table.cells for cell in line)
    assert [column.label for column in table.columns] == ["train", "test"]
    assert [row.label for row in table.rows] == ["0/none", "0/l2", "0/sam"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"source": None}, "'train': published, row 'dropout': published values need their source"),
        ({"third_party": "yes"}, "'train': third_party is 'yes'; accepted: true, false"),
        ({"same_scale": 1}, "'train': same_scale is 1; accepted: true, false"),
        ({"order": "none"}, "table: order is 'none'; accepted: a list of rows, or the name of each"),
        ({"order": ["none", "l2", "none"]}, "table: order has 'none' twice"),
        ({"order": {"none": "a", "l2": "a"}}, "table: order has 'a' twice"),
        ({"order": ["dropuot", "none", "l2"]}, "published names the row 'dropout'; did you mean 'dropuot'"),
        ({"columns": [{"label": "x"}]}, "a column needs label and metric, got"),
        ({"columns": [{"label": "x", "published": {"l2": {"valu": 3}}}]}, "unknown key 'valu'; did you mean 'value'"),
        ({"columns": [{"label": "x", "published": {"l2": [3]}}]}, r"row 'l2': value is \[3\]; accepted: a number, or"),
        ({"columns": [{"label": "x", "published": {"l2": {"value": 3, "third_party": 1}}}]}, "third_party is 1"),
        ({"columns": [{"label": "x", "published": [3]}]}, r"'x': published is \[3\]; accepted: a value for each row"),
    ],
)  # fmt: skip
def test_what_is_not_accepted_is_refused_before_runs_train(change, match):
    with pytest.raises(ValueError, match=match) as error:
        check(PAPER | change, {"seed": 0}, {"regularization": []})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("99.66 ± 0.05", 99.66), ("70 ± 1 %", 70), ("-0.7", -0.7), ("−3", -3), ("1e-3", 0.001), ("> 99", None),
        ("100 / 89", None),
    ],
)  # fmt: skip
def test_the_number_of_a_published_value(text, value):
    assert Published(text=text, source="S").value == value
