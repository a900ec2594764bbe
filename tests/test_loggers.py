import csv
import importlib
import importlib.util
import inspect
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from genbench import config, loggers
from genbench.loggers import CSVLogger, RunInfo, TensorBoardLogger, WandbLogger
from tests.helpers.wandb_server import Server

KEY = "5ecre7" * 7
ROW = {"test/performance/accuracy": 0.5, "test/gap/accuracy": 0.25}
RECORD = {"status": "completed", "metrics": {"test/performance/accuracy": 0.75, "val/gap/accuracy": None}, "seconds": {"fit": 2.0}}  # noqa: E501  # fmt: skip


def make_run(folder: Path, run_id: str = "0123456789ab", **changes: object) -> RunInfo:
    settings: dict = {
        "folder": folder / "ablation" / run_id,
        "experiment": "ablation",
        "run_id": run_id,
        "seed": 3,
        "choices": {"data": "mnist1d", "model": "mlp", "regularization": ["l2", "mixup"]},
        "config": {"data": {"label_noise": 0.2}, "seed": 3, "regularization": {"l2": {"strength": 0.1}, "mixup": {}}},
        "overrides": ["regularization=[l2,mixup]", "data.label_noise=0.2", "seed=3"],
    }
    return RunInfo(**{**settings, **changes})


