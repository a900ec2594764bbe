import json
import math

import pytest
from scipy import stats

from genbench import records
from genbench.privacy import clean
from genbench.report import html, render
from genbench.report.latex import latex
from genbench.report.model import Column
from genbench.report.selection import load
from genbench.report.spec import RAW_MEASURES, check
from genbench.report.table import build, points
from tests.helpers import factory
from tests.helpers.factory import ACCURACY


def column(table, label, group=None):
    return next(i for i, c in enumerate(table.columns) if c.label == label and group in (None, c.group))


def row(table, label):
    return next(i for i, r in enumerate(table.rows) if r.label == label)


def test_a_cell_is_the_student_interval_of_one_configuration(ablation):
    loaded = load(ablation)
    table = build(loaded)
    cell = table.cells[row(table, "sam")][column(table, "noisy", "test acc. (%)")]
    values = [
        100 * record["metrics"]["test/performance/accuracy"]
        for record in loaded.records
        if record["choices"]["regularization"] == ["sam"] and record["config"]["data"]["label_noise"] == 0.2
    ]
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (cell.mean.low, cell.mean.high) == pytest.approx((low, high))
    assert (cell.mean.n, cell.planned, cell.status) == (3, 3, "")
    assert [r.label for r in table.rows] == factory.STRATEGIES


def test_differences_are_paired_by_seed_and_holm_counts_the_rows_of_the_column(tmp_path):
    values = {"none": [0.60, 0.70, 0.65], "l1": [0.611, 0.709, 0.66], "l2": [0.70, 0.65, 0.75]}
    table = build(load(factory.toy(tmp_path, values)))
    p = {name: stats.ttest_rel(values[name], values["none"]).pvalue for name in ("l1", "l2")}
    cells = {name: table.cells[row(table, name)][0] for name in values}
    assert cells["l1"].difference.p == pytest.approx(p["l1"])
    assert cells["l1"].p == pytest.approx(2 * p["l1"])
    assert cells["l2"].p == pytest.approx(max(p["l2"], 2 * p["l1"]))
    assert cells["l1"].significant
    assert not cells["l2"].significant
    assert cells["none"].difference is None
    assert [cells[name].best for name in values] == [False, False, True]
    assert "(2 comparisons)" in " ".join(table.caption)


def test_a_column_may_subtract_other_runs_seed_by_seed(tmp_path):
    values = {"none": [0.60, 0.70, 0.65, 0.61], "l2": [0.70, 0.65, 0.75]}
    column_ = ACCURACY | {"where": {"regularization": "l2"}, "minus": {"regularization": "none"}}
    spec = {"rows": ["model"], "columns": [column_, column_ | {"where": {}, "minus": {"regularization": "sam"}}]}
    spec["columns"][1] |= {"label": "none to subtract", "where": {"regularization": "l2"}}
    table = build(load(factory.toy(tmp_path, values, spec)))
    cell, empty = table.cells[0]
    scale = ACCURACY.get("scale", 1)
    low, high = stats.t.interval(0.95, 2, loc=scale * 0.05, scale=scale * stats.sem([0.10, -0.05, 0.10]))
    assert (cell.mean.low, cell.mean.value, cell.mean.high) == pytest.approx((low, scale * 0.05, high))
    assert (cell.mean.n, cell.planned, cell.status) == (3, 4, "n=3/4")
    assert (empty.mean, empty.status) == (None, "not run")
    assert "regularization=l2 minus regularization=none" in render.comma_separated(table)


def test_settings_that_a_column_subtracts_are_checked():
    spec = {"columns": [ACCURACY | {"minus": {"data.train_sise": 1}}]}
    with pytest.raises(ValueError, match="neither a group nor a setting"):
        check(spec, {"data": {"train_size": 1}}, {})


