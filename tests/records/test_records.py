import errno
import json
import os

import pytest
from filelock import FileLock

from genbench import records
from genbench.runs.executors.processes import start_server


def make(run_id="0123456789ab", **changes):
    return {
        "schema": 3,
        "run_id": run_id, "experiment": "toy", "status": "completed", "error": None,
        "config": {"seed": 0, "data": {"label_noise": 0.2}},
        "choices": {"regularization": ["l2", "sam"], "model": "mlp"}, "altered": {},
        "seed": 0, "metrics": {"test/performance/accuracy": 0.1 + 0.2, "train/flatness/lambda_1": None},
        "stderr": {}, "converged": {}, "residual": {}, "interval": {},
        "notes": {"train/flatness/lambda_1": "not twice differentiable"},
        "history": "history.csv", "provenance": {"torch": "2.13.0"},
        "seconds": {"fit": 1.5, "measure": 0.5, "total": 2.0},
        "measure_seconds": {"train/flatness/lambda_1": 0.25},
        **changes,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "toy" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,step,seconds\n0,1,0.5\n")
    (folder / "weights.pt").write_bytes(b"weights")
    return folder


def test_round_trip_is_exact_and_leaves_nothing_else(run):
    written = records.write(run, make())
    assert records.read(run / "record.json") == records.read(run) == records.verify(run) == written
    assert written["metrics"]["test/performance/accuracy"] == 0.1 + 0.2
    assert set(written["files"]) == {"history.csv", "weights.pt"}
    assert sorted(path.name for path in run.iterdir()) == ["history.csv", "record.json", "weights.pt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_write_refuses_what_is_not_a_finite_number(run, value):
    with pytest.raises(ValueError, match="metrics\\['test/gap/accuracy'\\] is "):
        records.write(run, make(metrics={"test/gap/accuracy": value}))
    assert not (run / "record.json").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"metrics": {"a": "0.5"}}, "metrics\\['a'\\] must be a number or null, is a string"),
        ({"metrics": {"a": True}}, "metrics\\['a'\\] must be a number or null"),
        ({"seed": True}, "'seed' must be a number"),
        ({"interval": {"test/performance/accuracy": [1]}}, "interval.* must be a list of two numbers, is \\[1\\]"),
        ({"interval": {"test/performance/accuracy": [0.0, None]}}, "must be a list of two numbers"),
        ({"interval": {"test/performance/accuracy": [2, 1]}}, "must be \\[low, high\\], is \\[2, 1\\]"),
        ({"interval": []}, "'interval' must be an object, is a list"),
        ({"measure_seconds": {"test/performance/accuracy": None}}, "must be a number, is null"),
        ({"measure_seconds": {"a": 1.0}}, "measure_seconds\\['a'\\] belongs to no metric"),
        ({"stderr": {"a": 1.0}}, "stderr\\['a'\\] belongs to no metric"),
        ({"status": "done"}, "'status' must be one of completed, diverged, failed, is 'done'"),
        ({"config": {1: 2}}, "keys must be strings"),
        ({"config": {"f": print}}, "config\\['f'\\] is a builtin"),
        ({"run_id": "../x"}, "'run_id' must be a folder's name"),
        ({"schema": 1}, "schema 1, this version reads 2 and 3"),
    ],
)
def test_write_refuses_a_malformed_record(run, change, match):
    with pytest.raises(ValueError, match=match):
        records.write(run, make(**change))