def log(built: list[Logger], metrics: dict[str, float], *, step: int) -> None:
    for logger in built:
        logger.log_metrics(metrics, step=step)


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        loss = self.net(batch).square().mean()
        self.log("train/performance/cross_entropy", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(built: list[Logger] | bool, epochs: int = 3) -> torch.Tensor:
    module = Toy()
    trainer = pl.Trainer(
        max_epochs=epochs, logger=built, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
    return module.net.weight.detach().clone()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_each_file_is_one_keyed_entry_that_lists_every_setting(name):
    path = config.folder() / "logger" / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert list(node) == [name]
    target = node[name].pop("_target_")
    assert node[name].pop("_partial_") is True
    module, _, attribute = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert {"run", *node[name]} == set(parameters)
    defaults = {key: parameters[key].default for key in node[name]}
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()} == node[name]


def test_a_lightning_logger_of_the_users_own_is_taken_as_it_is(tmp_path):
    own = pl.loggers.CSVLogger(tmp_path, name="own")
    built = loggers.build({"own": own, "csv": partial(CSVLogger)}, make_run(tmp_path))
    assert built[0] is own
    log(built, ROW, step=1)
    loggers.finish(built, RECORD)
    assert float(read(Path(own.log_dir) / "metrics.csv")[0]["test/gap/accuracy"]) == 0.25


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_whose_package_is_missing_says_what_to_install(name, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *args: None if module == name else find(module, *args)
    )
    with pytest.raises(ValueError, match=rf'^logger {name} needs: pip install "genbench\[{name}\]"$'):
        loggers.build({"csv": partial(CSVLogger), name: partial(CSVLogger)}, make_run(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (partial(CSVLogger, flush_seconds=-1), "logger.csv.flush_seconds is -1; accepted: a number in"),
        (partial(TensorBoardLogger, flush_seconds=0.5), "logger.tensorboard.flush_seconds is 0.5; accepted"),
        (partial(WandbLogger, mode="on"), "logger.wandb.mode is 'on'; accepted: online, offline, disabled"),
        (partial(WandbLogger, timeout=0), "logger.wandb.timeout is 0; accepted: a number in"),
        (partial(WandbLogger, tags="paper"), "logger.wandb.tags is 'paper'; accepted: a list of words"),
        (partial(WandbLogger, tags=["a" * 65]), "logger.wandb.tags is .*; accepted: a list of words of 1 to 64"),
        (partial(WandbLogger, notes=3), "logger.wandb.notes is 3; accepted: a text, null"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_written(part, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        part(run=make_run(tmp_path))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_names_tell_strategies_apart(tmp_path):
    swept = make_run(tmp_path)
    assert swept.strategy == "l2+mixup, data.label_noise=0.2"
    assert make_run(tmp_path, seed=4, overrides=["seed=4", *swept.overrides[:2]]).strategy == swept.strategy
    alone = make_run(tmp_path, overrides=[])
    assert (alone.strategy, alone.name) == ("l2+mixup", "mnist1d, mlp, l2+mixup, seed 3")


def test_the_baseline_is_called_none(tmp_path):
    choices = {"data": "mnist1d", "model": "mlp", "regularization": []}
    swept = make_run(tmp_path, choices=choices, overrides=["regularization=none", "data.label_noise=0.2", "seed=3"])
    assert swept.regularization == "none"
    assert (swept.strategy, swept.name) == ("none, data.label_noise=0.2", "none, data.label_noise=0.2, seed 3")
    alone = make_run(tmp_path, choices=choices, overrides=[])
    assert (alone.strategy, alone.name) == ("none", "mnist1d, mlp, none, seed 3")


# ---------------------------------------------------------------- csv


def test_csv_keeps_one_row_a_step(tmp_path):
    run = make_run(tmp_path)
    built = loggers.build({"csv": partial(CSVLogger)}, run)
    log(built, {"epoch": 1, **ROW}, step=10)
    log(built, {"epoch": 2}, step=20)
    log(built, {"weights/norm/l2": 7.0}, step=20)
    loggers.finish(built, RECORD)
    first, second = read(run.folder / "metrics.csv")
    assert list(first) == ["step", "epoch", *ROW, "weights/norm/l2"]
    assert (first["step"], first["test/gap/accuracy"], first["weights/norm/l2"]) == ("10", "0.25", "")
    assert (float(second["epoch"]), second["test/gap/accuracy"], second["weights/norm/l2"]) == (2, "", "7.0")


def test_csv_of_a_resumed_run_replaces_the_rows_it_trains_again(tmp_path):
    run = make_run(tmp_path)
    for steps, value in ((range(0, 50, 10), 1.0), (range(30, 70, 10), 2.0)):
        built = loggers.build({"csv": partial(CSVLogger, flush_seconds=0)}, run)
        for step in steps:
            log(built, {"a": value}, step=step)  # killed: no finish
    rows = read(run.folder / "metrics.csv")
    assert [(int(row["step"]), float(row["a"])) for row in rows] == [
        (0, 1), (10, 1), (20, 1), (30, 2), (40, 2), (50, 2), (60, 2)
    ]  # fmt: skip


def test_csv_replaces_a_file_that_is_not_its_own(tmp_path):
    run = make_run(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_bytes(b"\xff\x00nonsense,\n1,2,3\n")
    built = loggers.build({"csv": partial(CSVLogger)}, run)
    log(built, {"a": 1.0}, step=0)
    loggers.finish(built, None)
    assert read(run.folder / "metrics.csv") == [{"step": "0", "a": "1.0"}]


def test_csv_costs_little(tmp_path):
    built = loggers.build({"csv": partial(CSVLogger)}, make_run(tmp_path))
    row = {f"test/performance/{i}": 1.0 / (i + 1) for i in range(30)}
    start = time.process_time()
    for step in range(500):
        log(built, row, step=step)
    assert (time.process_time() - start) / 500 < 0.5e-3  # measured: 0.006 ms; an epoch of ten steps takes 15 ms


# ---------------------------------------------------------------- tensorboard


def test_tensorboard_writes_events_without_a_host_name(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(socket, "gethostname", lambda: "my.secret-host")
    run = make_run(tmp_path)
    folder = run.folder / "tensorboard"
    killed = loggers.build({"tensorboard": partial(TensorBoardLogger)}, run)
    log(killed, {"epoch": 0, **ROW}, step=5)
    killed[0].finalize("failed")
    assert "secret" in next(folder.glob("events*")).name  # a file being written keeps its name
    built = loggers.build({"tensorboard": partial(TensorBoardLogger)}, run)
    log(built, {"epoch": 1, **ROW}, step=10)
    loggers.finish(built, RECORD)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len([path for path in files if path.name.startswith("events.out.tfevents.")]) == 2
    for path in files:
        assert "secret" not in path.name
        assert b"secret" not in path.read_bytes()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("test/gap/accuracy")] == [(5, 0.25), (10, 0.25)]
    assert events.Scalars("test/performance/accuracy")[-1].value == 0.75


# ---------------------------------------------------------------- W&B

wandb = pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def _service_ends():
    yield
    wandb.teardown()


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No account, no settings, no proxies of the person who runs the tests."""
    for key in list(os.environ):
        if (key.startswith("WANDB_") and key != "WANDB_SERVICE") or key.lower().endswith("_proxy"):
            monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr("genbench.loggers.wandb._unreachable", set())
    return monkeypatch


@pytest.fixture
def online(clean):
    """Logged in to a server; W&B reads its environment once a session."""

    def login(url: str) -> None:
        clean.setenv("WANDB_BASE_URL", url)
        clean.setenv("WANDB_API_KEY", KEY)

    wandb.teardown()
    yield login
    wandb.teardown()


def folders(path: Path) -> list[Path]:
    return sorted((path / "ablation" / "wandb").iterdir())


def inspect_run(folder: Path) -> dict:
    """What ``wandb leet inspect`` reads back: {"history": [...], "run": {...}, ...}, the items decoded."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    kinds: dict[str, list] = {}
    for line in lines:
        record = json.loads(line)
        kinds.setdefault(record["type"], []).append(record)
    return kinds


def summary(folder: Path) -> dict:
    """The summary after every update, as W&B would show it."""
    return {k: v for record in inspect_run(folder)["summary"] for k, v in record["summary"]["update"].items()}


def history(folder: Path) -> list[dict]:
    items = [record["history"]["item"] for record in inspect_run(folder)["history"]]
    return [{key: value for key, value in item.items() if key not in ("_runtime", "_timestamp")} for item in items]


def test_a_wandb_run_carries_what_a_sweep_is_grouped_by(clean, tmp_path):
    made = {"genbench": "0.1.0", "torch": "2.13.0", "user_git": "0123456789ab+", "overrides": ["seed=3"]}
    run = make_run(tmp_path, provenance=made)
    settings = {"tags": ["paper", "figure 2"], "notes": "after review"}
    built = loggers.build({"wandb": partial(WandbLogger, **settings)}, run)
    log(built, {"epoch": 1, **ROW}, step=10)
    log(built, {"weights/norm/l2": 1}, step=10)
    log(built, {"epoch": 2, "test/performance/accuracy": 0.6}, step=20)
    loggers.finish(built, RECORD)
    (folder,) = folders(tmp_path)
    kinds = inspect_run(folder)
    header = kinds["run"][0]["run"]
    assert header["run_group"] == "ablation"
    assert header["job_type"] == "train"
    assert header["project"] == "genbench"
    assert header["run_id"] == "ablation-0123456789ab"
    assert header["display_name"] == "l2+mixup, data.label_noise=0.2, seed 3"
    assert (header["tags"], header["notes"]) == (settings["tags"], settings["notes"])
    settings = header["config"]["update"]
    assert settings["provenance"] == made
    assert (settings["regularization"], settings["seed"], settings["data"]) == ("l2+mixup", 3, {"label_noise": 0.2})
    assert settings["methods"] == run.config["regularization"]
    assert settings["strategy"] == run.strategy
    assert kinds["metric"][-1]["metric"]["step_metric"] == "epoch"
    assert history(folder) == [
        {"_step": 10, "epoch": 1, **ROW, "weights/norm/l2": 1},
        {"_step": 20, "epoch": 2, "test/performance/accuracy": 0.6},
    ]
    final = summary(folder)
    assert final["test/performance/accuracy"] == 0.75  # the record's, not the last row's
    assert (final["status"], final["seconds/fit"]) == ("completed", 2)
    assert kinds["exit"][0]["exit"].get("exit_code", 0) == 0


def test_serial_runs_are_runs_of_their_own_even_when_one_fails(clean, tmp_path):
    for index in range(3):
        built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path, f"run{index}"))
        log(built, {"a": index}, step=0)
        if index < 2:
            loggers.finish(built, [RECORD, None][index])
    with_leftover = folders(tmp_path)  # the third was never finished
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path, "run3"))
    log(built, {"epoch": 1, "a": 3}, step=0)
    loggers.finish(built, RECORD)
    (last,) = set(folders(tmp_path)) - set(with_leftover)
    assert len(with_leftover) == 3
    assert history(last) == [{"_step": 0, "epoch": 1, "a": 3}]
    failed = next(folder for folder in with_leftover if folder.name.endswith("run1"))
    assert inspect_run(failed)["exit"][0]["exit"]["exit_code"] == 1
    assert wandb.run is None


def test_training_is_the_same_with_every_logger(clean, tmp_path):
    parts = {"csv": partial(CSVLogger), "tensorboard": partial(TensorBoardLogger), "wandb": partial(WandbLogger)}
    run = make_run(tmp_path)
    built = loggers.build(parts, run)
    with_loggers = fit(built)
    loggers.finish(built, RECORD)
    assert torch.equal(with_loggers, fit(False))
    rows = read(run.folder / "metrics.csv")
    (folder,) = folders(tmp_path)
    uploaded = [row["train/performance/cross_entropy"] for row in history(folder)]
    assert len(rows) == 3
    assert [float(row["train/performance/cross_entropy"]) for row in rows] == pytest.approx(uploaded)


def test_wandb_mode_is_respected(clean, tmp_path):
    wandb.teardown()
    clean.setenv("WANDB_MODE", "disabled")
    clean.setenv("WANDB_API_KEY", KEY)
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    log(built, ROW, step=0)
    loggers.finish(built, RECORD)
    wandb.teardown()
    assert not (tmp_path / "ablation" / "wandb").exists()


def test_a_broken_environment_costs_the_logger_not_the_run(clean, tmp_path, caplog):
    wandb.teardown()
    clean.setenv("WANDB_INIT_TIMEOUT", "soon")
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    log(built, ROW, step=0)
    loggers.finish(built, RECORD)
    wandb.teardown()
    (warning,) = warnings(caplog)
    assert "W&B failed and is left out" in warning


def warnings(caplog) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("genbench")]
    assert not any("\n" in line for line in lines)
    return lines


# what the server of an account does: nothing there, accepts and says nothing


@pytest.mark.parametrize("mute", [False, True])
def test_a_server_that_does_not_answer_costs_seconds_and_no_data(mute, online, tmp_path, caplog):
    server = Server(mute=True)
    online(server.url)
    if not mute:
        server.close()
    start = time.monotonic()
    for index in range(2):
        built = loggers.build(
            {"wandb": partial(WandbLogger, timeout=5 if mute else 1)}, make_run(tmp_path, f"r{index}")
        )
        log(built, {"epoch": 1, "a": index}, step=0)
        loggers.finish(built, RECORD)
    wandb.teardown()  # what a process does when it ends
    assert time.monotonic() - start < 10
    server.close()
    (warning,) = warnings(caplog)  # asked once
    assert "did not answer" in warning
    assert "wandb sync" in warning
    assert [history(folder) for folder in folders(tmp_path)] == [[{"_step": 0, "epoch": 1, "a": a}] for a in (0, 1)]
    assert all(folder.name.startswith("offline-run-") for folder in folders(tmp_path))


def test_a_server_that_falls_silent_costs_seconds_and_no_data(online, tmp_path, caplog):
    server = Server()
    online(server.url)
    built = loggers.build({"wandb": partial(WandbLogger, timeout=2)}, make_run(tmp_path))
    log(built, {"a": 1}, step=0)
    server.mute = True
    log(built, {"a": 2}, step=10)
    start = time.monotonic()
    loggers.finish(built, RECORD)
    wandb.teardown()
    assert time.monotonic() - start < 5
    server.close()
    assert any("wandb sync" in line for line in warnings(caplog))
    (folder,) = folders(tmp_path)
    assert [row["a"] for row in history(folder)] == [1, 2]


def test_a_service_that_dies_costs_the_logger_not_the_run(clean, tmp_path, caplog):
    psutil = pytest.importorskip("psutil")
    wandb.teardown()
    before = set(psutil.Process().children(recursive=True))
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    (service,) = set(psutil.Process().children(recursive=True)) - before
    service.kill()
    service.wait(10)
    start = time.monotonic()
    for step in range(3):
        log(built, {"a": 1}, step=step)
    loggers.finish(built, RECORD)
    assert time.monotonic() - start < 5
    assert len(warnings(caplog)) == 1
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path, "next"))
    log(built, {"epoch": 1, "a": 1}, step=0)
    loggers.finish(built, RECORD)
    assert history(folders(tmp_path)[-1]) == [{"_step": 0, "epoch": 1, "a": 1}]