FURTHER = {
    "title": "The half",
    "caption": "Of noisy labels.",
    "where": {"data.label_noise": 0.2},
    "rows": ["regularization"],
    "order": {"none": "nothing", "sam": "SAM"},
    "columns": [{**ACCURACY, "digits": 3}],
}


def test_a_further_table_shows_some_of_the_same_runs_by_its_own_rows_and_columns(ablation):
    loaded = load(ablation)
    spec = {**loaded.sweep["table"], "further": [FURTHER]}
    table = build(loaded, spec)
    (further,) = table.further
    alone = build(loaded, FURTHER)
    assert (further.title, [row.label for row in further.rows][:2]) == ("The half", ["nothing", "SAM"])
    assert further.cells == alone.cells
    means = {row.label: cell.mean for row, (cell,) in zip(further.rows, further.cells, strict=True)}
    noisy = table.cells[row(table, "sam")][column(table, "noisy", "test acc. (%)")].mean
    assert 100 * means["SAM"].value == pytest.approx(noisy.value)
    own = build(loaded, {key: value for key, value in spec.items() if key != "further"})
    assert [table.rows, table.cells, table.caption] == [own.rows, own.cells, own.caption]
    for text in (render.markdown(table), latex(table), render.comma_separated(table), html.page(loaded, table, [], [])):
        assert text.index("Of noisy labels.") > text.index(table.caption[0].partition("%")[0])
    assert render.comma_separated(table).count("row,chosen") == 1
    assert points(loaded, spec) == points(loaded, {**spec, "further": None})


@pytest.mark.parametrize(("best", "chosen"), [("max", "l2"), ("min", "none")])
def test_the_best_mean_of_a_row_may_be_bold(tmp_path, best, chosen):
    loaded = load(factory.toy(tmp_path, {"none": [0.60, 0.70], "l1": [0.61, 0.70], "l2": [0.70, 0.65]}))
    columns = [{**ACCURACY, "label": name, "where": {"regularization": name}} for name in ("none", "l1", "l2")]
    table = build(loaded, {"rows": ["model"], "columns": columns, "best_in_row": best})
    assert [c.label for c, cell in zip(table.columns, table.cells[0], strict=True) if cell.best] == [chosen]
    assert f"Bold: {best}imum of the means of its row." in table.caption


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"a": 1}, r"table: further is .*; accepted: a list of tables with columns of their own"),
        ([{"title": "x"}], r"table: further is .*; accepted: a list of tables with columns of their own"),
        ([{**FURTHER, "figures": [{}]}], "table: a further table has figures; accepted: the table itself has them"),
        ([{**FURTHER, "where": 3}], "table: where is 3; accepted: settings of the runs that it shows, or null"),
        ([{**FURTHER, "where": {"data.label_nose": 1}}], "table: 'data.label_nose' is neither a group .*label_noise'"),
    ],
)
def test_further_tables_are_checked_before_runs_train(further, message):
    with pytest.raises(ValueError, match=message):
        check({"further": further}, {"data": {"label_noise": 0.2}}, {"regularization": ["none"]})


def test_the_caption_counts_the_comparisons_of_each_column(ablation):
    table = build(load(ablation))
    tested = {
        c.title: sum(line[i].p is not None for line in table.cells)
        for i, c in enumerate(table.columns)
        if "acc" in c.title
    }
    sharpness = {c.label: sum(line[i].p is not None for line in table.cells) for i, c in enumerate(table.columns)}
    assert set(tested.values()) == {len(factory.STRATEGIES) - 1}
    fewer = sharpness["λ₁"]  # rows that change the loss or its scale are not tested there
    assert 0 < fewer < len(factory.STRATEGIES) - 1
    (sentence,) = [text for text in table.caption if "Holm" in text]
    (named,) = [part for part in sentence.split("; ") if part.startswith(f"{fewer} of ")]
    assert f"({len(factory.STRATEGIES) - 1} comparisons; " in sentence
    for label in ("λ₁", "trace", "SAM"):
        assert label in named
    assert "adaptive" not in named
    assert "clean" not in named


