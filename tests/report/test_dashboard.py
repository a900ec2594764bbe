import json

import pytest

pytest.importorskip("wandb_workspaces")

from genbench import cli, records
from genbench.report import dashboard
from genbench.report.dashboard import DashboardError


def spec(experiment: str = "ablation") -> dict:
    view = dashboard.workspace(experiment, entity="me", project="genbench")
    return json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))["section"]


def panels(section: str) -> list[dict]:
    sections = {item["name"]: item for item in spec()["panelBankConfig"]["sections"]}
    return [{"viewType": panel["viewType"], **panel["config"]} for panel in sections[section]["panels"]]


def test_gap_and_flatness_are_lines_over_epochs_by_strategy():
    for section, keys in {"Gap over epochs": dashboard.GAPS, "Flatness over epochs": dashboard.FLATNESS}.items():
        shown = panels(section)
        assert [panel["metrics"] for panel in shown] == [[key] for key in keys]
        for panel in shown:
            assert panel["viewType"] == "Run History Line Plot"
            assert (panel["xAxis"], panel["groupBy"], panel["groupAgg"]) == ("epoch", "strategy.value", "mean")
            assert panel["aggregate"] is True


def test_gap_is_scattered_against_each_flatness():
    shown = panels("Gap against flatness")
    assert {panel["viewType"] for panel in shown} == {"Scatter Plot"}
    assert [panel["xAxis"] for panel in shown] == [f"summary:{key}" for key in dashboard.FLATNESS]
    assert {panel["yAxis"] for panel in shown} == {"summary:test/gap/accuracy"}


def test_bars_by_strategy_and_by_label_noise():
    bars = panels("Strategies")
    assert ["test/performance/accuracy"] in [panel["metrics"] for panel in bars]
    assert ["test/gap/accuracy"] in [panel["metrics"] for panel in bars]
    assert {(panel["viewType"], panel["groupBy"]) for panel in bars} == {("Bar Chart", "strategy.value")}
    assert {panel["groupBy"] for panel in panels("Label noise")} == {"data.value.label_noise"}


def test_it_shows_the_training_runs_of_its_experiment_only():
    (runs,) = spec("optimizers")["runSets"]
    leaves = json.dumps(runs["filters"])
    assert '"group"' in leaves
    assert '"optimizers"' in leaves
    assert '"jobType"' in leaves
    assert '"train"' in leaves


@pytest.mark.parametrize("key", [*dashboard.GAPS, *dashboard.FLATNESS, *dashboard.PERFORMANCE])
def test_every_panel_shows_a_metric_of_the_record(key):
    split, family, name = key.split("/")
    known = {
        "performance": ("accuracy", "cross_entropy", "soft_error", "calibration_error"),
        "gap": ("accuracy", "cross_entropy", "soft_error"),
        "flatness": ("lambda_1", "trace", "sam_sharpness", "average_sharpness", "adaptive_sharpness"),
    }
    assert split == ("train" if family == "flatness" else "test")
    assert name in known[family]


# ---------------------------------------------------------------- saving: a W&B that keeps views in a dictionary


class Views:
    def __init__(self) -> None:
        self.views: dict[str, dict] = {}
        self.broken = False

    def __call__(self, api, query, variables):
        if self.broken:
            raise ConnectionError("no route to host\nmore")
        if "mutation" in query:
            id = variables.get("id") or f"id{len(self.views)}"
            self.views[id] = dict(variables)
            return {"upsertView": {"view": {"id": id, "name": variables["name"]}, "inserted": True}}
        found = [
            {"node": {"id": id, "displayName": view["displayName"], "spec": view["spec"]}}
            for id, view in self.views.items()
            if view["name"] == variables["viewName"]
        ]
        return {"project": {"allViews": {"edges": found}}}


@pytest.fixture
def views(monkeypatch):
    import wandb

    views = Views()
    monkeypatch.setattr("wandb_workspaces.workspaces.internal.execute_graphql", views)
    monkeypatch.setattr("wandb_workspaces.workspaces.interface.get_app_url", lambda api: "https://wandb.test")
    monkeypatch.setattr("genbench.loggers.wandb.logged_in", lambda server: True)

    class Account:
        default_entity = "me"

    monkeypatch.setattr(wandb, "Api", lambda **settings: Account())
    for key in ("WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(key, raising=False)
    wandb.teardown()
    return views


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "renamed"
    records.write_sweep(folder, {"experiment": "ablation", "command": [], "table": None, "runs": []})
    return folder


def test_it_is_created_once_and_updated_afterwards(views, folder):
    first = dashboard.build(folder)
    assert first.startswith("https://wandb.test/me/genbench?nw=")
    assert dashboard.build(folder) == first
    (view,) = views.views.values()
    assert view["displayName"] == "genbench: ablation"  # of sweep.json, not of the folder
    assert (view["entityName"], view["projectName"]) == ("me", "genbench")
    assert json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]


def test_a_deleted_one_is_created_again(views, folder):
    dashboard.build(folder)
    views.views.clear()
    dashboard.build(folder)
    assert len(views.views) == 1


def test_another_project_gets_its_own(views, folder):
    first = dashboard.build(folder)
    assert dashboard.build(folder, project="other") != first
    assert sorted(view["projectName"] for view in views.views.values()) == ["genbench", "other"]


def test_what_is_remembered_names_no_machine(views, folder):
    dashboard.build(folder)
    memory = json.loads((folder / dashboard.MEMORY).read_text())
    assert memory.keys() == {"entity", "project", "name", "id"}


def test_a_failure_is_one_line_and_leaves_no_second_copy(views, folder):
    first = dashboard.build(folder)
    views.broken = True
    with pytest.raises(DashboardError, match=r"^W&B refused the dashboard of ablation: no route to host$"):
        dashboard.build(folder)
    views.broken = False
    assert dashboard.build(folder) == first


def test_without_an_account_it_says_what_to_do(views, folder, monkeypatch):
    monkeypatch.setattr("genbench.loggers.wandb.logged_in", lambda server: False)
    with pytest.raises(DashboardError, match=r"^not logged in to W&B at \S+; run `wandb login`, or set WANDB_API_KEY$"):
        dashboard.build(folder)
    assert not (folder / dashboard.MEMORY).exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DashboardError, match=r"there is no folder .*nothing; accepted: the folder of an experiment"):
        dashboard.build(tmp_path / "nothing")


def test_as_json_without_an_account(folder, monkeypatch, capsys):
    """The JSON that would be sent, without a login."""

    def asked(*args, **settings):
        raise AssertionError("W&B was asked")

    monkeypatch.setattr("genbench.loggers.wandb.logged_in", asked)
    monkeypatch.setattr("wandb.Api", asked)
    for key in ("WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr("sys.argv", ["genbench-table", str(folder), "--dashboard", "--json"])
    cli.table()
    written = json.loads(capsys.readouterr().out)
    assert (written["display_name"], written["project"]) == ("genbench: ablation", "genbench")
    sections = written["spec"]["section"]["panel_bank_config"]["sections"]
    keys = {key for section in sections for panel in section["panels"] for key in panel["config"].get("metrics") or ()}
    assert {*dashboard.GAPS, *dashboard.FLATNESS, *dashboard.TRAINING, *dashboard.PERFORMANCE} <= keys
    assert [path.name for path in folder.iterdir()] == ["sweep.json"]
    monkeypatch.setattr("sys.argv", ["genbench-table", str(folder), "--json"])
    with pytest.raises(SystemExit):
        cli.table()
    assert "--json is of --dashboard" in capsys.readouterr().err
