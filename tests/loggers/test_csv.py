import time
from functools import partial

from genbench import loggers
from genbench.loggers import CSVLogger
from tests.helpers.loggers import RECORD, ROW, log, make_run, read


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
