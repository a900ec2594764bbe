"""The W&B workspace of an experiment: verdicts, gap and flatness over epochs, gap against flatness, bars of strategies.

It shows the runs that the W&B logger uploaded; their group, config and metric keys are those of genbench.loggers.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import records
from genbench.checks import require
from genbench.report import claims, render, selection
from genbench.report.model import Verdicts

if TYPE_CHECKING:
    import wandb
    import wandb_workspaces.workspaces as ws

MEMORY = "dashboard.json"  # beside sweep.json: names the workspace of this experiment
_AS_OF = "As of the last `genbench-table FOLDER --dashboard`.\n\n"
RUNS = 500  # W&B shows 10 by default
GAPS = {
    "test/gap/accuracy": "gap, accuracy (train − test)",
    "test/gap/cross_entropy": "gap, cross-entropy (test − train), nats",
    "test/gap/soft_error": "gap, soft error (test − train)",
}
FLATNESS = {
    "train/flatness/lambda_1": "largest Hessian eigenvalue",
    "train/flatness/trace": "Hessian trace",
    "train/flatness/sam_sharpness": "SAM sharpness",
    "train/flatness/average_sharpness": "average-case sharpness",
    "train/flatness/adaptive_sharpness": "adaptive sharpness",
}
TRAINING = {
    "train/optimization/loss": "training loss of a step",
    "train/optimization/lr": "learning rate",
}
PERFORMANCE = {
    "test/performance/accuracy": "test accuracy",
    "test/performance/cross_entropy": "test cross-entropy, nats",
}


class DashboardError(ValueError):
    """There is no dashboard; the message says why and what to do, in one line."""


def workspace(experiment: str, *, entity: str, project: str, verdicts: Verdicts | None = None) -> "ws.Workspace":
    """Build the workspace of an experiment's training runs, and the verdicts on its claims as text; send nothing."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import And, Metric

    by: Any = {"groupby_aggfunc": "mean", "max_runs_to_show": RUNS}
    strategy, noise = wr.Config("strategy"), wr.Config("data.label_noise")

    def lines(metrics: dict[str, str]) -> list[Any]:
        return [
            wr.LinePlot(title=title, x="epoch", y=[key], groupby=strategy, groupby_rangefunc="stderr", **by)
            for key, title in metrics.items()
        ]

    def bars(metrics: dict[str, str], groupby: wr.Config) -> list[Any]:
        return [
            wr.BarPlot(
                title=title, metrics=[key], groupby=groupby, groupby_rangefunc="stderr", max_bars_to_show=RUNS, **by
            )
            for key, title in metrics.items()
        ]

    def against(gap: str) -> list[Any]:
        return [
            wr.ScatterPlot(
                title=f"{GAPS[gap]} against {title}",
                x=wr.SummaryMetric(key),
                y=wr.SummaryMetric(gap),
                log_x=key.endswith("lambda_1") or None,  # the others can be negative
                legend_template="${run:displayName}",
            )
            for key, title in FLATNESS.items()
        ]

    told: list[Any] = [] if verdicts is None else [wr.MarkdownPanel(_AS_OF + render.verdicts_markdown(verdicts))]
    whole = ws.SectionLayoutSettings(columns=1, rows=1)
    headline = {key: {**PERFORMANCE, **GAPS}[key] for key in ("test/performance/accuracy", "test/gap/accuracy")}
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"genbench: {experiment}",
        sections=[
            *([ws.Section(name="Claims", panels=told, is_open=True, layout_settings=whole)] if told else []),
            ws.Section(name="Strategies", panels=bars({**PERFORMANCE, **GAPS}, strategy), is_open=True),
            ws.Section(name="Gap over epochs", panels=lines(GAPS), is_open=True),
            ws.Section(name="Flatness over epochs", panels=lines(FLATNESS), is_open=True),
            ws.Section(name="Training", panels=lines(TRAINING), is_open=True),
            ws.Section(name="Gap against flatness", panels=against("test/gap/accuracy"), is_open=True),
            ws.Section(name="Label noise", panels=bars(headline, noise), is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=RUNS),
        runset_settings=ws.RunsetSettings(filters=And(Metric("Group") == experiment, Metric("JobType") == "train")),
    )