def test_a_key_that_cannot_be_one_leaves_the_run_offline(online, tmp_path, caplog):
    online("http://127.0.0.1:9")
    os.environ["WANDB_API_KEY"] = "5hort"
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    log(built, {"epoch": 1, "a": 1}, step=0)
    loggers.finish(built, RECORD)
    (warning,) = warnings(caplog)
    assert "cannot use the credentials for http://127.0.0.1:9" in warning
    assert "5hort" not in warning
    assert history(folders(tmp_path)[0]) == [{"_step": 0, "epoch": 1, "a": 1}]


@pytest.mark.parametrize("resumed", [False, True])
def test_when_logged_in_rows_go_to_the_server_and_a_resumed_run_continues(resumed, online, tmp_path):
    server = Server(resumed=resumed)
    online(server.url)
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    for step in (30, 40, 50, 60):
        log(built, {"epoch": step / 10, "a": step}, step=step)
    loggers.finish(built, RECORD)
    wandb.teardown()
    server.close()
    assert [row["a"] for row in server.rows()] == ([50, 60] if resumed else [30, 40, 50, 60])
    upsert = next(body for _, body in server.requests if "mutation UpsertBucket" in body)
    variables = json.loads(upsert)["variables"]
    assert (variables["name"], variables["groupName"]) == ("ablation-0123456789ab", "ablation")
    assert not variables.get("host")


