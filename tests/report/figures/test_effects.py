"""What each row does in every condition, as a map."""

from dataclasses import replace

import pytest

from genbench.report.figures import effects, style, sweep
from genbench.report.selection import load
from genbench.report.table import build, points
from tests.helpers import factory
from tests.helpers.rendered import touching

ACCURACY = "test/performance/accuracy"


@pytest.fixture
def table(ablation):
    return build(load(ablation))


def texts(axis):
    """The texts of a panel's cells, by place."""
    return {text.get_position(): text for text in axis.texts if text.get_position()[1] >= 0}


def test_a_cell_is_the_difference_of_the_table_and_bold_where_it_is_significant(table):
    with style.context():
        drawing = effects.draw(table, ACCURACY)
        style.settle(drawing)
    (axis,) = drawing.figure.axes
    assert not touching(drawing.figure)
    rows = [label.get_text() for label in axis.get_yticklabels()]
    assert rows == [row.label for row in table.rows if row.label != "none"]
    columns = [i for i, column in enumerate(table.columns) if column.metric == ACCURACY]
    shown = texts(axis)
    assert len(shown) == len(rows) * len(columns)
    for y, label in enumerate(rows):
        line = table.cells[[row.label for row in table.rows].index(label)]
        for x, index in enumerate(columns):
            cell, text = line[index], shown[x, y]
            assert text.get_text().replace("−", "-") == f"{cell.difference.value:+.1f}"
            assert (text.get_weight() == "bold") == cell.significant
    assert {cell.significant for line in table.cells for cell in line} == {True, False}


def test_every_table_has_a_panel_of_its_own_columns(table):
    other = replace(table, title="On other data", rows=table.rows[:4], cells=table.cells[:4])
    bare = replace(table, title="No baseline", baseline=None)
    with style.context():
        drawing = effects.draw(replace(table, further=[other, bare]), ACCURACY)
    assert [axis.get_title(loc="left").replace("\n", " ") for axis in drawing.figure.axes] == [table.title, other.title]
    first, second = drawing.figure.axes
    assert len(texts(second)) == 3 * 2
    assert {place: text.get_text() for place, text in texts(second).items()}.items() <= {
        place: text.get_text() for place, text in texts(first).items()
    }.items()


def test_a_missing_cell_says_why(table):
    cells = [list(line) for line in table.cells]
    column = next(i for i, each in enumerate(table.columns) if each.metric == ACCURACY)
    cells[1][column] = replace(cells[1][column], difference=None, status="diverged")
    with style.context():
        drawing = effects.draw(replace(table, cells=cells), ACCURACY)
    assert texts(drawing.figure.axes[0])[0, 0].get_text() == "diverged"


def test_without_a_baseline_or_the_metric_there_is_none(table):
    assert effects.draw(replace(table, baseline=None), ACCURACY) is None
    assert effects.draw(table, "test/performance/error") is None


def test_an_experiment_asks_for_it(ablation):
    loaded = load(ablation)
    spec = {**loaded.sweep["table"], "effects": ACCURACY}
    with style.context():
        names = [each.name for each in sweep.asked(build(loaded, spec), points(loaded, spec))]
    assert names[0] == "effects"
    with pytest.raises(ValueError, match=r"^table: effects is 'accuracy'; accepted: the metric of a column, or null$"):
        build(loaded, {**spec, "effects": "accuracy"})


def test_figures_of_a_table_that_chooses_have_its_own_runs_alone(tmp_path):
    """Runs outside its \"where\" were taken for further settings that had been tried."""
    factory.ablation(tmp_path, ["none", "l2"], (0.0, 0.2), (0, 1))
    loaded = load(tmp_path)
    spec = {
        "where": {"data.label_noise": 0.0},
        "rows": ["regularization"],
        "choose": {"metric": ACCURACY, "best": "max"},
        "columns": [{"label": "accuracy", "metric": ACCURACY}],
    }
    found = points(loaded, spec)
    assert {point.config["data.label_noise"] for point in found} == {0.0}
    assert all(point.chosen and not point.setting for point in found)