def build(folder: str | Path, *, entity: str | None = None, project: str | None = None, trust: bool = False) -> str:
    """Create the workspace of the experiment in ``folder``, or update the existing one; return its address.

    Defaults of ``entity`` and ``project``, in order: those used last time; W&B's settings (WANDB_ENTITY,
    WANDB_PROJECT); the account's own entity and the project genbench. ``trust`` is that of
    :func:`genbench.report.claims.of_records`.

    Raises:
        DashboardError: there is no such folder or no account, or W&B refuses the workspace.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DashboardError(
            f"there is no folder {folder}; accepted: the folder of an experiment, such as runs/ablation"
        )
    experiment = _experiment(folder)
    memory = _remembered(folder)
    settings = _settings()
    try:
        import wandb

        api = wandb.Api(timeout=10)
        entity = entity or memory.get("entity") or settings.entity or api.default_entity
        project = project or memory.get("project") or settings.project or "genbench"
        if not entity:
            raise DashboardError("W&B names no entity for this account; set WANDB_ENTITY to your user or team name")
        view = workspace(experiment, entity=entity, project=project, verdicts=_verdicts(folder, trust))
        if (memory.get("entity"), memory.get("project")) == (entity, project):
            _adopt(view, memory)
        view.save()
    except DashboardError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DashboardError(f"W&B refused the dashboard of {experiment}: {reason}") from error
    saved = {"entity": entity, "project": project, "name": view._internal_name, "id": view._internal_id}
    records.write_atomic(folder / MEMORY, json.dumps(saved, indent=2) + "\n")
    return view.url


def text(folder: str | Path, *, trust: bool = False) -> str:
    """Return the workspace of the experiment in ``folder`` as JSON; needs no account."""
    _installed()
    import wandb

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    folder, entity, project = Path(folder), settings.entity or "", settings.project or "genbench"
    view = workspace(_experiment(folder), entity=entity, project=project, verdicts=_verdicts(folder, trust))
    return view._to_model().model_dump_json(indent=2, exclude_none=True, exclude={"id", "name"}) + "\n"


def _adopt(view: "ws.Workspace", memory: dict[str, str]) -> None:
    """Let ``view`` replace the workspace saved before, unless that was deleted."""
    from wandb_workspaces.workspaces import internal

    try:
        internal.View.from_name(view.entity, view.project, memory["name"])
    except ValueError as error:
        if "not found" in str(error):
            return
        raise
    view._internal_name, view._internal_id = memory["name"], memory["id"]


def _installed() -> None:
    for module in ("wandb", "wandb_workspaces"):
        require(module, extra="wandb", needed_by="the dashboard")


def _settings() -> "wandb.Settings":
    """Return W&B's settings; raise DashboardError unless an account is logged in."""
    _installed()
    import wandb

    from genbench.loggers.wandb import logged_in

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    if not logged_in(settings.base_url):
        raise DashboardError(f"not logged in to W&B at {settings.base_url}; run `wandb login`, or set WANDB_API_KEY")
    return settings


def _experiment(folder: Path) -> str:
    try:
        return records.read_sweep(folder)["experiment"]
    except (records.RecordError, KeyError):
        return folder.resolve().name


def _verdicts(folder: Path, trust: bool) -> Verdicts | None:
    return claims.of_selection(selection.load(folder), trust=trust)


def _remembered(folder: Path) -> dict[str, str]:
    try:
        memory = json.loads(records.read_bytes(folder / MEMORY))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) and {"entity", "project", "name", "id"} <= memory.keys() else {}