def test_wandb_files_name_no_key_machine_or_path(online, tmp_path):
    host = "machine-5ecret"
    report(tmp_path / "ablation")
    for url in (None, "offline"):
        server = Server()
        online(server.url)
        os.environ["WANDB_HOST"] = host
        settings = {"mode": url}
        parts = {"wandb": partial(WandbLogger, **settings)}
        built = loggers.build(parts, make_run(tmp_path))
        log(built, ROW, step=0)
        loggers.finish(built, RECORD)
        loggers.log_report(parts, tmp_path / "ablation", experiment="ablation")
        wandb.teardown()
        server.close()
        sent = "".join(body for _, body in server.requests)
        assert host not in sent
    del os.environ["WANDB_HOST"]
    assert len(folders(tmp_path)) == 4
    repository = Path(__file__).parents[1]
    secrets = [KEY, host, str(Path.home()), str(tmp_path), str(repository), sys.executable, " ".join(sys.argv[1:])]
    secrets += [socket.gethostname()] if len(socket.gethostname()) > 5 else []  # a short one occurs by chance
    for path in (tmp_path / "ablation" / "wandb").rglob("*"):
        assert not path.is_symlink()
        content = path.read_bytes() if path.is_file() else b""
        for secret in filter(None, secrets):
            assert secret.encode() not in content, f"{secret} in {path}"


