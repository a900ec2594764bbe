import pytest

from genbench.report.figures import sweep
from genbench.report.selection import load
from genbench.report.table import build, points
from tests.helpers import factory
from tests.helpers.factory import ACCURACY


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
    # 0.01 validates best, 0.1 tests best; 1.0 looks best but has lost a run
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
        # 0.2 is best by less than rounding, so that 0.1 ties with it; 0.3 is worse at every seed
        "l1": {0.1: [(0.4, 0.5), (0.6, 0.5)], 0.2: [(0.4 + 1e-8, 0.9), (0.6, 0.9)], 0.3: [(0.1, 0.1), (0.31, 0.1)]},
        # the chosen setting beats the others at every seed, by different amounts
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


def test_conditions_choose_apart(tmp_path):
    """Noisy labels want another strength than clean ones."""
    tried = {
        "none": TRIED["none"],
        "l1": {0.1: [(0.9, 0.5), (0.9, 0.5)], 0.2: [(0.1, 0.9), (0.1, 0.9)]},
        "l2": {0.1: [(0.7, 0.61), (0.8, 0.71)], 0.2: [(0.6, 0.9), (0.7, 0.8)]},
    }
    rule = {"metric": "val/performance/accuracy", "best": "max", "apart": True}
    spec = ladder(tmp_path, tried, rule=rule)
    for item in load(tmp_path).records:
        if item["config"]["data"]["label_noise"] == 0.2:
            item["config"]["model"]["depth"] += 1
            if item["choices"]["regularization"] == ["l2"]:
                item["metrics"]["val/performance/accuracy"] *= -1
            factory.leave(tmp_path, item)
    table = build(load(tmp_path), spec)
    shown = {
        r.label: [round(cell.mean.value, 6) for cell in line] for r, line in zip(table.rows, table.cells, strict=True)
    }
    assert shown == {"none": [0.55, 0.55], "l1": [0.5, 0.5], "l2": [0.66, 0.85]}
    notes = {r.title: [table.notes[i] for i in r.notes] for r in table.rows}
    assert notes == {
        "none": [],
        "l1 (strength 0.1)": ["its setting is the smallest tried"],
        "l2": ["strength 0.1 (label noise 0); strength 0.2 (label noise 0.2)"],  # the depth was not tried
    }
    assert any("over seeds, in each condition apart, of the 2 tried" in text for text in table.caption)
    assert {p.chosen for p in points(load(tmp_path), spec) if p.row == "l2"} == {True, False}


@pytest.mark.parametrize(
    "rule",
    [
        "accuracy",
        {"metric": "m"},
        {"metric": "m", "best": "most"},
        {"best": "max"},
        {"metric": "m", "best": "max", "apart": 1},
        {"metric": "m", "best": "max", "each": True},
    ],
)
def test_a_malformed_rule_is_refused_in_one_line(tmp_path, rule):
    spec = ladder(tmp_path, {"none": TRIED["none"]}) | {"choose": rule}
    with pytest.raises(
        ValueError, match=r"^table: choose is .*accepted: \{metric: a metric, best: max or min, apart: "
    ):
        build(load(tmp_path), spec)