def test_what_a_search_says_of_itself_is_no_footnote(tmp_path):
    """Each run's text differs, and a footnote per seed would bury the table; other notes stay."""
    key = "train/flatness/sam_sharpness"

    def change(item):
        if item["choices"]["regularization"]:
            return item
        seed = item["seed"]
        item["metrics"][key], item["converged"][key] = 0.1 + seed, seed != 1
        item["notes"][key] = f"mean of 5 members; search: 8 starts, {seed} reached it; " + (
            "in float64" if seed else ""
        )
        item["metrics"]["train/flatness/trace"] = None
        item["notes"]["train/flatness/trace"] = f"undefined: reason {seed}; more"
        return item

    columns = [
        {"group": "sharpness", "label": name, "metric": f"train/flatness/{name}"} for name in ("sam_sharpness", "trace")
    ]
    spec = {"rows": ["regularization"], "baseline": ["none"], "columns": columns}
    table = build(load(factory.ablation(tmp_path, ["none", "l2"], (0.0,), range(2), spec, change=change)))
    searched, undefined = ([table.notes[i] for i in cell.notes] for cell in table.cells[0])
    assert searched == ["mean of 5 members", "seed 1: in float64", "seed 1: did not converge"]
    assert undefined == ["seed 0: undefined: reason 0; more", "seed 1: undefined: reason 1; more"]

    def unconverged(item):
        item = change(item)
        item["converged"]["train/flatness/sam_sharpness"] = False
        return item

    table = build(load(factory.ablation(tmp_path / "b", ["none", "l2"], (0.0,), range(2), spec, change=unconverged)))
    assert "sam_sharpness: the iteration did not converge in any run." in table.caption


def test_what_is_said_of_several_values_of_a_single_row_stands_in_the_caption(tmp_path):
    def change(item):
        for name in ("lambda_1", "trace", "sam_sharpness"):
            item["notes"][f"train/flatness/{name}"] = "on 1,024 of 4,000 examples"
        item["notes"]["train/flatness/sam_sharpness"] += "; search: 8 starts, 8 reached it"
        item["notes"]["train/flatness/trace"] += "; of one alone"
        return item

    names = ("lambda_1", "trace", "sam_sharpness")
    columns = [{"group": "sharpness", "label": name, "metric": f"train/flatness/{name}"} for name in names]
    spec = {"rows": ["regularization"], "columns": columns}
    table = build(load(factory.ablation(tmp_path, ["none"], (0.0,), (0,), spec, change=change)))
    assert table.notes == ["of one alone"]
    assert [cell.notes for cell in table.cells[0]] == [(), (0,), ()]
    assert "lambda_1, trace and sam_sharpness: on 1,024 of 4,000 examples." in table.caption


def test_what_is_said_of_columns_of_one_label_names_their_groups(tmp_path):
    def change(item):
        for name in ("lambda_1", "trace"):
            item["notes"][f"train/flatness/{name}"] = "on 1,024 of 4,000 examples"
        return item

    columns = [
        {"group": name, "label": label, "metric": f"train/flatness/{metric}"}
        for name, label, metric in (
            ("sharpness", "first", "lambda_1"),
            ("sharpness", "last", "trace"),
            ("others", "first", "trace"),
            ("others", "last", "sam_sharpness"),
        )
    ]
    spec = {"rows": ["regularization"], "columns": columns}
    table = build(load(factory.ablation(tmp_path, ["none"], (0.0,), (0,), spec, change=change)))
    assert "sharpness and others, first: on 1,024 of 4,000 examples." in table.caption


def test_one_seed_has_no_interval_and_no_test(tmp_path):
    table = build(load(factory.toy(tmp_path, {"none": [0.6], "l1": [0.7]})))
    assert table.cells[1][0].mean.half_width is None
    assert table.cells[1][0].p is None
    assert any("One seed" in sentence for sentence in table.caption)


