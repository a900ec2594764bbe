import re

import pytest

from genbench import cli
from genbench.config import folder
from genbench.report import strategies
from genbench.report.selection import load
from genbench.report.table import build
from tests.helpers import factory
from tests.helpers.choices import choices


@pytest.fixture(scope="module")
def page(ablation):
    return strategies.page(folder(), [load(ablation)])


def section(page, name):
    return page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_strategy_has_a_definition_and_a_source(page):
    names = [name for name in choices("regularization") if name != "none"]
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == names
    for name in names:
        text = section(page, name)
        assert re.search(r"(19|20)\d\d", text), name  # a paper's year
        assert f"`regularization={name}`" in text
        assert not re.search(r"``|:\w+:`|Args:", text), name


def test_the_numbers_are_those_of_the_records(page, ablation):
    def accuracies(name):
        found = [
            item for item in load(ablation).records
            if item["choices"]["regularization"] == name and item["config"]["data"]["label_noise"] == 0
        ]  # fmt: skip
        return [100 * item["metrics"]["test/performance/accuracy"] for item in sorted(found, key=lambda i: i["seed"])]

    ours, usual = accuracies(["dropout"]), accuracies([])
    text = section(page, "dropout")
    found = re.search(r"\*test acc\. \(%\), clean\* ([\d.]+) ± ([\d.]+) \(\+([\d.]+) ± ([\d.]+)\)", text)
    assert float(found[1]) == pytest.approx(sum(ours) / 3, abs=0.051)
    assert float(found[3]) == pytest.approx(sum(ours) / 3 - sum(usual) / 3, abs=0.051)


def test_better_and_worse_is_what_survives_correction(tmp_path):
    columns = factory.SPEC["columns"]
    spec = factory.SPEC | {"columns": [*columns, columns[0] | {"group": "the lower the better", "best": "min"}]}
    loaded = load(factory.ablation(tmp_path / "a", spec=spec))
    table, page = build(loaded), strategies.page(folder(), [loaded])
    seen = set()
    for row, line in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, line, strict=True):
            if column.best and cell.difference:
                good = cell.difference.value > 0 if column.best == "max" else cell.difference.value < 0
                verdict = "undecided" if cell.p >= 0.05 else "better" if good else "worse"
                listed = section(page, row.label).partition("After correction: ")[2].split("; ")
                assert any(part.startswith(verdict) and f"*{column.title}*" in part for part in listed)
                seen.add(verdict)
    assert seen == {"better", "worse", "undecided"}


def test_a_strategy_without_runs_says_so(tmp_path):
    page = strategies.page(folder(), [load(factory.ablation(tmp_path / "a", strategies=["none", "l2"]))])
    assert "Not measured in these experiments." in section(page, "sam")
    assert "Not measured" not in section(page, "l2")


def test_an_experiment_of_one_strategy_has_all_its_rows(tmp_path):
    column = {"label": "test", "metric": "test/performance/accuracy", "best": "max"}
    spec = {"title": "Noise", "rows": ["data.label_noise"], "baseline": [0.0], "columns": [column]}
    found = factory.ablation(tmp_path / "a", strategies=["sam"], noises=(0.0, 0.2, 0.4), spec=spec)
    page = strategies.page(folder(), [load(found)])
    assert [line.partition(": *")[0] for line in section(page, "sam").splitlines() if line.startswith("**")] == [
        "**Noise** (label noise: 0.2)",
        "**Noise** (label noise: 0.4)",
    ]
    assert "Not measured in these experiments." in section(page, "l2")


def test_the_command_takes_several_folders(ablation, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["genbench-table", str(ablation), str(ablation), "--strategies"])
    cli.table()
    assert section(capsys.readouterr().out, "l2").count("**Regularization on MNIST-1D**") == 2
