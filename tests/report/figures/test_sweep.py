import itertools
import re

import numpy as np
import pytest

from genbench.report.figures import differences, gap, learning, style, sweep
from genbench.report.selection import load
from genbench.report.table import build, points
from tests.helpers import factory
from tests.helpers.rendered import touching


def test_the_same_records_give_the_same_bytes(ablation):
    loaded = load(ablation)
    table = build(loaded)

    def svg():
        with style.context():
            return style.saved(next(sweep.draw(loaded, table, [])), "svg")

    assert svg() == svg()


def test_the_figures_show_what_the_records_say(ablation):
    loaded = load(ablation)
    found = points(loaded)
    with style.context():
        drawings = {item.name: item.figure for item in sweep.draw(loaded, build(loaded), found)}
    assert {name: pairs for name, figure in drawings.items() if (pairs := touching(figure))} == {}
    panels = [axis for axis in drawings["learning_accuracy"].axes if axis.lines]
    assert [axis.get_title(loc="left") for axis in panels] == factory.STRATEGIES
    assert all(len(axis.lines) == 4 for axis in panels)
    assert [axis.xaxis.get_tick_params()["labelbottom"] for axis in panels] == [False] * 9 + [True] * 5
    assert all(len(line.get_xdata()) == 110 for axis in panels for line in axis.lines)
    titles = [axis.get_title(loc="left") for axis in drawings["gap_flatness"].axes if axis.lines]
    assert len(titles) == 5
    assert all(re.search(r"label noise 0: τ = −?\d\.\d\d \[−?\d\.\d\d, −?\d\.\d\d\], n = (33|42)\n", t) for t in titles)
    dots = [line for line in drawings["gap_flatness"].axes[0].lines if len(line.get_xdata()) == 3]
    assert len(dots) == 28
    forest = drawings["differences"].axes[0]
    labels = [label.get_text() for label in forest.get_yticklabels()]
    assert sorted(labels) == sorted(factory.STRATEGIES[1:])
    assert labels[-1] == "augmentation"


def test_more_conditions_than_markers_are_not_told_apart(tmp_path):
    """Each of hundreds had a line above every panel: a picture of 24,000 points, and a page of 73 MB."""
    noises = tuple(number / 20 for number in range(8))
    found = points(load(factory.ablation(tmp_path, ["none", "l2", "sam"], noises, (0, 1))))
    with style.context():
        drawing = gap.against_flatness(found, {"none", "l2", "sam"})
        figure = drawing.figure
        titles = [axis.get_title(loc="left") for axis in figure.axes if axis.lines]
    assert len(titles) == 5
    assert all(re.fullmatch(r"τ = −?\d\.\d\d \[−?\d\.\d\d, −?\d\.\d\d\], n = 48", title) for title in titles)
    assert figure.get_size_inches()[1] < 10
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [16, 1, 16, 1, 16, 1]
    assert "not told apart" in drawing.caption


def test_of_very_many_rows_figures_show_some_and_say_which(tmp_path, monkeypatch):
    names = [f"method {number}" for number in range(12)]

    def change(item):
        number = int((item["choices"]["regularization"] or ["method 6"])[0].split()[1])
        item["metrics"]["test/performance/accuracy"] = 0.5 + (number + 0.1 * item["seed"]) / 100
        return item

    loaded = load(factory.ablation(tmp_path, ["none", *names], (0.0,), (0, 1), change=change))
    table = build(loaded)
    few, said = sweep._few(table, 5)
    assert few == {"none", "method 0", "method 1", "method 10", "method 11"}
    assert said == (
        " Shown of 13 rows: none, the 2 with the lowest and the 2 with the highest test acc. (%), clean; "
        "the table has all."
    )
    assert sweep._few(table, 13) == ({"none", *names}, "")
    monkeypatch.setattr(sweep, "_PANELS", 5)
    monkeypatch.setattr(sweep, "_LINES", 7)
    monkeypatch.setattr(sweep, "settle", lambda drawing: None)  # which takes time
    with style.context():
        drawn = {item.name: item for item in sweep.draw(loaded, table, points(loaded))}
    assert all(item.caption.endswith("the table has all.") for item in drawn.values())
    assert len(drawn["differences"].figure.axes[0].get_yticklabels()) == 6
    panels = [axis.get_title(loc="left") for axis in drawn["learning_accuracy"].figure.axes if axis.lines]
    assert set(panels) == few
    axis = drawn["gap_norm"].figure.axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["1", "2", "3", "4", "5"]
    assert [len(line.get_xdata()) for line in axis.lines] == [8, 1, 1, 1, 1, 1]  # grey: the other rows' means