def test_holes_say_why(holes):
    table = build(load(holes))
    test, noisy = column(table, "clean", "test acc. (%)"), column(table, "noisy", "test acc. (%)")

    def notes(cell):
        return [table.notes[index] for index in cell.notes]

    dropout = table.cells[row(table, "dropout")][test]
    assert dropout.status == "n=2/3"
    assert notes(dropout) == ["seed 2: failed: OutOfMemoryError: killed by the system while writing …/x.pt"]
    diverged = table.cells[row(table, "l1")][noisy]
    assert (diverged.mean.n, diverged.status) == (2, "n=2/3")
    assert notes(diverged) == ["seed 1: diverged at step 340: the training loss is nan"]
    assert table.cells[row(table, "sam")][noisy].status == "diverged"
    assert table.cells[row(table, "sam")][test].status == ""
    missing = table.cells[row(table, "swa")][test]
    assert (missing.status, missing.mean, notes(missing)) == ("missing", None, ["not run yet"])
    assert notes(table.cells[row(table, "none")][noisy]) == ["seed 1: record damaged"]
    assert notes(table.cells[row(table, "l2")][column(table, "λ₁")]) == ["seed 0: did not converge"]
    null = table.cells[row(table, "mixup")][column(table, "trace")]
    assert (null.status, notes(null)) == ("–", ["undefined: the loss is not twice differentiable"])
    assert "mean of 5 members" in notes(table.cells[row(table, "ensemble")][column(table, "trace")])
    assert any("record.json is truncated" in problem for problem in table.problems)
    assert any(problem.startswith("elsewhere/record.json has no schema") for problem in table.problems)


def test_a_missing_run_of_the_baseline_is_no_partner(tmp_path):
    values = {"none": [0.60, 0.70], "l1": [0.61, 0.72, 0.99]}
    table = build(load(factory.toy(tmp_path, values)))
    assert table.cells[1][0].difference.value == pytest.approx(0.015)
    assert table.cells[1][0].difference.n == 2
    assert table.cells[0][0].status == "n=2/3"


def test_two_configurations_in_one_cell_are_refused_with_their_difference(tmp_path):
    folder = factory.toy(tmp_path, {"none": [0.6, 0.7]})
    other = factory.record("none", 0.0, 2)
    other["config"]["optimizer"]["lr"] = 0.1
    factory.leave(folder, {**other, "run_id": "aaaaaaaaaaaa"})
    with pytest.raises(ValueError, match=r"row 'none' mixes configurations: optimizer\.lr is .*0\.1.*name=") as error:
        build(load(folder, everything=True))
    assert "0.005" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_seed_twice_is_refused(tmp_path):
    folder = factory.toy(tmp_path, {"none": [0.6, 0.7]})
    factory.leave(folder, {**factory.record("none", 0.0, 1), "run_id": "bbbbbbbbbbbb"})
    with pytest.raises(ValueError, match=r"seed 1 twice .*bbbbbbbbbbbb"):
        build(load(folder, everything=True))


def test_a_setting_that_follows_the_seed_is_no_difference_but_a_stray_one_is(tmp_path):
    folder = factory.toy(tmp_path, {"none": [0.6, 0.7]})  # data.seed equals seed in every record
    build(load(folder))
    stray = factory.record("none", 0.0, 2)
    stray["config"]["data"]["seed"] = 7
    factory.leave(folder, {**stray, "run_id": "cccccccccccc"})
    with pytest.raises(ValueError, match=r"data\.seed is"):
        build(load(folder, everything=True))


def test_rows_are_found_when_none_are_named(ablation):
    table = build(load(ablation), {})
    assert table.header == "regularization, label noise"
    assert len(table.rows) == 28
    assert all(cell.mean.n == 3 for line in table.cells for cell in line)
    filtered = build(load(ablation), {"columns": [{**ACCURACY, "where": {"data.label_noise": 0.2}}]})
    assert [r.label for r in filtered.rows] == factory.STRATEGIES
    assert filtered.baseline == 0


