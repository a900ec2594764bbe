"""Records, plans, checkpoints and weights that were damaged or altered: noticed, named, and the run made again."""

import json
import random
import re
import sys

import pytest

from genbench import cli, records
from genbench.runs import execute
from genbench.runs.results import final_record
from genbench.runs.state import CHECKPOINT, read_checkpoint
from genbench.training import AtomicCheckpointIO
from tests.helpers import factory

STRANGE = (
    None, True, -1, 0, 10**400, 1e308, -1e308, 0.1, "", "x" * 5000, "=1+1", "a\nb", "\u202e\x1b[31m", "nan", [], {},
    [[[[]]]], {"a": {"b": [1, "2", None]}}, ["l2", 3, {}],
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """An experiment of six runs with their plan."""
    found = tmp_path / "ablation"
    for name in ("none", "l2", "sam"):
        for seed in (0, 1):
            factory.leave(found, factory.record(name, 0.0, seed))
    return found


def places(value, path=()):
    """The places of a JSON value."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def altered(value, draw):
    """A copy in which something at one place is another, gone or called otherwise."""
    value = json.loads(json.dumps(value))
    *path, last = draw.choice([path for path in places(value) if path])
    owner = value
    for key in path:
        owner = owner[key]
    kind = draw.randrange(4)
    if kind == 0:
        del owner[last]
    elif kind == 1 and isinstance(owner, dict):
        owner[draw.choice(["", "x.y", "__class__", "../up", str(last) * 2])] = owner.pop(last)
    else:
        owner[last] = draw.choice(STRANGE)
    return value


def damaged(content, draw):
    """Some bytes are others, gone or more."""
    content, at = bytearray(content), draw.randrange(len(content))
    kind = draw.randrange(4)
    if kind == 0:
        content[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:at] = draw.randbytes(draw.randrange(1, 9))
    else:
        content[at : at + 512] = bytes(len(content[at : at + 512]))  # a block that never reached the disk
    return bytes(content)


def content_of(record):
    return {key: value for key, value in record.items() if key != "mark"}


def test_a_damaged_record_is_a_problem_with_a_reason_and_of_its_run_alone(folder):
    draw = random.Random(0)
    whole = records.load(folder)
    path = sorted(folder.glob("*/record.json"))[2]
    content = path.read_bytes()
    for _ in range(300):
        path.write_bytes(damaged(content, draw))
        found = records.load(folder)
        if found.problems:
            ((name, reason),) = found.problems
            assert name == f"{path.parent.name}/record.json"
            assert reason
            assert "\n" not in reason
            assert found.records == [record for record in whole.records if record["run_id"] != path.parent.name]
        else:  # white space, which JSON does not count, or the mark of its owner, without which it is somebody else's
            assert [content_of(record) for record in found.records] == [content_of(record) for record in whole.records]
            theirs = [record["run_id"] for record in found.records if not records.is_own(record)]
            assert theirs == [path.parent.name] * (found.records != whole.records)
        assert (final_record(path.parent) is None) == bool(found.problems)


def test_an_altered_record_of_a_right_digest_costs_the_table_its_own_cells_at_most(folder, monkeypatch, capsys):
    """As somebody might send one: the table is made or refused in one line, never with an error of the program."""
    draw = random.Random(1)
    path = sorted(folder.glob("*/record.json"))[2]
    record = json.loads(path.read_text())
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    made = 0
    for _ in range(60):
        other = altered({key: value for key, value in record.items() if key != "digest"}, draw)
        other["digest"] = records.digest(other)
        path.write_text(json.dumps(other))
        monkeypatch.setattr(sys, "argv", ["genbench-table", str(folder), "--format", draw.choice(["markdown", "csv"])])
        try:
            cli.table()
            made += 1
        except SystemExit:
            pass
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert not re.search(r"genbench-table: \w+(Error|Exception): ", err), (err, other)
        assert len(err.splitlines()) <= 1, err
    assert made > 30


def test_damaged_weights_or_history_have_the_run_trained_again(configure, tmp_path):
    draw = random.Random(2)
    plain = configure("~measures.trace", "~measures.adaptive_sharpness", "~measures.average_sharpness")
    whole = execute.run(plain)
    folder = tmp_path / "runs" / "default" / whole["run_id"]
    for name in ("weights.pt", "initial.pt", "history.csv"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(damaged(content, draw))
        assert final_record(folder) is None
        assert records.status(folder.parent)[whole["run_id"]] == "damaged"
        assert execute.run(plain)["metrics"] == whole["metrics"]
        assert (folder / name).read_bytes() == content


def test_a_damaged_checkpoint_is_never_continued_from(tmp_path):
    draw = random.Random(3)
    io, path = AtomicCheckpointIO(), tmp_path / CHECKPOINT
    io.save_checkpoint({"global_step": 3, "state": list(range(100))}, path)
    content = path.read_bytes()
    for _ in range(300):
        path.write_bytes(other := damaged(content, draw))
        if other == content:  # zeros in the place of zeros
            assert io.load_checkpoint(path)["global_step"] == 3
        else:
            with pytest.raises(ValueError, match=r"checkpoint.ckpt is damaged"):
                io.load_checkpoint(path)
        assert (read_checkpoint(path.parent) is not None) == (other == content)
