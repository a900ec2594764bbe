"""A further table of sign errors: its numbers by a plain loop over pairs, and what its spec refuses."""

import itertools
import math

import numpy as np
import pytest

from genbench.report import html, render
from genbench.report.latex import latex
from genbench.report.selection import Selection, of_record
from genbench.report.spec import check
from genbench.report.table import build
from tests.helpers import factory

GAP, LOSS, NORM, SHARP = (
    "test/gap/accuracy", "train/performance/cross_entropy", "weights/norm/l2", "train/flatness/lambda_1"
)  # fmt: skip
AXES = {"data.label_noise": "label noise", "model.width": "width"}
ASKED = {"gap": GAP, "test_size": 10_000, "axes": AXES, "measures": {NORM: "norm", SHARP: "λ₁"}}
SPEC = {
    "rows": ["data.label_noise"],
    "columns": [{**factory.ACCURACY, "where": {"model.width": 50}}],
    "further": [{"title": "Errors", "caption": "Of this grid.", "sign_errors": ASKED}],
}


def selection():
    runs = []
    draw = np.random.default_rng(0)
    for noise, width, seed in itertools.product((0.0, 0.2, 0.4), (50, 100), range(6)):
        made = factory.record(noise=noise, seed=seed, run_id=factory.run_id(noise, width, seed))
        made["config"]["model"]["width"] = width
        made["metrics"] |= {
            GAP: 0.1 + 0.5 * noise + 0.0005 * width + draw.normal(0, 0.03),
            NORM: width + 10 * noise + draw.normal(0, 3),
            SHARP: draw.normal(50, 5),
            LOSS: 0.009 if seed < 5 else 0.02,
        }
        runs.append(of_record(made))
    return Selection("errors", runs, sweep={"command": [], "table": SPEC, "runs": []})


def by_loop(runs, axis, measure):
    """The sign error of each pair of values of an axis, by two loops over runs (Dziugaite et al. 2020)."""
    other = next(name for name in AXES if name != axis)
    errors, weights = {}, {}
    for one, two in itertools.permutations(runs, 2):
        a, b = one.config[axis], two.config[axis]
        if a >= b or one.config[other] != two.config[other]:
            continue
        gap = one.record["metrics"][GAP] - two.record["metrics"][GAP]
        moved = one.record["metrics"][measure] - two.record["metrics"][measure]
        weight = max(0, max(0, 1 - 2 * math.exp(-10_000 * gap**2 / 2)) ** 2 - 0.5)
        errors[a, b] = errors.get((a, b), 0) + weight * (1 - np.sign(gap) * np.sign(moved)) / 2
        weights[a, b] = weights.get((a, b), 0) + weight
    return [errors[pair] / weights[pair] for pair in errors]


def test_means_and_percentiles_are_those_of_a_plain_loop():
    runs = selection().runs
    (table,) = build(selection(), SPEC).further
    assert [column.label for column in table.columns] == ["label noise", "width", "mean", "90th percentile"]
    assert [row.label for row in table.rows] == ["norm", "λ₁"]
    for line, measure in zip(table.cells, (NORM, SHARP), strict=True):
        along = [by_loop(runs, axis, measure) for axis in AXES]
        every = [*itertools.chain(*along)]
        expected = [*map(np.mean, along), np.mean(every), np.quantile(every, 0.9)]
        assert [cell.mean.value for cell in line] == pytest.approx(expected, abs=1e-12)
    assert table.cells[0][0].mean.value < table.cells[1][0].mean.value


def test_runs_that_were_not_fitted_are_left_out_and_counted():
    spec = {**SPEC, "further": [{"sign_errors": {**ASKED, "within": {LOSS: [0.008, 0.01]}}}]}
    (table,) = build(selection(), spec).further
    fitted = [run for run in selection().runs if run.record["metrics"][LOSS] < 0.01]
    assert table.cells[1][0].mean.value == pytest.approx(np.mean(by_loop(fitted, "data.label_noise", SHARP)), abs=1e-12)
    assert f"6 of 36 runs are left out, without {LOSS} in [0.008, 0.01]." in table.caption


def test_a_measure_without_values_says_so():
    found = selection()
    for run in found.runs:
        run.record["metrics"][SHARP] = None
    (table,) = build(found, SPEC).further
    assert [cell.status for cell in table.cells[1]] == ["–"] * 4
    assert table.notes == ["no value in 36 of 36 runs, whose pairs are left out"]
    assert table.rows[1].notes == (0,)


def test_published_values_stand_beside_with_their_source():
    node = {"sign_errors": {**ASKED, "published": {"mean": {"λ₁": 0.25}, "width": {"norm": 1}}}}
    spec = {**SPEC, "further": [{**node, "source": "somebody 2021", "third_party": True}]}
    table = build(selection(), spec)
    for text in (render.markdown(table), latex(table), html.page(selection(), table, [], [])):
        assert "somebody 2021 (third party: not read in the source itself)" in text.replace("\\_", "_")
        assert "0.25" in text
    assert "[0.25]" in render.markdown(table)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"sign_errors": 3}, "sign_errors is 3; accepted: settings, with measures, axes, gap, test_size"),
        ({"sign_errors": {**ASKED, "measures": {}}}, "accepted: settings, with measures"),
        ({"sign_errors": {**ASKED, "measures": [NORM]}}, r"measures is \[.*; accepted: names, and how they are shown"),
        ({"sign_errors": {**ASKED, "ax": 1}}, "unknown key 'ax'; did you mean 'axes'"),
        ({"sign_errors": ASKED, "rows": ["model"]}, "unknown key 'rows'"),
        ({"sign_errors": {**ASKED, "test_size": -1}}, "test_size is -1"),
        ({"sign_errors": {**ASKED, "within": {LOSS: 0.01}}}, f"within of {LOSS} is 0.01; accepted: the least and"),
        ({"sign_errors": {**ASKED, "published": {"mean": {"norms": 1}}}}, "names 'norms'; did you mean 'norm'"),
        ({"sign_errors": {**ASKED, "published": {"means": {"norm": 1}}}}, "names 'means'; did you mean 'mean'"),
        ({"sign_errors": {**ASKED, "published": {"mean": {"norm": 1}}}}, "published values need their source"),
        ({"sign_errors": {**ASKED, "axes": {"data.lable_noise": "x"}}}, "'data.lable_noise' is neither a group"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_runs_train(node, message):
    with pytest.raises(ValueError, match=message):
        check({"further": [node]}, {"data": {"label_noise": 0.2}, "model": {"width": 1}}, {"model": "mlp"})


def test_a_metric_that_no_run_has_is_named():
    spec = {**SPEC, "further": [{"sign_errors": {**ASKED, "measures": {"weights/norm/l3": "norm"}}}]}
    with pytest.raises(ValueError, match="weights/norm/l3"):
        build(selection(), spec)