def test_rows_that_all_have_a_name_have_no_heading_of_settings(ablation):
    spec = {"rows": ["regularization", "model"], "columns": [{**ACCURACY, "where": {"data.label_noise": 0.2}}]}
    names = {f"{strategy}/mlp": f"by {strategy}" for strategy in factory.STRATEGIES}
    assert build(load(ablation), spec | {"order": names}).header == ""
    assert build(load(ablation), spec | {"order": [*names]}).header == "regularization, model"
    del names["l2/mlp"]
    assert build(load(ablation), spec | {"order": names}).header == "regularization, model"


def test_without_a_plan_the_baseline_comes_first_and_numbers_sort_by_value(tmp_path):
    for lr in (0.1, 0.02, 1.0):
        for seed in (0, 1):
            item = factory.record("none", 0.0, seed)
            item["config"]["optimizer"]["lr"] = lr
            factory.leave(tmp_path, {**item, "run_id": factory.run_id(lr, seed)})
    table = build(load(tmp_path), {"baseline": [0.1], "rows": ["optimizer.lr"], "columns": [ACCURACY]})
    assert [r.label for r in table.rows] == ["0.1", "0.02", "1"]
    assert (table.header, table.baseline) == ("lr", 0)


def test_a_row_without_any_record_is_still_a_row(tmp_path):
    folder = factory.ablation(tmp_path, ["none", "l1+l2"], skip={("l1+l2", n, s) for n in (0.0, 0.2) for s in range(3)})
    table = build(load(folder))
    assert [r.label for r in table.rows] == ["none", "l1+l2"]
    assert {cell.status for cell in table.cells[1]} == {"missing"}


def test_what_may_not_be_compared_is_neither_tested_nor_best(ablation):
    table = build(load(ablation))
    for line, item in zip(table.cells, table.rows, strict=True):
        for cell, spec in zip(line, table.columns, strict=True):
            norm = item.label == "batch_norm" and spec.metric.startswith("weights/norm/")
            fair = not norm and not (item.label in factory.ALTERED and spec.metric in RAW_MEASURES)
            assert cell.comparable == fair
            if not fair:
                assert cell.difference is None
                assert cell.p is None
    caption = " ".join(table.caption)
    assert "† not comparable" in caption
    assert all(name in caption for name in factory.ALTERED)
    best = build(load(ablation), factory.SPEC | {"columns": [{"label": "λ", "metric": RAW_MEASURES[0],
                 "best": "min", "where": {"data.label_noise": 0.0}}]})  # fmt: skip
    assert [r.label for r, line in zip(best.rows, best.cells, strict=True) if line[0].best] == ["sam"]


def test_a_number_of_parameters_is_no_norm_that_could_not_be_compared(tmp_path):
    for strategy in ("none", "batch_norm"):
        for seed in range(2):
            item = factory.record(strategy, 0.0, seed)
            item["metrics"] |= {"weights/norm/params": 15210.0}
            factory.leave(tmp_path, item)
    columns = [{"label": name, "metric": f"weights/norm/{name}"} for name in ("params", "l2")]
    table = build(load(tmp_path), {"rows": ["regularization"], "baseline": ["none"], "columns": columns})
    row = next(index for index, row in enumerate(table.rows) if row.label == "batch_norm")
    assert [cell.comparable for cell in table.cells[row]] == [True, False]
    (marked,) = [text for text in table.caption if "†" in text]  # though no column is of a raw measure
    assert marked.startswith("† not comparable with the other rows")
    assert "batch_norm: " in marked


