"""Measures that were added to finished runs stand in every report like those of the records."""

import csv
import io

import pytest
from rich.console import Console

from genbench import records, report
from genbench.claims.runs import ClaimRuns
from genbench.records import Estimate, added
from genbench.records.added import Part
from genbench.report.figures import style
from genbench.report.figures import sweep as figures
from genbench.report.papers import summary
from genbench.report.table import points
from tests.helpers import factory
from tests.helpers.rendered import touching

NEW = "train/flatness/learning_coefficient"
SPEC = {
    **factory.SPEC,
    "columns": [{"label": "λ", "metric": NEW}, {"label": "λ₁", "metric": "train/flatness/lambda_1"}],
}


def add(folder, run_id, *, value, **fields):
    record = records.read(folder / run_id)
    of = {"settings": {}, "weights": record["files"]["weights.pt"], "code": None}
    added.write(folder / run_id, {"a": Part(of, {}, {NEW: Estimate(value, **fields)})})


@pytest.fixture
def sweep(tmp_path):
    """Six runs of two strategies, each with an added measure."""
    folder = factory.ablation(tmp_path / "ablation", strategies=("none", "l2"), noises=(0.0,), spec=SPEC)
    for place, record in enumerate(records.load(folder).records):
        strategy = record["choices"]["regularization"] or ["none"]
        base = {"none": 10.0, "l2": 20.0}[strategy[0]]
        add(folder, record["run_id"], value=base + place / 100, stderr=0.1, note="chains too short")
    return folder


def test_the_table_has_their_means_and_notes(sweep):
    table = report.Report(sweep).table
    means = {row.label: cells[0].mean for row, cells in zip(table.rows, table.cells, strict=True)}
    assert means["none"].n == means["l2"].n == 3
    assert means["none"].value == pytest.approx(10, abs=0.1)
    assert means["l2"].value == pytest.approx(20, abs=0.1)
    text = report.table_text(table, "markdown")
    assert "chains too short" in text
    console = Console(record=True, width=100)
    report.Report(sweep).show(console)
    assert "λ" in console.export_text()


def test_every_file_of_the_report_has_them_and_figures_are_drawn_anew(sweep):
    report.Report(sweep).write()
    with (sweep / "table.csv").open() as file:
        assert "learning_coefficient" in file.read()
    before = report._inputs(report.Report(sweep))
    add(sweep, records.load(sweep).records[0]["run_id"], value=None, note="undefined: a saddle")
    found = report.Report(sweep)
    assert report._inputs(found) != before
    assert "undefined: a saddle" in found.text("html")
    (run,) = [run for run in found.selection.runs if run.measured(NEW) is None]
    assert run.record["notes"][NEW] == "undefined: a saddle"


def test_a_figure_shows_the_gap_against_them(sweep):
    layer, constant = f"{NEW}.layer", "weights/norm/constant"
    for place, record in enumerate(records.load(sweep).records):
        of = {"settings": {}, "weights": record["files"]["weights.pt"], "code": None}
        estimates = {
            NEW: Estimate(10.0 + place, converged=place != 1),
            layer: Estimate(1.0 + place),
            constant: Estimate(3.0),
        }
        added.write(sweep / record["run_id"], {"a": Part(of, {}, estimates)})
    found = report.Report(sweep)
    with style.context():
        drawn = {item.name: item for item in figures.draw(found.selection, found.table, points(found.selection))}
    figure = drawn["gap_added"].figure
    (axis,) = [axis for axis in figure.axes if axis.get_xlabel()]
    assert axis.get_xlabel() == "learning coefficient (train)"
    runs = {(x, y) for line in axis.lines for x, y in zip(*line.get_data(), strict=True)}
    expected = {
        (record["metrics"][NEW], 100 * record["metrics"]["test/gap/accuracy"]) for record in records.load(sweep).records
    }
    assert expected < runs
    assert "Did not converge: learning coefficient (train) in 1 of 6 runs." in drawn["gap_added"].caption
    assert touching(figure) == []


def test_without_them_there_is_no_such_figure(tmp_path):
    found = report.Report(factory.ablation(tmp_path / "ablation", strategies=("none", "l2"), noises=(0.0,)))
    with style.context():
        names = [item.name for item in figures.draw(found.selection, found.table, points(found.selection))]
    assert "gap_norm" in names
    assert "gap_added" not in names


def test_the_summary_has_them(sweep):
    lines = list(csv.DictReader(io.StringIO(summary.write(report.load(sweep)))))
    assert all(float(line[NEW]) > 9 for line in lines)
    assert all("chains too short" in line["notes"] for line in lines)


def test_claims_read_them(sweep):
    found = ClaimRuns(report.load(sweep).records).sample(NEW, {"regularization": "l2"})
    assert len(found.low) == 3
    assert found.low.min() >= 20
    assert not found.unknown


def test_a_damaged_file_is_named_and_the_record_stands(sweep):
    run_id = records.load(sweep).records[0]["run_id"]
    (sweep / run_id / added.FILE).write_text("{")
    selection = report.load(sweep)
    assert any(f"{run_id}/{added.FILE} is truncated" in line for line in selection.left_out)
    (run,) = [run for run in selection.runs if run.run_id == run_id]
    assert run.state == "completed"
    assert run.measured("train/flatness/lambda_1") > 0
    assert any(added.FILE in line for line in report.status_lines(sweep))
