import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from genbench import loggers
from genbench.checks import ConfigError
from genbench.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tests.helpers.loggers import RECORD, ROW, fit, log, make_run, read
from tests.helpers.wandb_server import Server

KEY = "5ecre7" * 7


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


def test_measures_of_a_finished_run_are_added_to_its_mirror_alone(clean, tmp_path):
    built = loggers.build({"wandb": partial(WandbLogger)}, make_run(tmp_path))
    log(built, ROW, step=10)
    loggers.finish(built, RECORD)
    (before,) = folders(tmp_path)
    parts = {"wandb": partial(WandbLogger, tags=[], notes=None, timeout=5)}
    loggers.check_adds(parts)
    for name in ("another_run", "0123456789ab"):
        loggers.add(parts, tmp_path / "ablation" / name, experiment="ablation", metrics={"train/flatness/new": 1.5})
    (after,) = {*folders(tmp_path)} - {before}
    header = inspect_run(after)["run"][0]["run"]
    assert (header["run_id"], header["project"]) == ("ablation-0123456789ab", "genbench")
    assert not {"tags", "notes", "run_group"} & header.keys()
    assert {key: value for key, value in summary(after).items() if key[0] != "_"} == {"train/flatness/new": 1.5}
    with pytest.raises(ConfigError, match="logger=csv does not take measures of finished runs; accepted: wandb"):
        loggers.check_adds({"csv": partial(CSVLogger)})


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
    repository = Path(__file__).parents[2]
    secrets = [KEY, host, str(Path.home()), str(tmp_path), str(repository), sys.executable, " ".join(sys.argv[1:])]
    secrets += [socket.gethostname()] if len(socket.gethostname()) > 5 else []  # a short one occurs by chance
    for path in (tmp_path / "ablation" / "wandb").rglob("*"):
        assert not path.is_symlink()
        content = path.read_bytes() if path.is_file() else b""
        for secret in filter(None, secrets):
            assert secret.encode() not in content, f"{secret} in {path}"


def report(folder: Path) -> None:
    from PIL import Image

    (folder / "figures").mkdir(parents=True)
    (folder / "table.csv").write_text('regularization,test acc. (%)\nnone,61.0\n"l2, mixup",64.5\n')
    (folder / "claims.csv").write_text("claim,verdict\nC1,replicated\n")
    (folder / "claims.csv").write_text("claim,verdict\nC1,replicated\n")
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
    verdicts = json.loads((folder / "files" / row["report/claims.path"]).read_text())
    assert (verdicts["columns"], verdicts["data"]) == (["claim", "verdict"], [["C1", "replicated"]])
    assert (folder / "files" / row["report/gap.path"]).read_bytes().startswith(b"\x89PNG")