def test_a_spec_that_names_what_runs_do_not_have_is_refused_before_they_train():
    config, choices = {"data": {"label_noise": 0}, "seed": 0}, {"regularization": ["l2"]}
    check({"rows": ["regularization"], "columns": [{**ACCURACY, "where": {"data.label_noise": 0}}]}, config, choices)
    check(None, config, choices)
    with pytest.raises(ValueError, match=r"'regularisation' is neither a group nor a setting.*'regularization'"):
        check({"rows": ["regularisation"]}, config, choices)
    with pytest.raises(ValueError, match=r"'data\.noise'"):
        check({"columns": [{**ACCURACY, "where": {"data.noise": 0}}]}, config, choices)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"colums": []}, "unknown key 'colums'; did you mean 'columns'"),
        ({"rows": "regularization"}, "must be lists"),
        ({"columns": [{"label": "a"}]}, "needs label and metric"),
        ({"columns": [{**ACCURACY, "bset": "max"}]}, "unknown key 'bset'; did you mean 'best'"),
        ({"columns": [{**ACCURACY, "best": "high"}]}, "must be max, min or null, got 'high'"),
        ({"columns": [{**ACCURACY, "where": {"data.nose": 1}}]}, "setting 'data.nose', which no run has"),
        ({"rows": ["regularisation"]}, r"setting 'regularisation'.*accepted: a group \(data"),
        ({"rows": ["regularization"], "baseline": ["a", "b"]}, "one value for each"),
    ],
)
def test_a_malformed_spec_is_refused_in_one_line(ablation, spec, match):
    with pytest.raises(ValueError, match=match) as error:
        build(load(ablation), spec)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("wild", "said"), [(1e308, "1.00e+308"), (-1e308, "-1.00e+308"), (10**400, None)])
def test_a_number_too_large_to_be_averaged_spoils_its_own_cell(tmp_path, wild, said):
    def change(item):
        if item["choices"]["regularization"] and item["seed"] == 1:
            item["metrics"]["test/performance/accuracy"] = item["seconds"]["fit"] = wild
            item["history"] = None
        return item

    columns = [ACCURACY, {"label": "gap", "metric": "test/gap/accuracy"}, {"label": "s", "metric": "seconds.fit"}]
    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,), spec={"columns": columns}, change=change)
    table = build(load(folder))
    assert [[cell.status for cell in line] for line in table.cells] == [["", "", ""], ["n=2/3", "", "n=2/3"]]
    reason = f"{said} is too large to be averaged" if said else "the value is beyond what a float holds"
    assert table.notes == [f"seed 1: {reason}"]
    assert all(point.record["metrics"]["test/performance/accuracy"] != wild for point in points(load(folder)))


def test_columns_of_nothing_are_left_out_with_one_note(tmp_path):
    metrics = ("test/other", "train/flatness/trace", "test/performance/accuracy", "test/another")
    columns = [{"group": "G" * (metric != "test/performance/accuracy"), "label": metric[-5:], "metric": metric}
               for metric in metrics]  # fmt: skip

    def change(item):
        item["metrics"]["train/flatness/trace"] = None
        item["notes"]["train/flatness/trace"] = "undefined: the loss is not twice differentiable"
        return item

    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,), range(2), {"columns": columns}, change=change)
    table = build(load(folder))
    assert [c.label for c in table.columns] == ["uracy"]
    assert table.notes == []
    assert table.caption[-1] == (
        "Columns without any value are left out: G other and other; "
        "G trace: undefined: the loss is not twice differentiable."
    )
    half = change(factory.record("l1", 0.0, 1))  # one value is enough
    factory.leave(folder, half | {"metrics": half["metrics"] | {"test/other": 1.0}})
    assert [c.label for c in build(load(folder)).columns] == ["other", "uracy"]


