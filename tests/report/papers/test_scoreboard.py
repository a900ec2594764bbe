"""What the scoreboard says of experiments, runs and claims."""

from dataclasses import replace

import pytest
import yaml

from genbench.report import load, render
from genbench.report.model import VerdictRow
from genbench.report.papers import scoreboard
from genbench.report.papers.experiments import Experiment
from tests.helpers.papers import EXPERIMENT, NAME, runs

NODE = yaml.safe_load(EXPERIMENT)


def entry(path, figures=None, selection=None):
    table = {**NODE["table"], **({} if figures is None else {"figures": figures})}
    nodes = {**{key: NODE[key] for key in ("name", "claims", "paper")}, "table": table}
    return scoreboard.Entry(Experiment(NAME, path / f"{NAME}.yaml", 20, nodes), "laptop", None, selection)


def test_a_claim_is_shown_by_the_figures_of_its_metrics_or_else_by_all(tmp_path):
    figures = [
        {"name": "norms", "title": "Norms", "x": "data.label_noise", "y": "weights/norm/l2"},
        {"name": "errors", "title": "Errors", "y": "test/trajectory/error_at_*"},
    ]
    shown = entry(tmp_path, figures)
    assert [curve.name for curve in shown.curves_of("shrinks")] == ["norms"]
    assert [curve.name for curve in entry(tmp_path, figures[1:]).curves_of("shrinks")] == ["errors"]
    rules = shown.experiment.nodes["claims"]["rules"]
    changed = {**rules, "shrinks": {**rules["shrinks"], "metric": "test/trajectory/error_at_100"}}
    shown.experiment.nodes["claims"] = {"rules": changed}
    assert [curve.name for curve in shown.curves_of("shrinks")] == ["errors"]


def test_claims_are_counted_by_verdict(tmp_path):
    run = entry(tmp_path, selection=load(runs(tmp_path / "runs")))
    assert scoreboard.counted([run]) == "2 replicated, 1 not replicated"
    assert scoreboard.counted([run, entry(tmp_path)]) == "2 replicated, 1 not replicated, 3 not run"
    assert scoreboard.counted([]) == "no claims"


def test_claims_of_companions_are_counted_by_their_paper(tmp_path):
    chosen = entry(tmp_path, selection=load(runs(tmp_path / "runs")))
    nodes = chosen.experiment.nodes
    paper = {**nodes["paper"], "companions": {"Other 2021": ["grows", "positive"]}}
    several = replace(chosen, experiment=replace(chosen.experiment, nodes={**nodes, "paper": paper}))
    assert chosen.counts == "2 replicated, 1 not replicated"
    assert several.counts == "1 replicated; Other 2021: 1 replicated, 1 not replicated"


def test_theorems_are_counted_apart(tmp_path):
    run = entry(tmp_path, selection=load(runs(tmp_path / "runs")))
    rules = NODE["claims"]["rules"]
    run.experiment.nodes["claims"] = {
        **NODE["claims"],
        "rules": {**rules, "positive": {**rules["positive"], "theorem": True}},
    }
    assert scoreboard.counted([run]) == "1 replicated, 1 not replicated, and 1 theorem holds"
    assert scoreboard.counted([run, run]) == "2 replicated, 2 not replicated, and 2 theorems hold"
    other = {**rules["positive"], "theorem": True, "than": 100}
    nodes = {**run.experiment.nodes, "claims": {**NODE["claims"], "rules": {"positive": other}}}
    violated = replace(run, experiment=replace(run.experiment, nodes=nodes))
    assert scoreboard.counted([violated]) == "1 theorem violated"


def test_claims_are_judged_by_the_rules_that_stand_in_the_experiment_now(tmp_path):
    """A folder's own copy of the rules does not count."""
    run = entry(tmp_path, selection=load(runs(tmp_path / "runs")))
    rules = NODE["claims"]["rules"]
    eased = {**rules, "grows": {**rules["grows"], "margin": -5}}
    run.experiment.nodes["claims"] = {**NODE["claims"], "rules": eased}
    words = {row.claim: row.finding for row in run.verdicts}["grows"]
    assert words.startswith("40 of 40 runs were trained under another rule")


def test_a_command_that_registered_no_claims_gets_no_verdict(tmp_path):
    """Nobody compared its settings with those of the file."""
    selection = load(runs(tmp_path / "runs"))
    run = entry(tmp_path, selection=replace(selection, sweep={**selection.sweep, "claims": None}))
    assert scoreboard.counted([run]) == "3 undecided"
    assert {row.finding.partition(";")[0] for row in run.verdicts} == {
        "the last command registered no claims, so that no verdict stands"
    }


def test_a_rule_of_several_parts_is_told_with_numbers():
    given = dict.fromkeys(VerdictRow.__dataclass_fields__)
    row = VerdictRow(
        **given | {"rule": "b exceeds 1; and ab exceeds 1", "finding": "b exceeds 1: 2; ab exceeds 1: 3: neither"}
    )
    assert render.numbered(row) == (["(1) b exceeds 1", "(2) and ab exceeds 1"], "(1) 2; (2) 3: neither")
    missing = replace(row, finding="1 run is missing (seed 1)")
    assert render.numbered(missing)[1] == "1 run is missing (seed 1)"
    assert render.numbered(replace(row, rule="b exceeds 1 and c"))[0] == ["b exceeds 1 and c"]
    paired = ["(1) b exceeds 1: 2", "(2) and ab exceeds 1: 3"]
    assert render.paired(replace(row, measured="b exceeds 1: 2; ab exceeds 1: 3")) == (paired, "neither")
    for measured in ("", "b exceeds 1: 2", "1 run is missing (seed 1)"):  # then nothing is told of each part
        assert render.paired(replace(row, measured=measured)) == render.numbered(row)


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (scoreboard.Cost("a", "laptop", 1), "1 run, not measured"),
        (
            scoreboard.Cost("a", "laptop", 1200, 700.0, 1200, "cpu, threads=1"),
            "1,200 runs, trained and measured in 12 min of one process (cpu, threads=1)",
        ),
        (
            scoreboard.Cost("a", "laptop", 20, 7000.0, 1200, "cpu, threads=1"),
            "20 runs; 1,200 were trained and measured in 1.9 h of one process (cpu, threads=1)",
        ),
    ],
)
def test_a_cost_says_what_was_measured(cost, said):
    assert str(cost) == said