def test_read_notices_every_truncation(run):
    records.write(run, make())
    whole = (run / "record.json").read_bytes()
    for end in range(len(whole) - 1):  # without its final newline a record is still whole
        (run / "record.json").write_bytes(whole[:end])
        with pytest.raises(records.RecordError) as error:
            records.read(run)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is empty"),
        ("[1]", "not a JSON object but a list"),
        ('{"a": 1}', "not a record of genbench"),
        ('{"schema": 7}', "has schema 7"),
        ('{"schema": 2}', "has no 'run_id'"),
        ('{"schema": NaN}', "NaN is not a JSON number"),
        ("\xff\xfe", "truncated or not JSON"),
    ],
)
def test_read_refuses_what_is_foreign(run, content, match):
    (run / "record.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(records.RecordError, match=match):
        records.read(run)


@pytest.mark.parametrize("part", ["stderr", "converged", "residual", "interval", "notes", "measure_seconds"])
def test_no_part_of_a_record_may_be_missing(run, part):
    whole = make()
    del whole[part]
    with pytest.raises(ValueError, match=f"has no '{part}'"):
        records.write(run, whole)


def test_intervals_and_seconds_round_trip(run):
    key = "test/performance/accuracy"
    written = records.write(run, make(interval={key: [0.25, 0.5]}, measure_seconds={key: 1.5}))
    found = records.read(run)
    assert found == written
    assert (found["interval"][key], found["measure_seconds"][key]) == ([0.25, 0.5], 1.5)


def test_altered_record_and_altered_files_are_noticed(run):
    records.write(run, make())
    text = (run / "record.json").read_text()
    (run / "record.json").write_text(text.replace("0.30000000000000004", "0.9"))
    with pytest.raises(records.RecordError, match="altered"):
        records.read(run)
    (run / "record.json").write_text(text)
    (run / "weights.pt").write_bytes(b"weighty")
    assert records.read(run)
    with pytest.raises(records.RecordError, match=r"weights\.pt is damaged"):
        records.verify(run)
    (run / "weights.pt").unlink()
    with pytest.raises(records.RecordError, match=r"weights\.pt is missing"):
        records.verify(run)


def test_history_is_checked(run):
    record = records.write(run, make())
    assert list(records.history(run, record)["epoch"]) == [0]
    (run / "history.csv").write_text("epoch\n")
    with pytest.raises(records.RecordError, match="damaged"):
        records.history(run, record)


def test_curves_are_the_named_columns_of_the_history(run):
    (run / "history.csv").write_text('epoch,step,loss,"a,b"\n0,5,,2e-1\n1,10,0.5,\n')
    record = records.write(run, make())
    assert records.curves(run, record, ["epoch", "loss", "a,b", "absent"]) == {
        "epoch": [0, 1], "loss": [None, 0.5], "a,b": [0.2, None]
    }  # fmt: skip
    for text, said in (
        ("epoch\nfirst\n", "could not convert"),
        ("step,epoch\n1\n", "out of range"),
        ("", "not enough"),
    ):
        (run / "history.csv").write_text(text)
        record = records.write(run, make())
        with pytest.raises(records.RecordError, match=rf"history\.csv is no table of numbers \(.*{said}"):
            records.curves(run, record, ["epoch"])


def test_load_lists_problems_and_never_skips(run):
    folder = run.parent
    records.write(run, make())
    (folder / "copy").mkdir()
    (folder / "copy" / "record.json").write_bytes((run / "record.json").read_bytes())
    (folder / "broken").mkdir()
    (folder / "broken" / "record.json").write_text("{")
    (folder / "sweep.json").write_text("{}")
    loaded = records.load(folder)
    assert [record["run_id"] for record in loaded.records] == ["0123456789ab"]
    assert dict(loaded.problems)["copy/record.json"] == "belongs to run 0123456789ab, not to this folder"
    assert dict(loaded.problems)["broken/record.json"].startswith("is truncated")
    assert dict(loaded.problems)["sweep.json"].startswith("has schema None")
    assert loaded.sweep is None


def test_frame_is_flat(run):
    records.write(run, make())
    row = records.load(run.parent).frame().iloc[0]
    assert row["choices.regularization"] == "l2+sam"
    assert row["config.data.label_noise"] == 0.2
    assert row["seconds.fit"] == 1.5
    assert row["test/performance/accuracy"] == 0.1 + 0.2


def test_relative_folder_is_accepted(run, monkeypatch):
    records.write(run, make())
    monkeypatch.chdir(run.parent)
    assert len(records.load(".").records) == 1
    monkeypatch.chdir(run)
    assert records.verify(".")


def hold(path, held, release):
    with FileLock(path):
        held.set()
        release.wait(30)


def test_status(tmp_path):
    names = ["completed", "diverged", "failed", "damaged", "locked", "absent"]
    records.write_sweep(
        tmp_path,
        {"experiment": "toy", "command": ["experiment=toy"], "table": None,
         "runs": [{"run_id": name, "overrides": []} for name in names]},
    )  # fmt: skip
    for name in names[:3]:
        records.write(tmp_path / name, make(name, status=name, history=None))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "record.json").write_text("{")
    (tmp_path / "locked").mkdir()
    (tmp_path / "completed" / ".lock").touch()
    context = start_server()
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / "locked" / ".lock"), held, release))
    process.start()
    assert held.wait(30)
    expected = dict(zip(names, ["done", "diverged", "failed", "damaged", "running", "missing"], strict=True))
    assert records.status(tmp_path) == expected
    assert not (tmp_path / "absent").exists()
    release.set()
    process.join()
    assert records.status(tmp_path) == expected | {"locked": "missing"}