CAPTION = {"rows": ["regularization"], "caption": "2000 steps in every row.", "columns": [ACCURACY]}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["experiment=ablation", "trainer.max_steps=50"], ["Changed by the command: trainer.max_steps=50."]),
        # no number of this table, or shown by its rows
        (["experiment=a", "hydra/launcher=packed", "-cd", "conf", "name=b", "logger=csv", "seed=range(3)",
          "regularization=none,l1"], []),
        (["experiment=a", "data=digits", "+model.width=3", "~scheduler"],
         ["Changed by the command: data=digits, +model.width=3, ~scheduler."]),
    ],
)  # fmt: skip
def test_a_caption_says_what_the_command_changed(tmp_path, command, said):
    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,), range(2), CAPTION)
    records.write_sweep(folder, records.read_sweep(folder) | {"command": command})
    table = build(load(folder))
    assert table.caption[0] == CAPTION["caption"]
    assert [sentence for sentence in table.caption if "Changed" in sentence] == said
    for text in (render.markdown(table), latex(table), html.page(load(folder), table, [], [])):
        assert ("Changed by the command" in text) is bool(said)


def test_a_metric_nobody_measured_is_a_hole_with_its_reason(tmp_path):
    spec = {"rows": ["regularization"], "columns": [{"label": "x", "metric": "test/other"}]}
    table = build(load(factory.toy(tmp_path, {"none": [0.6]}, spec)))
    assert table.cells[0][0].status == "–"
    assert table.notes == ["test/other was not measured"]


def test_rows_without_what_other_rows_have_share_a_note(tmp_path):
    for strategy, measured in (("none", ("a", "b")), ("l1", ())):
        item = factory.record(strategy, 0.0, 0)
        item["metrics"] |= {f"test/{name}": 1.0 for name in measured}
        factory.leave(tmp_path, item)
    columns = [{"label": name, "metric": f"test/{name}"} for name in ("a", "b", "c")]
    table = build(load(tmp_path), {"rows": ["regularization"], "columns": columns})
    assert table.notes == ["not measured in this row"]
    assert [[cell.notes for cell in line] for line in table.cells] == [[(), ()], [(0,), (0,)]]
    assert "Columns without any value are left out: c." in table.caption


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no runs to show"):
        build(load(tmp_path))


def test_a_running_run_is_said_to_run(tmp_path):
    from filelock import FileLock

    folder = factory.toy(tmp_path, {"none": [0.6, 0.7], "l1": [0.7]})
    target = folder / factory.run_id("l1", 0.0, 1)
    target.mkdir()
    with FileLock(target / ".lock"):
        table = build(load(folder))
    assert table.notes == ["seed 1: still running"]


def test_points_name_rows_and_conditions(ablation):
    found = points(load(ablation))
    assert len(found) == 84
    assert {point.condition for point in found} == {"label noise 0", "label noise 0.2"}
    assert {point.row for point in found if not point.comparable} == set(factory.ALTERED)


def test_text_that_is_shared_is_cleaned():
    assert clean("a\nb\x1b[31m\u202e c") == "a b[31m c"
    assert clean("cannot read /home/ann/runs/x.pt: no") == "cannot read …/x.pt: no"
    assert clean("~/secret/key.pem") == "…/key.pem"
    assert clean("train/flatness/lambda_1 and https://example.org/a/b") == (
        "train/flatness/lambda_1 and https://example.org/a/b"
    )


def test_the_numbers_of_a_table_are_finite(holes):
    for line in build(load(holes)).cells:
        for cell in line:
            numbers = [cell.p, *cell.values.values()]
            for part in (cell.mean, cell.difference):
                numbers += [part.value, part.half_width] if part else []
            assert all(math.isfinite(value) for value in numbers if value is not None)


def test_the_plan_carries_the_spec(ablation):
    spec = json.loads((ablation / "sweep.json").read_text())["table"]
    assert Column(**spec["columns"][0]).title == "test acc. (%), clean"


