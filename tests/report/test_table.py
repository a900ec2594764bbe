import json
import math

import pytest
from scipy import stats

from genbench import records
from genbench.privacy import clean
from genbench.report import html, render
from genbench.report.figures import sweep
from genbench.report.latex import latex
from genbench.report.model import Column
from genbench.report.selection import load
from genbench.report.spec import RAW_MEASURES, check
from genbench.report.table import build, points
from tests.helpers import factory

ACCURACY = {"label": "acc", "metric": "test/performance/accuracy"}


def column(table, label, group=None):
    return next(i for i, c in enumerate(table.columns) if c.label == label and group in (None, c.group))


def row(table, label):
    return next(i for i, r in enumerate(table.rows) if r.label == label)


def toy(folder, values, spec=None, **kwargs):
    """Clean runs whose test accuracy is ``values[strategy][seed]``."""
    seeds = range(max(map(len, values.values())))

    def change(item):
        name = "+".join(item["choices"]["regularization"]) or "none"
        item["metrics"]["test/performance/accuracy"] = values[name][item["seed"]]
        return item

    spec = spec or {"rows": ["regularization"], "baseline": ["none"], "columns": [{**ACCURACY, "best": "max"}]}
    skip = {(name, 0.0, seed) for name, found in values.items() for seed in seeds if seed >= len(found)}
    return factory.ablation(folder, list(values), (0.0,), seeds, spec, skip | set(kwargs.pop("skip", ())), change)


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
    table = build(load(toy(tmp_path, values)))
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
    """Each run's text is another one: a footnote a seed would bury the table. All else that is said stands."""
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


def test_one_seed_has_no_interval_and_no_test(tmp_path):
    table = build(load(toy(tmp_path, {"none": [0.6], "l1": [0.7]})))
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
    table = build(load(toy(tmp_path, values)))
    assert table.cells[1][0].difference.value == pytest.approx(0.015)
    assert table.cells[1][0].difference.n == 2
    assert table.cells[0][0].status == "n=2/3"


def test_two_configurations_in_one_cell_are_refused_with_their_difference(tmp_path):
    folder = toy(tmp_path, {"none": [0.6, 0.7]})
    other = factory.record("none", 0.0, 2)
    other["config"]["optimizer"]["lr"] = 0.1
    factory.leave(folder, {**other, "run_id": "aaaaaaaaaaaa"})
    with pytest.raises(ValueError, match=r"row 'none' mixes configurations: optimizer\.lr is .*0\.1.*name=") as error:
        build(load(folder, everything=True))
    assert "0.005" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_seed_twice_is_refused(tmp_path):
    folder = toy(tmp_path, {"none": [0.6, 0.7]})
    factory.leave(folder, {**factory.record("none", 0.0, 1), "run_id": "bbbbbbbbbbbb"})
    with pytest.raises(ValueError, match=r"seed 1 twice .*bbbbbbbbbbbb"):
        build(load(folder, everything=True))


def test_a_table_shows_the_last_command_and_says_what_else_lies_there(tmp_path):
    folder = toy(tmp_path, {"none": [0.6, 0.7]})
    other = factory.record("none", 0.0, 2)
    other["config"]["optimizer"]["lr"] = 0.1
    for number in range(2):
        factory.leave(folder, {**other, "run_id": f"aaaaaaaaaaa{number}"})
        table = build(load(folder))
        assert [cell.planned for line in table.cells for cell in line] == [2]
        runs = "1 run of another command" if number == 0 else "2 runs of other commands"
        assert table.problems == [f"{runs} in this folder; genbench-table --all shows all"]
        assert {point.record["config"]["optimizer"]["lr"] for point in points(load(folder))} == {0.005}


def test_a_setting_that_follows_the_seed_is_no_difference_but_a_stray_one_is(tmp_path):
    folder = toy(tmp_path, {"none": [0.6, 0.7]})  # data.seed equals seed in every record
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