def test_figures_keep_their_size_whatever_their_rows_are_called(tmp_path):
    """Legends that do not fit beside the panels stand below them, and take nothing from them."""
    strategies = ["none", *(f"a strategy with a name of many words, number {number}" for number in range(29))]
    loaded = load(factory.ablation(tmp_path, strategies, (0.0, 0.2), (0,)))
    shown = [point for point in points(loaded) if point.chosen]
    with style.context():
        drawn = gap.against_norms(shown, {point.row for point in shown})
        style.settle(drawn)
        figure = drawn.figure
        (legend,) = figure.legends
        box, inside = legend.get_window_extent(), figure.bbox
        assert len(legend.get_texts()) == 32
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1
        assert all(axis.get_tightbbox().y0 >= box.y1 for axis in figure.axes)
        assert all(axis.get_window_extent().height > 2 * figure.dpi for axis in figure.axes)


def test_titles_of_differences_stand_apart(tmp_path):
    column = {"metric": "test/performance/accuracy", "group": "test acc. (%)"}
    columns = [column | {"label": f"a long condition, number {number}"} for number in range(4)]
    spec = factory.SPEC | {"columns": columns}
    table = build(load(factory.ablation(tmp_path, ["none", "l1", "l2"], (0.0,), (0, 1), spec=spec)))
    with style.context():
        drawn = differences.draw(table, {row.label for row in table.rows})
        style.settle(drawn)
        for boxes in (
            [axis._left_title.get_window_extent() for axis in drawn.figure.axes],
            [axis.xaxis.label.get_window_extent() for axis in drawn.figure.axes],
        ):
            assert all(box.x1 < other.x0 for box, other in itertools.pairwise(boxes))


def test_titles_of_learning_curves_stand_apart(tmp_path):
    strategies = ["none", *(f"a_strategy+with_a_name+of_many_words+number_{number}" for number in range(2))]
    loaded = load(factory.ablation(tmp_path, strategies, (0.0,), (0,)))
    few = points(loaded)
    with style.context():
        drawn = learning.accuracy(learning.curves_of(loaded, few), few)
        style.settle(drawn)
        boxes = [axis._left_title.get_window_extent() for axis in drawn.figure.axes]
        assert [axis.get_title(loc="left").replace("\n", "") for axis in drawn.figure.axes] == strategies
    assert all(box.x1 < other.x0 for box, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(("factor", "scale"), [(1, "log"), (1e-9, "linear")])
def test_cross_entropy_is_logarithmic_where_it_spans_decades(tmp_path, factor, scale):
    """Labels of a narrower range, such as 1.45 × 10⁰, are none that anybody reads."""
    history = {
        "test/performance/cross_entropy": np.array([[1, 2, 4], [2.0, 1.7, 1.6]]),
        "train/performance/cross_entropy": np.array([[1, 2, 4], [2.0, 2.0 - factor, 2.0 - 1.9 * factor]]),
    }
    loaded = load(factory.ablation(tmp_path, ["none"], (0.0,), (0,)))
    curves = {run.run_id: history for run in loaded.runs}
    with style.context():
        drawn = learning.cross_entropy(curves, points(loaded))
        style.settle(drawn)
    assert all(float(place).is_integer() for place in drawn.figure.axes[0].get_xticks())
    assert drawn.figure.axes[0].get_yscale() == scale
    assert ("Logarithmic axis." in drawn.caption) == (scale == "log")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_panels_that_are_alike_look_as_if_matplotlib_shared_them(scale):
    looks = []
    for shared in (True, False):
        with style.context():
            figure, axes = style.blank(6, 4, 2, 3, sharex=shared, sharey=shared)
            axes[1, 2].remove()
            panels = axes.flat[:5]
            for index, axis in enumerate(panels):
                axis.plot([1, 2 + index], [0.1 * 3**index, 2])
            if shared:
                axes[0, 2].tick_params(labelbottom=True)
            else:
                style.alike(panels, 3)
            for axis in panels:
                axis.set_yscale(scale)
            style.settle(style.Drawing("", "", "", figure))
        looks.append(
            [
                [axis.get_xlim(), axis.get_ylim(), axis.get_position().bounds]
                + [label.get_text() for way in (axis.xaxis, axis.yaxis) for label in way.get_ticklabels()
                   if label.get_visible()]
                for axis in panels
            ]
        )  # fmt: skip
    assert looks[0] == looks[1]
