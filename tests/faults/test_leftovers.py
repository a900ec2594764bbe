"""What killed processes leave half written is removed by the next command, unless its maker lives."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from genbench import config, records
from genbench.runs import sweep
from genbench.runs.executors import Processes
from tests.helpers.faults import jobs

KEEPING = """
import sys, time
from genbench import records
with records.atomic(sys.argv[1]) as file:
    file.write(b"half of it")
    file.flush()
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writing(tmp_path):
    """A process in the midst of writing a file of a run's folder."""
    target = tmp_path / "default" / "0123456789ab" / "weights.pt"
    target.parent.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", KEEPING, str(target)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written\n"
    yield process, target
    process.kill()
    process.communicate()


def test_a_file_that_is_being_written_is_removed_only_once_its_writer_is_dead(writing):
    process, target = writing
    (stage,) = target.parent.iterdir()
    records.tidy(target.parents[1], runs=False)
    records.tidy(target.parents[1], runs=True)
    assert stage.read_bytes() == b"half of it"
    process.send_signal(signal.SIGKILL)
    process.wait()
    records.tidy(target.parents[1], runs=False)
    assert stage.exists()
    records.tidy(target.parents[1], runs=True)
    assert list(target.parent.iterdir()) == []


def test_a_sweep_removes_what_killed_ones_were_writing(configure, tmp_path):
    folder = tmp_path / "runs" / "default"
    left = [folder / ".table.md.0123456789ab.tmp", folder / "packs" / ".a.ckpt.0123456789ab.tmp"]
    kept = [folder / "notes.tmp", folder / ".mine", folder / "other" / "record.json"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.mkfifo(folder / ".pipe.tmp")  # whose opening would wait for ever
    sweep.run(jobs(configure, None), command=[], executor=Processes(n_jobs=1))
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in kept)
    assert not list(folder.rglob(".*.tmp"))


def test_the_folder_of_hydras_own_files_does_not_outlive_a_killed_command_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    making = "import time; from genbench import config; print(config._scratch(), flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", making], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        theirs = Path(process.stdout.readline().strip())
        ours = Path(config._scratch.__wrapped__())
        assert theirs.is_dir()
        process.kill()
        process.wait()
    again = Path(config._scratch.__wrapped__())
    assert (theirs.exists(), ours.is_dir(), again.is_dir()) == (False, True, True)
