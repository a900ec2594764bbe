"""Verdicts in the outputs of a folder whose sweep registered claims."""

import csv
import io
import json
import re

import pytest
from rich.console import Console
from scipy import stats

from genbench import records, report
from genbench.claims.registration import read
from genbench.report import claims, html, render
from genbench.report.latex import verdicts_latex
from genbench.report.model import VerdictRow, Verdicts
from genbench.report.selection import load
from genbench.report.table import build
from tests.helpers import browser, factory
from tests.helpers.commands import importable
from tests.helpers.rendered import NASTY, Outline, assert_typesets, needs_latex

VALUES = {"none": [0.60, 0.70, 0.65, 0.62, 0.66], "l1": [0.63, 0.72, 0.69, 0.64, 0.71]}
RULE = {
    "_target_": "genbench.claims.rules.Difference",
    "metric": "test/performance/accuracy",
    "of": {"regularization": "l1"},
    "than": {"regularization": "none"},
}
BLOCK = {
    "looks": [5, 10],
    "rules": {
        "up": {"statement": "L1 helps.", "source": "A. Author 2020", **RULE},
        "far": {"statement": "L1 helps by far.", **RULE, "margin": 0.02, "interest": 0.5},
    },
}


def leave(folder, block=BLOCK):
    """Write runs of five seeds, and claims."""
    factory.toy(folder, VALUES)
    records.write_sweep(folder, {**records.read_sweep(folder), "claims": block})
    return folder


def made(**changes):
    """Return the row of a claim."""
    row = {
        "claim": "C1", "status": "undecided", "statement": "It holds.", "source": "", "rule": "a exceeds b",
        "finding": "mean difference 1", "n": 8, "supports": 0.3, "contradicts": 0.9, "statistic": 1.0,
        "interval": (-1.0, 3.0), "missing": (), "unknown": (),
    }  # fmt: skip
    return VerdictRow(**{**row, **changes})


def printed(part, width):
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(part)
    return console.file.getvalue()


def test_a_set_of_runs_is_called_by_its_name_and_explained_once(tmp_path):
    """In every output, so that the name means something there."""
    rule = {**RULE, "of": "sparse", "than": {"regularization": "none"}}
    sets = {"sparse": {"regularization": "l1"}}
    folder = leave(tmp_path, {**BLOCK, "sets": sets, "rules": {"up": {"statement": "L1 helps.", **rule}}})
    verdicts = claims.of_selection(load(folder))
    assert verdicts.sets == ["sparse stands for regularization=l1."]
    (row,) = verdicts.rows
    accuracy = "test/performance/accuracy"
    assert row.rule == f"{accuracy} of sparse exceeds {accuracy} of regularization=none by more than 0"
    texts = [
        printed(claims.renderable(verdicts), 200), "\n".join(claims.lines(verdicts)), render.verdicts_csv(verdicts),
        render.verdicts_markdown(verdicts), verdicts_latex(verdicts, title="a"),
    ]  # fmt: skip
    for text in texts:
        assert text.count("sparse stands for ") == 1


def test_a_row_holds_the_test_of_its_claim(tmp_path):
    found = claims.of_selection(load(leave(tmp_path)))
    up, far = found.rows
    differences = [after - before for after, before in zip(VALUES["l1"], VALUES["none"], strict=True)]
    p = [stats.ttest_1samp(differences, margin, alternative="greater").pvalue for margin in (0, 0.02)]
    assert up.supports == pytest.approx(2 * min(p))  # Holm's correction for two
    assert far.supports == pytest.approx(max(p[1], 2 * min(p)))
    assert (up.status, up.n, up.source, up.missing) == ("replicated", 5, "A. Author 2020", ())
    assert up.statistic == pytest.approx(sum(differences) / 5)
    assert up.rule.startswith("test/performance/accuracy of regularization=l1 exceeds")
    assert far.status == "not replicated"
    assert found.caption[0] == (
        "p: one-sided, after Holm's correction for 2 claims; looks at 5 and 10 seeds, from seed 0."
    )