def test_sweep_is_checked(tmp_path):
    with pytest.raises(records.RecordError, match="is missing"):
        records.read_sweep(tmp_path)
    records.write_atomic(
        tmp_path / "sweep.json", json.dumps({"schema": 2, "command": [], "runs": [{"run_id": "../a"}]})
    )
    with pytest.raises(records.RecordError, match="run_id"):
        records.read_sweep(tmp_path)


def fail(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_atomic_write_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    records.write_atomic(target, "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        records.write_atomic(target, "new, but the disk is full")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    records.write_atomic(target, b"new")
    assert target.read_text() == "new"


def test_atomic_write_never_shows_half_a_file(tmp_path, monkeypatch):
    """The rename comes after the content is on disk, and the folder is synced after the rename."""
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(os.path.getsize(a)), replace(a, b))[1])
    records.write_atomic(tmp_path / "a", "12345")
    assert events == ["sync", 5, "sync"]


def test_only_regular_files_are_read_through_links_if_their_target_is_one(run):
    whole = records.write(run, make())
    (run.parent / "elsewhere.json").write_bytes((run / "record.json").read_bytes())
    (run / "record.json").unlink()
    (run / "record.json").symlink_to(run.parent / "elsewhere.json")
    assert records.read(run) == whole
    with pytest.raises(OSError, match="Larger than 100 bytes"):
        records.read_bytes(run / "record.json", limit=100)
    assert len(records.read_bytes(run / "history.csv", limit=27)) == 27
    readers = {
        "record.json": lambda: records.read(run),
        "history.csv": lambda: records.history(run, whole),
        "sweep.json": lambda: records.read_sweep(run.parent),
    }
    for name, read in readers.items():
        for kind in ("pipe", "device"):
            path = (run.parent if name == "sweep.json" else run) / name
            path.unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(path)  # to open it would wait for a writer for ever
            else:
                path.symlink_to("/dev/zero")  # has no end
            with pytest.raises(records.RecordError, match="cannot be read: Not a regular file"):
                read()
            with pytest.raises(OSError, match="Not a regular file"):
                records.file_digest(path)
            path.unlink()


def test_a_pipe_or_a_device_in_a_folder_is_a_problem_of_that_run_alone(run):
    records.write(run, make())
    for index, kind in enumerate(("pipe", "device")):
        folder = run.parent / (f"{index}" * 12)
        folder.mkdir()
        os.mkfifo(folder / "record.json") if kind == "pipe" else (folder / "record.json").symlink_to("/dev/zero")
    found = records.load(run.parent)
    assert [record["run_id"] for record in found.records] == ["0123456789ab"]
    assert [reason for _, reason in found.problems] == ["cannot be read: Not a regular file"] * 2
    assert set(records.status(run.parent).values()) == {"done", "damaged"}


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("theirs")
    (run / "record.json").symlink_to(other)
    records.write(run, make())
    assert other.read_text() == "theirs"
    assert not (run / "record.json").is_symlink()
    assert records.read(run)["seed"] == 0


def test_a_record_is_its_writers_own_until_it_is_changed(run, monkeypatch, tmp_path):
    records.write(run, make())
    assert records.is_own(records.read(run))
    text = json.loads((run / "record.json").read_text())
    for forged in (
        {**text, "mark": None},
        {key: value for key, value in text.items() if key != "mark"},
        {**text, "metrics": {**text["metrics"], "test/performance/accuracy": 1.0}},
    ):
        content = {key: value for key, value in forged.items() if key not in ("digest", "mark")}
        (run / "record.json").write_text(json.dumps({**forged, "digest": records.digest(content)}))
        assert not records.is_own(records.read(run))
    (run / "record.json").write_text(json.dumps(text))
    monkeypatch.setenv("GENBENCH_CONFIG", str(tmp_path / "another user's"))
    assert not records.is_own(records.read(run))


def test_a_record_of_schema_2_is_read(run):
    """As version 0.1 wrote them: without a mark."""
    written = {key: value for key, value in records.write(run, make(schema=2)).items() if key != "mark"}
    (run / "record.json").write_text(json.dumps(written))
    assert records.verify(run) == written
    assert not records.is_own(written)


