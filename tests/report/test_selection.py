import shutil

import pytest

from genbench import records
from genbench.report.figures import custom, style
from genbench.report.selection import load
from genbench.report.spec import curves_of
from genbench.report.table import build, points
from tests.helpers import factory


def test_a_table_shows_the_last_command_and_says_what_else_lies_there(tmp_path):
    folder = factory.toy(tmp_path, {"none": [0.6, 0.7]})
    other = factory.record("none", 0.0, 2)
    other["config"]["optimizer"]["lr"] = 0.1
    for number in range(2):
        factory.leave(folder, {**other, "run_id": f"aaaaaaaaaaa{number}"})
        table = build(load(folder))
        assert [cell.planned for line in table.cells for cell in line] == [2]
        runs = "1 run of another command" if number == 0 else "2 runs of other commands"
        assert table.problems == [f"{runs} in this folder; genbench-table --all shows all"]
        assert {point.record["config"]["optimizer"]["lr"] for point in points(load(folder))} == {0.005}


def test_an_old_failure_outside_the_plan_is_left_out_and_named(tmp_path):
    folder = factory.toy(tmp_path, {"none": [0.6, 0.7]})
    old = factory.failed(factory.record("none", 0.0, 5), "failed", "ValueError: lr")
    old["config"]["optimizer"]["lr"] = 9.0
    factory.leave(folder, {**old, "run_id": "dddddddddddd"})
    table = build(load(folder, everything=True))
    assert table.cells[0][0].planned == 2
    assert any("dddddddddddd" in problem and "ValueError: lr" in problem for problem in table.problems)


def with_code(record, code, finished):
    return {
        **record,
        "run_id": factory.run_id(record["run_id"], code),
        "provenance": {**record["provenance"], "code": code, "finished": finished},
    }


def test_the_newest_code_of_a_configuration_is_shown_and_the_rest_is_counted(tmp_path):
    """Of two versions of the user's code the later is shown; genbench's own methods have only one."""
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
    assert [line for line in table.problems if "code" in line] == ["3 runs of earlier code"]


def test_a_measures_seed_of_0_is_not_the_runs(tmp_path):
    """If one seed trained again with new code, the earlier code of the other seeds is left out too."""
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


SOURCE = "regularization.transfer.source"


def transferred(folder, sources):
    """Write two runs from each source: (name as typed, digest)."""
    spec = {"rows": [SOURCE], "columns": [factory.ACCURACY]}
    runs = []
    for i, (typed, digest) in enumerate(sources):
        for seed in (0, 1):
            item = factory.record("none", 0.0, seed, run_id=f"{i}{seed}aaaaaaaaaa")
            item["config"]["regularization"] = {"transfer": {"source": digest and f"sha256:{digest}"}}
            factory.leave(folder, item)
            overrides = [f"{SOURCE}={typed}", f"seed={seed}"]
            runs.append({"run_id": item["run_id"], "overrides": overrides})
    plan = {"schema": 2, "experiment": "transfer", "command": [], "table": spec, "runs": runs}
    records.write_sweep(folder, plan)
    return [row.label for row in build(load(folder)).rows]


def test_rows_are_called_by_the_weights_that_they_start_from(tmp_path):
    sources = [("null", None), ("teacher", "aa"), ("nets/teacher.pt", "bb"), ("runs/source/1ea98c14e70e", "cc")]
    assert transferred(tmp_path, sources) == ["none", "teacher", "teacher.pt", "source/1ea98c14e70e"]
    (folder := tmp_path / "again").mkdir()
    # one name of two networks, as of a source that was trained again, is none
    assert transferred(folder, [("teacher", "aa"), ("teacher", "bb"), ("other", "cc")]) == [
        "sha256:aa",
        "sha256:bb",
        "other",
    ]


@pytest.mark.parametrize("source", ["teacher.pt", "sha256:bb"])
def test_a_spec_names_weights_as_the_table_does_or_by_their_digest(tmp_path, source):
    transferred(tmp_path, [("null", None), ("nets/teacher.pt", "bb"), ("nets/other.pt", "cc")])
    selection = load(tmp_path)
    column = factory.ACCURACY | {"where": {SOURCE: source}}
    table = build(selection, {"rows": [SOURCE], "columns": [column], "baseline": [source]})
    assert [row.label for row in table.rows] == ["none", "teacher.pt", "other.pt"]
    assert [[cell.planned for cell in line] for line in table.cells] == [[0], [2], [0]]
    assert table.baseline == 1
    assert build(selection, {"rows": [SOURCE], "columns": [factory.ACCURACY], "baseline": source}).baseline == 1
    metric = factory.ACCURACY["metric"]
    figure = {"name": "f", "title": "f", "x": "seed", "y": metric, "lines": [SOURCE], "where": {SOURCE: [source]}}
    with style.context():
        (curve,) = curves_of([figure])
        drawn = custom.draw(curve, points(selection))
        assert [text.get_text() for text in drawn.figure.legends[0].texts] == ["teacher.pt"]


def test_a_run_that_is_missing_is_in_the_row_of_its_weights(tmp_path):
    transferred(tmp_path, [("nets/teacher.pt", "bb"), ("nets/other.pt", "cc")])
    shutil.rmtree(next(tmp_path.glob("01*")))
    table = build(load(tmp_path))
    assert [row.label for row in table.rows] == ["teacher.pt", "other.pt"]
    assert [[(cell.planned, cell.status) for cell in line] for line in table.cells] == [[(2, "n=1/2")], [(2, "")]]