def test_every_file_holds_the_verdicts_and_claims_csv_in_full_precision(tmp_path):
    plain = report.Report(factory.toy(tmp_path / "plain", VALUES))
    found = report.Report(leave(tmp_path / "claims"))
    names = [path.name for path in found.write()[:5]]
    assert names == ["table.md", "table.tex", "table.csv", "claims.csv", "report.html"]
    files = {name: (found.folder / name).read_text() for name in names}
    assert files["table.csv"] == plain.text("csv")
    for kind, name in (("markdown", "table.md"), ("latex", "table.tex")):
        assert files[name].startswith(plain.text(kind))
        assert found.text(kind) == files[name]
    for name in ("table.md", "table.tex", "report.html"):
        for text in ("L1 helps by far.", "not replicated", "A. Author 2020", found.verdicts.rows[1].finding[:15]):
            assert text in files[name], (name, text)
        assert "looks at 5 and 10 seeds" in files[name]
    first, second = csv.DictReader(io.StringIO(files["claims.csv"]))
    row = found.verdicts.rows[0]
    assert (float(first["p_for"]), float(first["low"]), int(first["n"])) == (row.supports, row.interval[0], 5)
    assert first["caption"] == " ".join(found.verdicts.caption)
    assert (second["verdict"], second["source"], second["caption"]) == ("not replicated", "", "")
    assert plain.verdicts is None
    assert "claims.csv" not in [path.name for path in plain.write()]