def test_a_record_holds_nothing_that_must_not_be_shared(run):
    config = {"seed": 0, "model": {"words": "/home/somebody/words.txt", "api_key": "s3cret0123"}}
    records.write(
        run,
        make(
            config=config, provenance={"overrides": ["+model.api_key=s3cret0123"]}, error="s3cret0123 in /home/somebody"
        ),
    )
    text = (run / "record.json").read_text()
    assert "somebody" not in text
    assert "s3cret" not in text
    assert records.verify(run)["config"]["model"] == {"words": "…/words.txt", "api_key": "…"}


def leave(run, **changes):
    """A record with a digest of its own, as somebody else's program may have written it."""
    content = {**records.write(run, make()), **changes}
    content = {key: value for key, value in content.items() if key not in ("digest", "mark")}
    content["digest"] = records.digest(content)
    (run / "record.json").write_text(json.dumps(content))


def test_a_number_that_no_float_holds_is_a_null_with_a_reason(run):
    key, huge = "test/performance/accuracy", 10**400
    metrics = {key: huge, "test/gap/accuracy": 0.25, "weights/norm/l2": 1e308}
    leave(
        run, metrics=metrics, stderr={key: huge, "test/gap/accuracy": 0.5}, interval={key: [0, huge]},
        seconds={"fit": -huge, "total": 1.0}, measure_seconds={key: huge}, notes={},
    )  # fmt: skip
    found = records.verify(run)
    assert found["metrics"] == {key: None, "test/gap/accuracy": 0.25, "weights/norm/l2": 1e308}
    assert (found["stderr"], found["interval"], found["measure_seconds"]) == ({"test/gap/accuracy": 0.5}, {}, {})
    assert found["seconds"] == {"fit": None, "total": 1.0}
    reason = "the value is beyond what a float holds"
    assert found["notes"] == {key: reason, "seconds.fit": reason}
    assert records.estimates(found)[key].value is None


def test_an_infinite_number_is_no_records(run):
    leave(run, metrics={"test/performance/accuracy": 0.25}, stderr={}, notes={}, measure_seconds={})
    path = run / "record.json"
    path.write_text(path.read_text().replace("0.25", "1e999"))
    with pytest.raises(records.RecordError, match="holds a number that is not finite"):
        records.read(run)


def test_a_plan_that_was_altered_is_noticed(tmp_path):
    spec = {"columns": [{"label": "test", "metric": "test/performance/accuracy", "scale": 100}]}
    records.write_sweep(tmp_path, {"experiment": "toy", "command": ["seed=range(2)"], "table": spec, "runs": []})
    assert records.read_sweep(tmp_path)["table"] == spec
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace("100", "300"))
    with pytest.raises(records.RecordError, match="digest does not match: the content was altered"):
        records.read_sweep(tmp_path)
    assert records.load(tmp_path).problems == [("sweep.json", "digest does not match: the content was altered")]
    old = {"schema": 2, "experiment": "toy", "command": ["data.path=/home/somebody/x"], "table": spec, "runs": []}
    path.write_text(json.dumps(old))
    assert records.read_sweep(tmp_path) == {**old, "command": ["data.path=…/x"]}


@pytest.mark.parametrize("key", ["table", "claims", "paper"])
def test_the_table_and_the_claims_of_a_plan_are_objects(tmp_path, key):
    records.write_sweep(tmp_path, {"experiment": "toy", "command": [], "runs": [], key: []})
    with pytest.raises(records.RecordError, match=f"^'{key}' must be an object or null$"):
        records.read_sweep(tmp_path)


def test_a_plan_holds_nothing_that_must_not_be_shared(tmp_path):
    words = ["data.path=/home/somebody/my data", "+model.api_key=s3cret0123", "+url=https://u:pw@host/x?y=z", "seed=1"]
    runs = [{"run_id": "0123456789ab", "overrides": words}]
    records.write_sweep(tmp_path, {"experiment": "toy", "command": words, "table": None, "runs": runs})
    shortened = ["data.path=…/my data", "+model.api_key=…", "+url=https://…@host/x?…", "seed=1"]
    found = records.read_sweep(tmp_path)
    assert found["command"] == found["runs"][0]["overrides"] == shortened