def test_an_old_failure_outside_the_plan_is_left_out_and_named(tmp_path):
    folder = toy(tmp_path, {"none": [0.6, 0.7]})
    old = factory.failed(factory.record("none", 0.0, 5), "failed", "ValueError: lr")
    old["config"]["optimizer"]["lr"] = 9.0
    factory.leave(folder, {**old, "run_id": "dddddddddddd"})
    table = build(load(folder, everything=True))
    assert table.cells[0][0].planned == 2
    assert any("dddddddddddd" in problem and "ValueError: lr" in problem for problem in table.problems)


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


def test_a_spec_that_names_what_runs_do_not_have_is_refused_before_they_train():
    config, choices = {"data": {"label_noise": 0}, "seed": 0}, {"regularization": ["l2"]}
    check({"rows": ["regularization"], "columns": [{**ACCURACY, "where": {"data.label_noise": 0}}]}, config, choices)
    check(None, config, choices)
    with pytest.raises(ValueError, match=r"'regularisation' is neither a group nor a setting.*'regularization'"):
        check({"rows": ["regularisation"]}, config, choices)
    with pytest.raises(ValueError, match=r"'data\.noise'"):
        check({"columns": [{**ACCURACY, "where": {"data.noise": 0}}]}, config, choices)


def test_published_values_stand_beside_and_carry_their_source(tmp_path):
    spec = {
        "rows": ["regularization"],
        "columns": [{**ACCURACY, "published": {"l1": 0.71}, "source": "A. Author 2020"}],
    }
    table = build(load(toy(tmp_path, {"none": [0.6], "l1": [0.7]}, spec)))
    assert [line[0].published for line in table.cells] == [None, "0.71"]
    assert "Published values of acc: A. Author 2020." in table.caption


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"colums": []}, "unknown key 'colums'; did you mean 'columns'"),
        ({"rows": "regularization"}, "must be lists"),
        ({"columns": [{"label": "a"}]}, "needs label and metric"),
        ({"columns": [{**ACCURACY, "bset": "max"}]}, "unknown key 'bset'; did you mean 'best'"),
        ({"columns": [{**ACCURACY, "best": "high"}]}, "must be max, min or null, got 'high'"),
        ({"columns": [{**ACCURACY, "published": {"none": 1}}]}, "need their source"),
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
    table = build(load(toy(tmp_path, {"none": [0.6]}, spec)))
    assert table.cells[0][0].status == "–"
    assert table.notes == ["test/other was not measured"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no runs to show"):
        build(load(tmp_path))


def test_a_running_run_is_said_to_run(tmp_path):
    from filelock import FileLock

    folder = toy(tmp_path, {"none": [0.6, 0.7], "l1": [0.7]})
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


def ladder(folder, values, rule=None, **settings):
    """``values[strategy][strength][seed]`` = (validation, test accuracy), clean and noisy alike."""
    items = []
    for strategy, strengths in values.items():
        for strength, found in strengths.items():
            for noise in (0.0, 0.2):
                for seed, pair in enumerate(found):
                    item = factory.record(strategy, noise, seed)
                    item["run_id"] = factory.run_id(strategy, strength, noise, seed)
                    if strength is not None:
                        item["config"]["regularization"][strategy]["strength"] = strength
                    if pair is None:
                        item = factory.failed(item, "diverged", "diverged at step 7: the training loss is not finite")
                    else:
                        both = zip(("val", "test"), pair, strict=True)
                        item["metrics"] |= {f"{split}/performance/accuracy": value for split, value in both}
                    items.append(item)
                    factory.leave(folder, item)
    columns = [{**ACCURACY, "label": str(noise), "where": {"data.label_noise": noise}} for noise in (0.0, 0.2)]
    rule = {"metric": "val/performance/accuracy", "best": "max"} if rule is None else rule
    return {"rows": ["regularization"], "baseline": ["none"], "choose": rule, "columns": columns, **settings}


TRIED = {
    "none": {None: [(0.5, 0.5), (0.6, 0.6)]},
    # the validation split likes 0.01 best, the test split 0.1; at 1.0 one run is lost, whose others look best
    "l2": {0.01: [(0.7, 0.61), (0.8, 0.71)], 0.1: [(0.6, 0.9), (0.7, 0.8)], 1.0: [(0.95, 0.95), None]},
    "l1": {0.1: [(0.1, 0.2), (0.1, 0.3)], 0.2: [(0.3, 0.4), (0.3, 0.6)], 10.0: [(0.2, 0.3), (0.2, 0.4)]},
}


def test_a_row_shows_the_setting_that_the_validation_split_chooses(tmp_path):
    spec = ladder(tmp_path, TRIED)
    table = build(load(tmp_path), spec)
    shown = {
        r.label: (r.title, [cell.mean.value for cell in line]) for r, line in zip(table.rows, table.cells, strict=True)
    }
    assert shown["none"] == ("none", pytest.approx([0.55, 0.55]))
    assert shown["l2"] == ("l2 (strength 0.01)", pytest.approx([0.66, 0.66]))
    assert shown["l1"] == ("l1 (strength 0.2)", pytest.approx([0.5, 0.5]))
    assert all(cell.mean.n == cell.planned == 2 for line in table.cells for cell in line)
    lost = "l2, strength 1: 2 of 4 runs have no val/performance/accuracy; excluded from the choice"
    assert table.problems == [lost]
    assert any(
        "the highest mean val/performance/accuracy over seeds and conditions of the 3 tried for its row" in c
        for c in table.caption
    )


def test_the_smallest_may_be_the_best(tmp_path):
    spec = ladder(tmp_path, TRIED, rule={"metric": "val/performance/accuracy", "best": "min"})
    titles = {r.title for r in build(load(tmp_path), spec).rows}
    assert titles == {"none", "l2 (strength 0.1)", "l1 (strength 0.1)"}


def test_a_setting_at_an_end_of_those_tried_and_those_that_validate_as_well_are_noted(tmp_path):
    tried = {
        "none": TRIED["none"],
        # 0.2 is the best by a hair, and by rounding 0.1 is no worse than it; 0.3 is worse at every seed
        "l1": {0.1: [(0.4, 0.5), (0.6, 0.5)], 0.2: [(0.4 + 1e-8, 0.9), (0.6, 0.9)], 0.3: [(0.1, 0.1), (0.31, 0.1)]},
        # the chosen one beats the others at every seed, by different amounts
        "l2": {0.1: [(0.1, 0.1), (0.2, 0.1)], 0.2: [(0.4, 0.5), (0.6, 0.5)], 0.3: [(0.3, 0.1), (0.49, 0.1)]},
    }
    spec = ladder(tmp_path, tried)
    table = build(load(tmp_path), spec)
    notes = {r.title: [table.notes[i] for i in r.notes] for r in table.rows}
    alike = "not significantly different from 1 of its other settings (paired by run, p ≥ 0.05)"
    assert notes == {
        "none": [],
        "l1 (strength 0.1)": ["its setting is the smallest tried", alike],
        "l2 (strength 0.2)": [],
    }


def test_figures_have_every_setting_that_was_tried_and_know_the_chosen_one(tmp_path):
    spec = ladder(tmp_path, TRIED)
    found = points(load(tmp_path), spec)
    assert {p.condition for p in found} == {"label noise 0", "label noise 0.2"}
    key = "regularization.l1.strength"
    assert {(p.setting.get(key), p.chosen) for p in found if p.row == "l1"} == {
        (0.1, False),
        (0.2, True),
        (10.0, False),
    }
    assert {(p.setting.get(key), p.chosen) for p in found if p.row == "none"} == {(None, True)}
    names = [drawing.name for drawing in sweep.draw(load(tmp_path), build(load(tmp_path), spec), found)]
    assert "strengths" in names


def test_without_a_rule_settings_are_not_mixed(tmp_path):
    spec = ladder(tmp_path, TRIED) | {"choose": None}
    with pytest.raises(ValueError, match=r"mixes configurations: regularization\.l[12]\.strength is"):
        build(load(tmp_path), spec)


@pytest.mark.parametrize("rule", ["accuracy", {"metric": "m"}, {"metric": "m", "best": "most"}, {"best": "max"}])
def test_a_malformed_rule_is_refused_in_one_line(tmp_path, rule):
    spec = ladder(tmp_path, {"none": TRIED["none"]}) | {"choose": rule}
    with pytest.raises(ValueError, match=r"^table: choose is .*accepted: \{metric: a metric, best: max or min\}"):
        build(load(tmp_path), spec)


def with_code(record, code, finished):
    return {
        **record,
        "run_id": factory.run_id(record["run_id"], code),
        "provenance": {**record["provenance"], "code": code, "finished": finished},
    }


def test_the_newest_code_of_a_configuration_is_shown_and_the_rest_is_counted(tmp_path):
    """Of two codes the later, seed by seed or not; a row of genbench's own methods has one code alone."""
    for seed in (0, 1, 2):
        factory.leave(tmp_path, factory.record("none", 0.0, seed))
        own = factory.record("mixup", 0.0, seed)
        later = {**own, "metrics": {**own["metrics"], "test/performance/accuracy": 0.25}}
        factory.leave(tmp_path, with_code(own, "aa", f"2026-01-01T00:00:0{seed}+00:00"))
        if seed < 2:
            factory.leave(tmp_path, with_code(later, "bb", f"2026-01-02T00:00:0{seed}+00:00"))
    table = build(load(tmp_path))
    cells = {row.label: line[0] for row, line in zip(table.rows, table.cells, strict=True)}
    assert cells["mixup"].values == {0: 25.0, 1: 25.0}
    assert len(cells["none"].values) == 3
    assert [line for line in table.problems if "code" in line] == ["3 runs of earlier code left out"]


def test_a_measures_seed_of_0_is_not_the_runs(tmp_path):
    """The first seed is trained again with new code: the earlier code of the other seeds is left out too."""
    for seed, code in ((0, "aa"), (1, "aa"), (2, "aa"), (0, "bb")):
        own = factory.record("mixup", 0.0, seed)
        own["config"]["measures"] = {"trace": {"_target_": "genbench.measures.hessian_trace", "seed": 0}}
        factory.leave(tmp_path, with_code(own, code, f"2026-01-0{1 + (code == 'bb')}T00:00:0{seed}+00:00"))
    loaded = records.load(tmp_path)
    left = [record["seed"] for record in loaded.records if record["run_id"] not in records.earlier_code(loaded)]
    assert left == [0]


def test_planned_code_is_the_newest_before_it_has_run(tmp_path):
    own = [factory.record("mixup", 0.0, seed) for seed in (0, 1)]
    for record in own:
        factory.leave(tmp_path, with_code(record, "aa", "2026-01-01T00:00:00+00:00"))
    plan = {
        "experiment": "ablation", "command": [], "table": None, "planned": "2026-01-02T00:00:00+00:00",
        "runs": [
            {
                "run_id": factory.run_id(record["run_id"], "bb"), "code": "bb",
                "overrides": factory.overrides("mixup", 0.0, record["seed"]),
                "configuration": records.configuration(record["config"]),
            }
            for record in own
        ],
    }  # fmt: skip
    records.write_sweep(tmp_path, plan)
    assert len(records.earlier_code(records.load(tmp_path))) == 2
    records.write_sweep(tmp_path, {**plan, "planned": "2025-12-31T00:00:00+00:00"})  # an older plan
    assert not records.earlier_code(records.load(tmp_path))


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