def test_verdicts_of_an_earlier_command_do_not_stay(tmp_path):
    folder = leave(tmp_path)
    report.Report(folder).write()
    records.write_sweep(folder, {**records.read_sweep(folder), "claims": None})
    report.Report(folder).write()
    assert not (folder / "claims.csv").exists()
    (folder / "claims.csv").write_text("mine\n")
    report.Report(folder).write()
    assert (folder / "claims.csv").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("body", "trust", "said"),
    [
        ("from genbench.claims.rules import Difference", False, "'own_rules.Difference', which is no rule of genbench"),
        (
            "class Difference:\n    words = evidence = lambda *a, **k: 1 / 0",
            True,
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_claims_that_cannot_be_judged_leave_the_table_and_say_why(tmp_path, body, trust, said):
    rule = {"statement": "Mine.", "_target_": "own_rules.Difference"}
    if not trust:
        rule = {**RULE, **rule}
    folder = leave(tmp_path / "runs", {"looks": [5], "rules": {"mine": rule}})
    (tmp_path / "own_rules.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'ran').touch()\n{body}\n")
    with importable(tmp_path):
        found = report.Report(folder, trust=trust)
        found.write()
    assert (tmp_path / "ran").exists() is trust
    assert found.verdicts.rows == []
    (reason,) = found.verdicts.caption
    assert reason.startswith("The claims are not judged: ")
    assert said in reason
    assert "The claims are not judged" in (folder / "table.md").read_text()
    assert "| l1 |" in (folder / "table.md").read_text()
    assert "The claims are not judged" in printed(claims.renderable(found.verdicts), 200)
    assert not (folder / "claims.csv").exists()


@pytest.mark.parametrize(
    ("digests", "said"),
    [
        ("every", ": the rules were registered before all 10 runs, each of which carries their digest."),
        ("some", " for rules that were registered before the runs; 1 of 10 runs was trained without a rule."),
        ("none", " if the rules are registered before the runs."),
    ],
)
def test_the_caption_says_whether_the_rules_were_registered_before_the_runs(tmp_path, digests, said):
    found = [] if digests == "none" else load(leave(tmp_path)).records
    digest = read(BLOCK).digest
    for record in found:
        record["provenance"]["claims"] = digest
    if digests == "some":
        del found[3]["provenance"]["claims"]
    text = f"The chance of at least one false verdict, of either kind, is at most 10 %{said}"
    assert text in claims.of_records(BLOCK, found).caption


def test_exact_claims_alone_have_no_p_to_explain(tmp_path):
    rule = {"statement": "At most 1.", "_target_": "genbench.claims.rules.Exact", "metric": RULE["metric"],
            "of": RULE["of"], "op": "<=", "than": 1}  # fmt: skip
    found = claims.of_selection(load(leave(tmp_path, {"looks": [5], "rules": {"least": rule}})))
    assert [row.status for row in found.rows] == ["replicated"]
    assert render.verdict_numbers(found.rows[0]) == ["least", "replicated", "5", "–", "–", "–"]
    assert found.caption == ["Exact claims: they hold in every run or they do not, so there is no p."]


@pytest.mark.parametrize("width", [120, 80])
def test_the_terminal_wraps_statement_and_finding(width):
    row = made(claim="of_a_long_name_that_is_folded", statement="A statement " + "of many words " * 10 + "ends.")
    text = printed(claims.renderable(Verdicts(rows=[row], caption=["A caption."])), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("words") == 10
    assert all(part in text for part in ("undecided", "ends.", "mean difference", "of_a_long_name_that_", "is_folded"))
    assert "…" not in text
    assert "p for" not in text
    assert "p for 0.3, p against 0.9" in printed(
        claims.renderable(Verdicts(rows=[row], caption=[]), numbers=True), width
    )


def test_a_verdict_of_any_name_is_shown(tmp_path):
    row = made(status="settings changed", unknown=("seed 3 of l2: diverged",), missing=("seed 4 of l2",))
    verdicts = Verdicts(rows=[row], caption=[])
    selection = load(leave(tmp_path))
    page = html.page(selection, build(selection), [], [], verdicts)
    text = " ".join(Outline(page.replace("<d", " <d")).text.split())
    assert "C1 settings changed It holds. mean difference 1 rule a exceeds b measured 1, 95 % interval [-1, 3]" in text
    assert "n 8 p for 0.3 p against 0.9 missing runs seed 4 of l2 runs without a number seed 3 of l2: diverged" in text
    assert "settings changed" in render.verdicts_markdown(verdicts)


def test_the_parts_of_a_rule_are_numbered_and_its_findings_told_by_number(tmp_path):
    row = made(rule="a exceeds 1; and b exceeds 2", finding="a exceeds 1: mean 3; b exceeds 2: mean 4")
    verdicts = Verdicts(rows=[row], caption=[])
    assert "(1) mean 3; (2) mean 4" in printed(claims.renderable(verdicts), 120)
    assert "(1) a exceeds 1" not in printed(claims.renderable(verdicts), 120)
    assert "(2) and b exceeds 2" in printed(claims.renderable(verdicts, numbers=True), 120)
    said = "Rule: (1) a exceeds 1; (2) and b exceeds 2. Finding: (1) mean 3; (2) mean 4."
    assert said in render.verdicts_markdown(verdicts)
    selection = load(leave(tmp_path))
    page = html.page(selection, build(selection), [], [], verdicts)
    assert '<span class="finding">(1) mean 3; (2) mean 4</span>' in page
    assert "<dd>(1) a exceeds 1<br>(2) and b exceeds 2</dd>" in page


def nasty():
    row = made(claim="C-1_a", statement=f"S {NASTY}.", source=NASTY, rule=NASTY, finding=NASTY, missing=(NASTY,))
    return Verdicts(rows=[row] * 60, caption=[f"C {NASTY}."])


def test_all_text_of_verdicts_is_escaped(tmp_path):
    text = render.verdicts_markdown(nasty())
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {7}
    assert "<b>" not in text
    selection = load(leave(tmp_path))
    page = html.page(selection, build(selection), [], [], nasty())
    assert "<b>" not in page
    assert Outline(page).text.count(NASTY) >= 4 * 60
    assert "'=1" in render.verdicts_csv(Verdicts(rows=[made(finding="=1+1")], caption=[]))


@needs_latex
def test_verdicts_compile_in_latex(tmp_path):
    assert_typesets(tmp_path, verdicts_latex(nasty(), NASTY))


@browser.needs_chromium
@pytest.mark.parametrize("width", [1400, 800])
def test_long_names_and_sentences_fit_a_browser_s_window(tmp_path, width):
    row = made(claim="a_claim_of_a_long_name_" * 4, statement="word" * 60 + ".", finding="f" * 300, rule="r" * 300)
    selection = load(leave(tmp_path))
    page = tmp_path / "page.html"
    page.write_text(html.page(selection, build(selection), [], [], Verdicts(rows=[row], caption=["c" * 300])))
    browser.assert_fits(page, width)


def test_the_dashboard_shows_them_as_text(tmp_path):
    pytest.importorskip("wandb_workspaces")
    from genbench.report import dashboard

    sections = json.loads(dashboard.text(leave(tmp_path)))["spec"]["section"]["panel_bank_config"]["sections"]
    assert sections[0]["name"] == "Claims"
    (panel,) = sections[0]["panels"]
    assert panel["config"]["value"].startswith("As of the last `genbench-table FOLDER --dashboard`.\n\n#### Claims\n")
    assert "| far | not replicated | 5 |" in panel["config"]["value"]
    records.write_sweep(tmp_path, {**records.read_sweep(tmp_path), "claims": None})
    sections = json.loads(dashboard.text(tmp_path))["spec"]["section"]["panel_bank_config"]["sections"]
    assert "Claims" not in [section["name"] for section in sections]
