import socket
from functools import partial

import pytest

from genbench import loggers
from genbench.loggers import TensorBoardLogger
from tests.helpers.loggers import RECORD, ROW, log, make_run


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