def test_seconds_of_packed_runs_are_shares_and_tested_against_nothing(tmp_path):
    values = {"none": [0.60, 0.70, 0.65], "l2": [0.70, 0.65, 0.75]}
    spec = {
        "rows": ["regularization"],
        "baseline": ["none"],
        "columns": [ACCURACY, {"label": "seconds", "metric": "seconds.fit"}],
    }
    apart, together = tmp_path / "apart", tmp_path / "together"
    build_of = {}
    for folder, lanes in ((apart, 1), (together, 6)):

        def change(item, lanes=lanes):
            item["provenance"]["lanes"] = lanes
            return item

        factory.ablation(folder, list(values), (0.0,), range(3), spec, set(), change)
        build_of[folder] = build(load(folder))
    for folder, tested in ((apart, True), (together, False)):
        table = build_of[folder]
        cells = table.cells[row(table, "l2")]
        assert cells[0].difference is not None
        assert (cells[1].difference is not None) is tested
        assert any("equal shares of the pack's time" in text for text in table.caption) is not tested


def test_what_is_said_of_a_whole_column_stands_in_the_caption(tmp_path):
    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,), range(2))
    few = "on 1,024 of 3,600 train examples, a random subset"
    for path in folder.glob("*/record.json"):
        record = records.read(path)
        for name in ("lambda_1", "trace"):
            record["notes"][f"train/flatness/{name}"] = few
        if record["choices"]["regularization"] == ["l1"]:
            record["notes"]["weights/norm/l2"] = "of low-rank factors"
        records.write(path.parent, record)
    table = build(load(folder))
    assert f"λ₁ and trace: {few}." in table.caption
    assert few not in table.notes
    letter = table.notes.index("of low-rank factors")
    columns = [column.label for column in table.columns]
    assert [columns[i] for i, cell in enumerate(table.cells[1]) if letter in cell.notes] == ["norm"]


def test_runs_of_a_cell_that_diverged_at_several_steps_share_a_note(tmp_path):
    for noise, steps in ((0.0, [125, 40, 2271]), (0.2, [None, 7, 9]), (0.4, [None, 3, None])):
        for seed, step in enumerate(steps):
            item = factory.record("none", noise, seed)
            if step is not None:
                item = factory.failed(item, "diverged", f"diverged at step {step}: the training loss is not finite")
            factory.leave(tmp_path, item)
    table = build(load(tmp_path), {"rows": ["data.label_noise"], "columns": [ACCURACY]})
    assert [[table.notes[index] for index in cell.notes] for (cell,) in table.cells] == [
        ["diverged at steps 40 to 2271: the training loss is not finite"],
        ["seeds 1, 2: diverged at steps 7 to 9: the training loss is not finite"],
        ["seed 1: diverged at step 3: the training loss is not finite"],
    ]
    assert [cell.status for (cell,) in table.cells] == ["diverged", "n=1/3", "n=2/3"]


def test_a_list_of_values_chooses_the_runs_that_have_one_of_them(tmp_path):
    """As in a figure and in a claim; it matched no run."""
    factory.ablation(tmp_path, ["none", "l2", "sam"], (0.0, 0.2, 0.4), (0, 1))
    column = {"label": "accuracy", "metric": "test/performance/accuracy", "where": {"data.label_noise": 0.2}}
    spec = {"where": {"regularization": ["none", "sam"], "data.label_noise": [0.2, 0.4]}, "columns": [column]}
    table = build(load(tmp_path), {**spec, "rows": ["regularization"]})
    assert [row.label for row in table.rows] == ["none", "sam"]
    assert all(line[0].mean.n == 2 for line in table.cells)


def test_settings_that_no_run_has_are_named(ablation):
    """The table without rows ended in an error about zip()."""
    message = r"^table: no run has the settings \{'data.label_noise': 0.3\} of where; accepted: those of some runs$"
    with pytest.raises(ValueError, match=message):
        build(load(ablation), {"where": {"data.label_noise": 0.3}, "columns": [ACCURACY]})