# ---------------------------------------------------------------- the report of a sweep


def report(folder: Path) -> None:
    from PIL import Image

    (folder / "figures").mkdir(parents=True)
    (folder / "table.csv").write_text('regularization,test acc. (%)\nnone,61.0\n"l2, mixup",64.5\n')
    Image.new("RGB", (4, 3)).save(folder / "figures" / "gap.png")


def test_the_report_of_a_sweep_is_a_run_with_table_and_figures(clean, tmp_path):
    report(tmp_path / "ablation")
    loggers.log_report({"csv": partial(CSVLogger)}, tmp_path / "ablation", experiment="ablation")
    assert not (tmp_path / "ablation" / "wandb").exists()  # wandb was not among the loggers
    loggers.log_report({"wandb": partial(WandbLogger)}, tmp_path / "ablation", experiment="ablation")
    (folder,) = folders(tmp_path)
    header = inspect_run(folder)["run"][0]["run"]
    assert (header["run_id"], header["run_group"], header["job_type"]) == ("ablation-report", "ablation", "report")
    (row,) = history(folder)
    table = json.loads((folder / "files" / row["report/table.path"]).read_text())
    assert table["columns"] == ["regularization", "test acc. (%)"]
    assert table["data"] == [["none", "61.0"], ["l2, mixup", "64.5"]]
    assert (folder / "files" / row["report/gap.path"]).read_bytes().startswith(b"\x89PNG")
