import pytest

from genbench import report
from genbench.report.figures import custom, style, sweep
from genbench.report.selection import load
from genbench.report.spec import check, curves_of
from genbench.report.table import build, points
from tests.helpers import factory

SIZE = {"name": "size", "title": "Accuracy against size", "x": "data.train_size", "y": "test/performance/accuracy"}
DRIFT = {"name": "drift", "title": "Accuracy along the drift", "y": "test/robustness/drift_*", "scale": 100}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Strategies × two train sizes × three seeds, measured at three steps of a drift."""
    folder = tmp_path_factory.mktemp("runs") / "sizes"
    for strategy in ("none", "l2"):
        for size in (100, 4000):
            for seed in range(3):
                item = factory.record(strategy, 0.0, seed)
                item["config"]["data"] |= {"train_size": size}
                base = 0.5 + 0.1 * (size > 100) + 0.05 * (strategy == "l2")
                item["metrics"]["test/performance/accuracy"] = base + 0.01 * seed
                item["metrics"] |= {f"test/robustness/drift_{k}": base - 0.1 * k for k in range(3)}
                factory.leave(folder, item | {"run_id": factory.run_id(strategy, size, seed)})
    return folder


def drawn(folder, *nodes):
    spec = {"rows": ["regularization"], "columns": [factory.SPEC["columns"][0] | {"where": {"data.train_size": 100}}]}
    found = points(load(folder), spec)
    with style.context():
        return [custom.draw(curve, found) for curve in curves_of(nodes)]


def drawn_of(folder, *nodes):
    """The figures of runs that differ in nothing but their seed."""
    found = points(load(folder), {"rows": ["regularization"], "columns": factory.SPEC["columns"][:1]})
    with style.context():
        return [custom.draw(curve, found) for curve in curves_of(nodes)]


def lines(axis):
    return {tuple(line.get_xdata()): list(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"}


def test_a_metric_against_a_setting_is_the_mean_over_seeds(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"where": {"regularization": "l2"}})
    (axis,) = drawing_.figure.axes
    ((xs, ys),) = lines(axis).items()
    assert xs == (100, 4000)
    assert ys == pytest.approx([0.56, 0.66])
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["l2"]
    half = axis.collections[0].get_segments()[0][:, 1]
    assert half[1] - half[0] == pytest.approx(2 * 4.302653 * 0.01 / 3**0.5, rel=1e-5)  # t of two degrees of freedom
    assert "3 runs a point" in drawing_.caption


def test_an_axis_may_be_cut_and_the_caption_counts_what_it_hides(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"where": {"regularization": "l2"}, "y_from": 0.6})
    assert drawing_.figure.axes[0].get_ylim()[0] == 0.6
    assert drawing_.caption.endswith("3 runs a point. 1 mean lies below the axis.")


def test_an_interval_that_reaches_zero_is_drawn_to_a_logarithmic_axis(tmp_path):
    for size, values in ((100, (0.8, 0.9, 1.0)), (4000, (0.01, 0.02, 0.3))):
        for seed, value in enumerate(values):
            item = factory.record("none", 0.0, seed)
            item["config"]["data"]["train_size"] = size
            item["metrics"]["test/performance/accuracy"] = value
            factory.leave(tmp_path, item | {"run_id": factory.run_id("none", size, seed)})
    (drawing_,) = drawn(tmp_path, SIZE | {"log": True})
    (axis,) = drawing_.figure.axes
    bottom, top = axis.get_ylim()
    assert 0 < bottom < 0.11
    assert top > 0.11 + 4.302653 * 0.1637 / 3**0.5  # the upper half of the interval is there
    (half,) = (line for line in axis.lines if line.get_marker() != "o")
    assert list(half.get_xdata()) == [4000, 4000]
    assert list(half.get_ydata()) == pytest.approx([bottom, 0.11])
    assert "Intervals that reach 0 end at the axis." in drawing_.caption
    assert "Intervals" not in drawn(tmp_path, SIZE)[0].caption


def test_the_caption_says_the_exponent_of_each_line_and_whether_it_bends(tmp_path):
    laws = {"l1": lambda x: x**-0.5, "l2": lambda x: 0.2 + x**-0.5}
    for strategy, law in laws.items():
        for size in (10, 100, 1000):
            for seed in range(3):
                item = factory.record(strategy, 0.0, seed)
                item["config"]["data"]["train_size"] = size
                item["metrics"]["test/performance/accuracy"] = law(size) * (1 + 0.001 * seed * (size == 100))
                factory.leave(tmp_path, item | {"run_id": factory.run_id(strategy, size, seed)})
    (drawing_,) = drawn(tmp_path, SIZE | {"power_law": True})
    assert "within each seed: l1 −0.50 ± 0.00, l2 −0.17 ± 0.00 (flattens)." in drawing_.caption
    assert "no single exponent" in drawing_.caption
    alone = SIZE | {"power_law": True, "where": {"regularization": "l1"}}
    assert "no single exponent" not in drawn(tmp_path, alone)[0].caption


def test_points_that_not_all_runs_have_may_be_left_out(tmp_path):
    for seed in range(3):
        item = factory.record("none", 0.0, seed)
        item["metrics"] |= {f"test/robustness/drift_{k}": 0.5 for k in range(3 if seed else 2)}
        factory.leave(tmp_path, item | {"run_id": factory.run_id(seed)})
    drawing_, short = drawn_of(tmp_path, DRIFT, DRIFT | {"every_run": True, "caption": "Said first."})
    assert list(lines(drawing_.figure.axes[0])) == [(0, 1, 2)]
    assert drawing_.caption.endswith("2 to 3 runs a point.")
    assert list(lines(short.figure.axes[0])) == [(0, 1)]
    assert short.caption.startswith("Said first. Means over seeds")
    assert short.caption.endswith("3 runs a point. 1 point that not all runs have is left out.")


@pytest.mark.parametrize(("log_x", "scale"), [(None, "linear"), (False, "linear"), (True, "log")])
def test_a_short_axis_is_logarithmic_if_asked(sizes, log_x, scale):
    (drawing_,) = drawn(sizes, SIZE | {"where": {"data.train_size": 4000}, "log_x": log_x})
    assert drawing_.figure.axes[0].get_xscale() == scale


@pytest.mark.parametrize(("log_x", "scale"), [(None, "log"), (False, "linear"), (True, "log")])
def test_a_long_axis_is_logarithmic_unless_refused(tmp_path, log_x, scale):
    for seed in range(2):
        item = factory.record("none", 0.0, seed)
        item["metrics"] |= {f"test/robustness/drift_{k}": 0.5 for k in (5, 50)}
        factory.leave(tmp_path, item | {"run_id": factory.run_id(seed)})
    (drawing_,) = drawn_of(tmp_path, DRIFT | {"log_x": log_x})
    assert drawing_.figure.axes[0].get_xscale() == scale


def test_a_metric_against_another_is_a_point_a_run(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"x": "test/robustness/drift_1", "where": {"regularization": "l2"}})
    (axis,) = drawing_.figure.axes
    (line,) = axis.lines
    assert line.get_linestyle() == "None"
    assert sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [
        (pytest.approx(x), pytest.approx(x + 0.1 + 0.01 * seed)) for x in (0.45, 0.55) for seed in range(3)
    ]
    assert drawing_.caption == "Each point is a run; 6 runs."


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"lines": ["regularization"]}, "6 runs a colour"),
        ({"lines": [], "panels": ["regularization"]}, "6 runs a panel"),
        ({"lines": ["regularization"], "panels": ["regularization"]}, "6 runs a panel"),
        ({"lines": ["regularization"], "panels": ["data.train_size"]}, "3 runs a colour and panel"),
    ],
)
def test_a_cloud_says_how_many_runs_it_is(sizes, parts, words):
    (drawing_,) = drawn(sizes, SIZE | {"x": "test/robustness/drift_1"} | parts)
    assert drawing_.caption == f"Each point is a run; {words}."


def test_more_kinds_of_points_than_colours_differ_in_their_mark(sizes, monkeypatch):
    monkeypatch.setattr(custom, "COLOURS", style.COLOURS[:1])
    (drawing_,) = drawn(sizes, SIZE | {"x": "test/robustness/drift_1", "lines": ["regularization"]})
    (axis,) = drawing_.figure.axes
    (legend,) = drawing_.figure.legends
    assert [line.get_marker() for line in axis.lines] == ["o", "s"]
    assert [line.get_marker() for line in legend.legend_handles] == ["o", "s"]
    assert drawing_.caption == "Each point is a run; 6 runs a colour and mark."


def test_lines_and_panels_are_settings(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"lines": ["data.train_size"], "panels": ["regularization"]})
    titles = {axis.get_title(loc="left") for axis in drawing_.figure.axes}
    assert titles == {"regularization l2", "regularization none"}
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["100", "4000"]


def test_lines_of_numbers_are_in_their_order_whatever_that_of_the_rows_is(sizes):
    (curve,) = curves_of([SIZE | {"lines": ["data.train_size"]}])
    found = points(load(sizes), {"rows": ["data.train_size", "regularization"]})
    with style.context():
        for given in (found, found[::-1]):
            texts = custom.draw(curve, given).figure.legends[0].texts
            assert [text.get_text() for text in texts] == ["100", "4000"]


def test_a_family_of_metrics_is_a_line_over_its_numbers(sizes):
    (drawing_,) = drawn(sizes, DRIFT | {"where": {"data.train_size": 100, "regularization": "none"}})
    ((xs, ys),) = lines(drawing_.figure.axes[0]).items()
    assert xs == (0, 1, 2)
    assert ys == pytest.approx([50, 40, 30])


def test_several_families_are_lines_of_their_labels(sizes):
    families = {"up": "test/robustness/drift_*", "down": "test/robustness/drift_*"}
    (drawing_,) = drawn(sizes, DRIFT | {"y": families, "where": {"data.train_size": 100}, "log": True})
    (axis,) = drawing_.figure.axes
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["up", "down"]
    assert next(iter(lines(axis).values())) == pytest.approx([52.5, 42.5, 32.5])  # of both strategies
    assert axis.get_yscale() == "log"


def test_trajectories_go_through_the_means_of_two_families_and_are_coloured_by_number(sizes):
    node = {
        "name": "plane",
        "title": "Trajectories",
        "x": {"first": "test/robustness/drift_*", "second": "test/robustness/drift_*"},
        "y": {"first": "test/robustness/drift_*", "second": "test/robustness/fall_*"},
        "panels": ["regularization"],
        "where": {"data.train_size": 4000},
        "number_label": "step",
    }
    (drawing_,) = drawn(sizes, node)
    left, right, bar = drawing_.figure.axes
    assert {axis.get_title(loc="left") for axis in (left, right)} == {"regularization l2", "regularization none"}
    (line,) = left.lines  # no run has the second family
    assert list(line.get_xdata()) == list(line.get_ydata()) == pytest.approx([0.6, 0.5, 0.4])
    (shades,) = left.collections
    assert list(shades.get_array()) == [0, 1, 2]
    assert bar.get_ylabel() == "step"
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["first"]
    assert drawing_.caption == "Means over seeds; 3 runs a point. The first 1 of 2 lines."
    assert drawn(sizes, node | {"x": {"a": "test/a_*"}, "y": {"a": "test/b_*"}}) == [None]


def test_several_values_of_a_key_may_be_shown(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"where": {"regularization": ["none", "l2"], "data.train_size": [100]}})
    assert {text.get_text() for text in drawing_.figure.legends[0].texts} == {"none", "l2"}
    assert set(lines(drawing_.figure.axes[0])) == {(100,)}


def test_of_very_many_lines_and_panels_some_are_drawn_and_the_caption_says_so(sizes, monkeypatch):
    monkeypatch.setattr(custom, "LINES", 1)
    monkeypatch.setattr(custom, "_PANELS", 1)
    (drawing_,) = drawn(sizes, SIZE | {"lines": ["data.train_size"], "panels": ["regularization"]})
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["100"]
    (axis,) = drawing_.figure.axes
    assert set(lines(axis)) == {(100,)}
    assert drawing_.caption.endswith("runs a point. The first 1 of 2 panels. The first 1 of 2 lines.")


def test_guides_are_grey_lines_with_a_place_in_the_legend(sizes):
    (drawing_,) = drawn(sizes, SIZE | {"guides": {"chance": 0.1}, "scale": 100})
    (axis,) = drawing_.figure.axes
    (guide,) = [line for line in axis.lines if line.get_color() == style.GREY]
    assert set(guide.get_ydata()) == {0.1}
    assert tuple(guide.get_xdata()[[0, -1]]) == pytest.approx(axis.get_xlim())
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["none", "l2", "chance"]
    cloud = SIZE | {"x": "test/robustness/drift_1", "guides": {"equal": "x"}, "scale": 100}
    (drawing_,) = drawn(sizes, cloud)
    (guide,) = [line for line in drawing_.figure.axes[0].lines if line.get_color() == style.GREY]
    assert list(guide.get_ydata()) == pytest.approx([100 * x for x in guide.get_xdata()])
    (drawing_,) = drawn(sizes, cloud | {"x_scale": 100})  # one unit on both axes
    *clouds, guide = drawing_.figure.axes[0].lines
    assert list(guide.get_ydata()) == pytest.approx(list(guide.get_xdata()))
    assert {round(float(x), 9) for each in clouds for x in each.get_xdata()} == {40, 45, 50, 55}


@pytest.mark.parametrize("panels", ["regularization", "data.train_size"])
def test_a_guide_hides_no_point_of_another_panel(sizes, panels):
    cloud = SIZE | {"x": "test/robustness/drift_1", "guides": {"chance": 0.1}, "panels": [panels]}
    (drawing_,) = drawn(sizes, cloud)
    every = [x for axis in drawing_.figure.axes for line in axis.lines[:-1] for x in line.get_xdata()]
    for axis in drawing_.figure.axes:
        left, right = axis.get_xlim()
        assert left < min(every) < max(every) < right


def test_nothing_measured_is_no_figure(sizes):
    assert drawn(sizes, SIZE | {"y": "test/performance/brier"}) == [None]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "a"}, "a figure needs name, title and y"),
        (SIZE | {"lnes": []}, "figure 'size' has the unknown key 'lnes'; did you mean 'lines'"),
        (SIZE | {"x": None}, "y is 'test/performance/accuracy'; accepted: a metric with x a setting"),
        (DRIFT | {"x": "seed"}, "y is 'test/robustness/drift_\\*'; accepted"),
        (DRIFT | {"y": {"a": "test/robustness/drift"}}, "y is .*; accepted: metrics with a single"),
        (DRIFT | {"x": {"a": "a_*"}}, "accepted"),
        (SIZE | {"y": {"a": "a_*"}}, "accepted: metrics without \\*"),
        (DRIFT | {"y": {"a": "a_*"}, "x": {"b": "a_*"}}, "x is {'b': 'a_\\*'}; accepted: .* the same in x and y"),
        (SIZE | {"name": "../a"}, "accepted: a name of letters"),
        (SIZE | {"guides": {"zero": None}}, "guide 'zero' is None; accepted: a height"),
        (SIZE | {"guides": {"equal": "x"}}, "guide 'equal' is 'x'; accepted: a height$"),
        (SIZE | {"guides": dict.fromkeys("abcd", 0)}, "has 4 guides; accepted: at most 3, and none with trajectories"),
        (SIZE | {"y_from": "low"}, "y_from is 'low'; accepted: a number"),
        (SIZE | {"x": "test/robustness/drift_1", "y_from": 0}, "y_from is 0; accepted: null, as it draws no means"),
        (SIZE | {"x_scale": 100}, "x_scale is 100; accepted: 1, or a number > 0 where x is a metric"),
        (SIZE | {"x": "test/robustness/drift_1", "every_run": True}, "every_run is true; accepted: false, as it draws"),
        (SIZE | {"correlate": "seed"}, "correlate is 'seed'; accepted: null, or a setting where x is a metric"),
    ],
)
def test_a_malformed_figure_is_refused(node, message):
    with pytest.raises(ValueError, match=message):
        curves_of([node])


def test_a_figure_of_what_runs_do_not_have_is_refused_before_they_train():
    with pytest.raises(ValueError, match=r"'data\.train_sise' is neither a group nor a setting.*data\.train_size"):
        check({"figures": [SIZE | {"x": "data.train_sise"}]}, {"data": {"train_size": 1}}, {})


def test_lines_and_panels_may_have_names(sizes):
    names = {100: "few", "l2": "weight penalty"}
    node = SIZE | {"lines": ["data.train_size"], "panels": ["regularization"], "names": names}
    (drawing_,) = drawn(sizes, node)
    titles = {axis.get_title(loc="left") for axis in drawing_.figure.axes}
    assert titles == {"weight penalty", "regularization none"}
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["few", "4000"]


def test_a_setting_that_a_run_does_not_have_is_named_as_in_the_rows_of_a_table(sizes):
    rows = ["regularization", "regularization.l2.strength"]
    table = build(
        load(sizes), {"rows": rows, "columns": [factory.SPEC["columns"][0] | {"where": {"data.train_size": 100}}]}
    )
    names = {row.label: f"row {number}" for number, row in enumerate(table.rows)}
    assert "none/–" in names
    (drawing_,) = drawn(sizes, SIZE | {"lines": rows, "names": names})
    assert {text.get_text() for text in drawing_.figure.legends[0].texts} == set(names.values())


def test_lines_and_panels_follow_the_order_of_their_names(sizes):
    node = SIZE | {"lines": ["regularization"], "panels": ["data.train_size"], "names": {"none": "plain", 4000: "many"}}
    (drawing_,) = drawn(sizes, node | {"x": "seed"})
    assert [axis.get_title(loc="left") for axis in drawing_.figure.axes] == ["many", "train size 100"]
    (legend,) = drawing_.figure.legends
    assert [text.get_text() for text in legend.texts] == ["plain", "l2"]
    assert legend.get_title().get_text() == "regularization"  # l2 has no name that says what it is
    (drawing_,) = drawn(sizes, node | {"x": "seed", "names": {"none": "plain", "l2": "penalty"}})
    assert drawing_.figure.legends[0].get_title().get_text() == ""


def test_panels_with_a_line_each_of_the_same_name_need_no_legend(sizes):
    names = {"none": "plain", "l2": "penalty"}
    node = SIZE | {"panels": ["regularization"], "lines": ["regularization"], "names": names}
    (drawing_,) = drawn(sizes, node)
    assert not drawing_.figure.legends
    left, right = drawing_.figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_xscale() == right.get_xscale() == "log"


def test_a_cloud_says_the_rank_correlation_within_seeds_and_within_a_setting(tmp_path):
    """Accuracy rises with the norm along sizes, and falls with it over the seeds of one size."""
    for size in (1, 2, 3):
        for seed in range(4):
            item = factory.record("none", 0.0, seed)
            item["config"]["data"] |= {"train_size": size}
            item["metrics"] |= {"test/performance/accuracy": size / 4 + seed / 100, "train/norms/all": 10 * size - seed}
            factory.leave(tmp_path, item | {"run_id": factory.run_id("none", size, seed)})
    cloud = SIZE | {"x": "train/norms/all", "lines": ["regularization"], "correlate": "data.train_size"}
    (drawing_,) = drawn(tmp_path, cloud)
    assert drawing_.caption == (
        "Each point is a run; 12 runs. Rank correlation over train size within a seed, plain mean (claims average "
        "Fisher's z): none 1.00. Over the seeds at one value of train size: none −1.00."
    )
    (drawing_,) = drawn(tmp_path, cloud | {"lines": ["data.train_size"]})  # coloured by it: one correlation over all
    assert "(claims average Fisher's z): 1.00. Over the seeds at one value of train size: −1.00." in drawing_.caption
    (drawing_,) = drawn(tmp_path, cloud | {"where": {"data.train_size": [1, 2]}})
    assert "(claims average Fisher's z): none –." in drawing_.caption  # two points have no rank correlation
    wrong = cloud | {"correlate": "data.train_sise"}
    with pytest.raises(ValueError, match=r"'data\.train_sise' is neither"):
        check({"figures": [wrong]}, {"data": {"train_size": 1}}, {"regularization": 1})


def test_more_than_four_panels_take_two_lines(tmp_path):
    for size in range(1, 8):
        item = factory.record("none", 0.0, 0)
        item["config"]["data"] |= {"train_size": size}
        factory.leave(tmp_path, item | {"run_id": factory.run_id("none", size, 0)})
    node = SIZE | {"x": "data.label_noise", "panels": ["data.train_size"]}
    (drawing_,) = drawn(tmp_path, node | {"where": {"data.train_size": [1, 2, 3, 4, 5]}})
    assert [axis.get_subplotspec().rowspan.start for axis in drawing_.figure.axes] == [0, 0, 0, 1, 1]
    assert [bool(axis.get_ylabel()) for axis in drawing_.figure.axes] == [True, False, False, True, False]
    (four,) = drawn(tmp_path, node | {"where": {"data.train_size": [1, 2, 3, 4]}})
    assert [axis.get_subplotspec().rowspan.start for axis in four.figure.axes] == [0, 0, 0, 0]


def test_the_report_has_it_and_draws_it_again_when_it_changes(tmp_path):
    node = SIZE | {"x": "data.label_noise", "lines": ["regularization"]}
    folder = factory.ablation(tmp_path / "a", strategies=["none", "l2"], spec=factory.SPEC | {"figures": [node]})
    assert "size.png" in {path.name for path in report.Report(folder).write()}
    before = (folder / "figures" / "size.svg").read_bytes()
    report.Report(folder, spec=factory.SPEC | {"figures": [node | {"y_label": "another label"}]}).write()
    assert (folder / "figures" / "size.svg").read_bytes() != before
    loaded = load(folder)
    assert any(item.name == "size" for item in sweep.draw(loaded, build(loaded), points(loaded)))


def test_several_metrics_are_lines_along_a_setting(sizes):
    both = {"accuracy": "test/performance/accuracy", "again": "test/performance/accuracy", "never": "test/none"}
    (drawing_,) = drawn(sizes, SIZE | {"y": both})
    assert [text.get_text() for text in drawing_.figure.legends[0].texts] == ["accuracy", "again"]
    (one,) = drawn(sizes, SIZE | {"lines": ["regularization"], "where": {"regularization": "none"}})
    (axis,), (other,) = drawing_.figure.axes, one.figure.axes
    assert list(axis.lines[0].get_xdata()) == list(other.lines[0].get_xdata())
