"""Claims in a user's own experiment, from the file to the verdicts, as a user types the commands."""

import csv
import io
import re
import shutil
from pathlib import Path

import pytest

from genbench import records
from genbench.report import claims
from genbench.report.papers import summary as summaries
from tests.helpers.claims import EXPERIMENT
from tests.helpers.commands import importable, typed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the experiment and its finished sweep."""
    work = tmp_path_factory.mktemp("claims")
    path = work / "conf" / "experiment" / "shrinks.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(EXPERIMENT)
    status, _, err = typed(work, "genbench", "--config-dir", "conf", "experiment=shrinks")
    assert status == 0, err
    return work


@pytest.fixture
def work(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "work")
    return tmp_path / "work"


def genbench(work, *arguments):
    return typed(work, "genbench", "--config-dir", "conf", "experiment=shrinks", *arguments)


def verdicts(work, *arguments):
    """The line of each claim, by its id."""
    status, out, err = typed(work, "genbench-table", "runs/shrinks", "--claims", *arguments)
    assert (status, err) == (0, ""), err
    head, *lines = out.splitlines()
    assert re.split(r"  +", head) == [
        "claim",
        "verdict",
        "n",
        "p for",
        "p against",
        "95 % interval",
        "statement: finding",
    ]
    return {line.split()[0]: line for line in lines}


def test_each_claim_of_an_own_experiment_has_a_verdict(trained):
    found = verdicts(trained)
    shrinks, grows = (re.split(r"  +", found[name]) for name in ("shrinks", "grows"))
    assert (shrinks[1], grows[1]) == ("replicated", "not replicated")
    assert shrinks[2] == grows[2] == "5"
    assert float(shrinks[3]) < 0.01 < float(shrinks[4])
    assert shrinks[3:5] == grows[4:2:-1]
    assert re.fullmatch(
        r"A squared penalty shrinks the weights: mean difference (\S+) \[(\S+), (\S+)\], n = 5", shrinks[6]
    )
    assert shrinks[5] in shrinks[6]
    assert re.split(r"  +", found["positive"])[:6] == ["positive", "replicated", "5", "–", "–", "–"]
    assert found["p:"] == "p: one-sided, after Holm's correction for 2 claims; looks at 5 and 10 seeds, from seed 0."
    assert found["The"] == (
        "The chance of at least one false verdict, of either kind, is at most 10 %: "
        "the rules were registered before all 10 runs, each of which carries their digest."
    )
    assert not any("\x1b" in line for line in found.values())


def test_claims_are_in_the_plan_and_in_the_records_but_not_in_what_identifies_a_run(work):
    folder = work / "runs" / "shrinks"
    block = records.read_sweep(folder)["claims"]
    assert list(block["rules"]) == ["shrinks", "grows", "positive"]
    found = records.load(folder).records
    assert {record["provenance"]["claims"] for record in found} == {block["digest"]}
    assert not any("claims" in record["config"] for record in found)
    status, out, _ = genbench(work, "claims=null", "--dry-run")
    assert (status, out.splitlines()[-1]) == (0, "10 of 10 were there already")


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_metric_that_no_run_will_have_is_refused_before_a_run_trains(tmp_path, words):
    path = tmp_path / "conf" / "experiment" / "shrinks.yaml"
    path.parent.mkdir(parents=True)
    right, wrong = (f"metric: weights/{family}/l2\n      of: {{regularization: none}}" for family in ("norm", "norms"))
    assert right in EXPERIMENT
    path.write_text(EXPERIMENT.replace(right, wrong))
    status, _, err = genbench(tmp_path, *words)
    assert status != 0
    assert err.splitlines()[-1] == (
        "genbench: claims.rules.shrinks: a claim names the metric 'weights/norms/l2', which no run of "
        "regularization=none will have; did you mean 'weights/norm/l2'?"
    )
    assert not (tmp_path / "runs").exists()


def test_a_rule_that_was_changed_after_the_runs_says_so(work):
    path = work / "conf" / "experiment" / "shrinks.yaml"
    path.write_text(path.read_text().replace("    grows:", "      margin: 0.001\n    grows:"))
    status, _, err = genbench(work, "seed=range(6)")
    assert status == 0, err
    assert "12 runs: 2 to train" in err
    found = verdicts(work)
    assert (
        "A squared penalty shrinks the weights: 10 of 12 runs were trained under another rule; mean" in found["shrinks"]
    )
    assert "replicated" in found["shrinks"]


def test_a_command_that_changes_a_rule_gets_no_verdict(work):
    status, _, err = genbench(work, "+claims.rules.shrinks.margin=0.001")
    assert status == 0, err
    found = verdicts(work)
    assert [re.split(r"  +", found[name])[1] for name in ("shrinks", "grows", "positive")] == ["settings changed"] * 3
    change = "claims.rules.shrinks.margin=0.001 where the experiment has –"
    assert found["The"] == f"The command changed settings: {change}."


def test_a_command_that_changes_a_setting_gets_no_verdict_and_the_plain_one_its_own(work):
    status, out, err = genbench(work, "trainer.max_steps=10")
    assert status == 0, err
    change = "trainer.max_steps=10 where the experiment has 20"
    assert f"genbench: no claim gets a verdict: {change}\n" in err
    assert len(re.findall("settings changed", out)) == 3
    found = verdicts(work)
    rows = [re.split(r"  +", found[name]) for name in ("shrinks", "grows", "positive")]
    assert [row[1] for row in rows] == ["settings changed"] * 3
    assert float(rows[0][3]) < 0.01  # what the runs show is said, and decides nothing
    assert found["The"] == f"The command changed settings: {change}."
    assert found["A"] == "A verdict is about the experiment as its file states it."
    page = (work / "runs" / "shrinks" / "table.md").read_text()
    assert page.replace("\\", "").count(change) == 1
    summary = typed(work, "genbench-table", "runs/shrinks", "--summary")[1]
    (work / "summary.csv").write_text(summary)
    block = dict(records.read_sweep(work / "runs" / "shrinks")["claims"])
    del block["changed"]
    again = summaries.read(work / "summary.csv", {"name": "shrinks", "claims": block})
    assert {row.status for row in claims.of_selection(again).rows} == {"settings changed"}
    status, _, err = genbench(work)
    assert status == 0, err
    assert "replicated" in verdicts(work)["shrinks"]
    assert "changed" not in records.read_sweep(work / "runs" / "shrinks")["claims"]


def test_jobs_that_hydra_itself_launches_say_what_the_command_changed(trained, tmp_path):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    changes = ["data.train_size=40", "seed=0", "regularization=none,l2", "hydra/launcher=basic"]
    status, out, err = genbench(tmp_path, *changes)
    assert status == 0, err
    block = records.read_sweep(tmp_path / "runs" / "shrinks")["claims"]
    assert block["changed"] == ["data.train_size=40 where the experiment has 60"]
    assert len(re.findall("settings changed", out)) == 3


def test_a_part_of_the_grid_is_undecided_and_no_other_experiment(trained, tmp_path):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    status, out, err = genbench(tmp_path, "regularization=l2", "seed=0,1")
    assert status == 0, err
    assert "changed" not in records.read_sweep(tmp_path / "runs" / "shrinks")["claims"]
    assert len(re.findall("undecided", out)) == 3


def test_the_experiment_of_the_page_has_a_verdict_on_each_claim(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "own-claim.md").read_text()
    path = tmp_path / "conf" / "experiment" / "shrinks.yaml"
    path.parent.mkdir(parents=True)
    text = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1].replace("name: noise_claims", "name: shrinks")
    text = text.replace("train_size: 1000", "train_size: 120").replace("max_steps: 1000", "max_steps: 6")
    path.write_text(text.replace("model: mlp\n", "model: mlp\n  - override /measures: norms\n"))
    status, _, err = genbench(tmp_path)
    assert status == 0, err
    found = verdicts(tmp_path)
    assert re.split(r"  +", found["better"])[1] in ("replicated", "not replicated", "undecided")
    assert re.split(r"  +", found["bounded"])[1] == "holds"
    assert found["p:"].endswith("for 1 claim; looks at 5, 10 and 20 seeds, from seed 0.")
    assert found["The"].startswith("The chance of at least one false verdict")


def test_seeds_that_are_missing_leave_claims_undecided(work):
    folder = work / "runs" / "shrinks"
    plan = records.read_sweep(folder)["runs"]
    (run,) = [each["run_id"] for each in plan if {"seed=3", "regularization=l2"} <= set(each["overrides"])]
    shutil.rmtree(folder / run)
    found = verdicts(work)
    assert [re.split(r"  +", found[name])[1] for name in ("shrinks", "grows", "positive")] == ["undecided"] * 3
    assert "1 run is missing (seed 3 of regularization=l2)" in found["shrinks"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "claims.rules.shrinks._target_=genbench.claims.rules.Diference",
            "claims.rules.shrinks._target_ is 'genbench.claims.rules.Diference', which is no rule of "
            "genbench.claims.rules; did you mean 'Difference'?",
        ),
        (
            "+claims.rules.shrinks.margin=much",
            "claims.rules.shrinks: margin is 'much'; accepted: a number in (-inf, inf)",
        ),
        ("claims.looks=[10,5]", "claims.looks is [10, 5]; accepted: one to three numbers of seeds, ascending"),
        (
            "+claims.rules.shrinks.of.regularisation=l2",
            "claims.rules.shrinks: a claim names the setting 'regularisation', which no run has; did you mean "
            "'regularization'?",
        ),
        (
            "claims.rules.shrinks.of.regularization=l3",
            "claims.rules.shrinks: a claim names regularization=l3, which no run has; accepted: l2, none",
        ),
        (
            "seed=0,100",
            "seed=100 is one of claims.pilots; accepted: other seeds, or claims=null, which registers nothing",
        ),
        ("optimizer.lr=0.1,0.01", "mixes configurations: optimizer.lr is 0.1 and 0.01; name them where"),
        ("+claims.look=[5]", "claims.look is not a setting; did you mean 'looks'?"),
    ],
)
def test_claims_that_cannot_be_judged_are_refused_before_a_run_trains(trained, tmp_path, setting, message):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    status, out, err = genbench(tmp_path, setting)
    assert (status, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_sweep_says_which_seeds_no_verdict_counts(work):
    status, _, err = genbench(work, "seed=0,20,21", "--dry-run")
    assert status == 0, err
    assert "genbench: no verdict counts seed=20; seed=21: the 10 of claims.seeds begin at 0\n" in err
    status, _, err = genbench(work, "seed=range(10)", "--dry-run")
    assert (status, "counts" in err) == (0, False)


def test_a_run_by_itself_registers_its_claims_too(trained, tmp_path):
    shutil.copytree(trained / "conf", tmp_path / "conf")
    status, _, err = genbench(tmp_path, "seed=0", "regularization=l2", "hydra/launcher=basic")
    assert status == 0, err
    (record,) = records.load(tmp_path / "runs" / "shrinks").records
    assert record["provenance"]["claims"] == records.read_sweep(trained / "runs" / "shrinks")["claims"]["digest"]
    status, _, err = genbench(tmp_path, "seed=0", "claims.looks=[]", "hydra/launcher=basic")
    assert (status, "claims.looks is []" in err) == (1, True)


def test_rules_that_a_folder_names_are_genbench_s_own_or_trusted(work):
    marker = work / "imported"
    (work / "foreign_rules.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom genbench.claims.rules import Difference\n"
    )
    path = work / "runs" / "shrinks"
    sweep = records.read_sweep(path)
    sweep["claims"]["rules"]["shrinks"]["_target_"] = "foreign_rules.Difference"
    records.write_sweep(path, sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(work)
        status, out, err = typed(work, "genbench-table", "runs/shrinks", "--claims")
        assert (status, out) == (1, "")
        assert "claims.rules.shrinks._target_ is 'foreign_rules.Difference', which is no rule of genbench" in err
        assert not marker.exists()
        assert "10 of 10 runs were trained under another rule" in verdicts(work, "--trust")["shrinks"]
        assert marker.exists()


def test_the_table_stands_above_its_verdicts_which_leave_a_file_of_their_own(work):
    folder = work / "runs" / "shrinks"
    before = (folder / "table.csv").read_text()
    status, out, err = typed(work, "genbench-table", "runs/shrinks")
    assert (status, err) == (0, "")
    table, verdicts = out.split("\nClaims\n")
    assert "l2" in table
    assert re.search(
        r"grows +not replicated +A squared penalty lets the weights grow\. *\n +mean difference -", verdicts
    )
    assert "written beside the runs: table.md, table.tex, table.csv, claims.csv, report.html, figures/" in verdicts
    assert (folder / "table.csv").read_text() == before
    found = list(csv.DictReader(io.StringIO((folder / "claims.csv").read_text())))
    assert [(row["claim"], row["verdict"]) for row in found] == [
        ("shrinks", "replicated"), ("grows", "not replicated"), ("positive", "replicated"),
    ]  # fmt: skip
    for name in ("table.md", "table.tex", "report.html"):
        assert "A squared penalty lets the weights grow." in (folder / name).read_text()


def test_a_rule_of_the_user_s_own_is_judged_at_the_end_of_the_sweep_and_a_table_without_trust_says_so(work):
    (work / "own_rules.py").write_text("from genbench.claims.rules import Difference\n")
    path = work / "conf" / "experiment" / "shrinks.yaml"
    path.write_text(path.read_text().replace("genbench.claims.rules.Difference", "own_rules.Difference", 1))
    with importable(work):
        status, out, err = genbench(work, "seed=range(5)")
        assert status == 0, err
        assert re.search(r"shrinks +replicated", out)
        status, out, err = typed(work, "genbench-table", "runs/shrinks")
        assert (status, err) == (0, "")
        said = " ".join(out.split("\nClaims\n")[1].split())
        assert said.startswith(
            "The claims are not judged: claims.rules.shrinks._target_ is 'own_rules.Difference', which is no rule of "
            "genbench.claims.rules; accepted: --trust, if you know who wrote it"
        )
        assert not (work / "runs" / "shrinks" / "claims.csv").exists()
        status, out, _ = typed(work, "genbench-table", "runs/shrinks", "--trust")
        assert (status, bool(re.search(r"shrinks +replicated", out))) == (0, True)


def test_a_folder_without_claims_says_so(work):
    path = work / "runs" / "shrinks"
    records.write_sweep(path, {**records.read_sweep(path), "claims": None})
    status, out, err = typed(work, "genbench-table", "runs/shrinks", "--claims")
    assert (status, out) == (1, "")
    assert err == (
        "genbench-table: runs/shrinks: the last command registered no claims; accepted: an experiment that has claims\n"
    )


def test_an_altered_plan_is_called_altered(work):
    path = work / "runs" / "shrinks" / "sweep.json"
    path.write_text(path.read_text().replace("shrinks", "shrunk", 1))
    status, out, err = typed(work, "genbench-table", "runs/shrinks", "--claims")
    assert (status, out) == (1, "")
    assert "genbench-table: runs/shrinks: sweep.json: digest does not match: the content was altered; " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trust", "--status"], "--trust is of the claims of a folder of runs; accepted: with its own table, or"),
        (["--trust", "--rows", "seed"], "--trust is of the claims of a folder of runs; accepted: with its own table"),
        (["--claims", "--status"], "--claims takes none of --format, --status, --dashboard, --strategies"),
        (["--claims", "--format", "latex"], "--claims takes none of --format, --status, --dashboard, --strategies"),
        (["--claims", "--rows", "seed"], "--claims takes none of --rows, --columns, --baseline, --seed, --output"),
    ],
)
def test_options_that_exclude_each_other(trained, arguments, message):
    status, out, err = typed(trained, "genbench-table", "runs/shrinks", *arguments)
    assert (status, out, message in err) == (1, "", True)


def test_a_single_run_of_other_settings_says_that_no_verdict_counts_it(work):
    said = "genbench: no verdict counts this run: trainer.max_steps=10 where the experiment has 20"
    for words, changed in (("trainer.max_steps=10", True), ("threads=1", False)):
        status, _, err = genbench(work, "hydra.mode=RUN", "seed=3", "regularization=l2", "name=alone", words)
        assert status == 0, err
        assert (said in err.splitlines()) is changed
        (path,) = (work / "runs" / "alone").glob("*/record.json")
        assert ("claims" in records.read(path.parent)["provenance"]) is not changed
        shutil.rmtree(path.parent)
