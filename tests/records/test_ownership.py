"""One's own files are known by a key that nobody else can read."""

import multiprocessing
import stat

import pytest

from genbench.records import ownership


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_a_mark_is_of_one_content_and_one_key(folder):
    mark = ownership.of("ab")
    assert ownership.is_own("ab", mark)
    assert not ownership.is_own("ac", mark)
    assert not ownership.is_own("ab", "0" * 64)
    assert not any(ownership.is_own("ab", mark) for mark in (None, 3, "", "ä", ["x"]))
    (folder / "key").unlink()
    assert not ownership.is_own("ab", mark)
    assert ownership.of("ab") != mark


def test_the_key_is_its_owners_alone(folder):
    mark = ownership.of("ab")
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["key"]
    (folder / "key").chmod(0o644)  # others may have read it
    assert not ownership.is_own("ab", mark)
    assert ownership.of("ab") != mark
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600


def test_a_key_that_is_a_link_or_damaged_is_none(folder, tmp_path):
    mark = ownership.of("ab")
    (folder / "key").rename(tmp_path / "elsewhere")
    (folder / "key").symlink_to(tmp_path / "elsewhere")
    assert not ownership.is_own("ab", mark)
    (folder / "key").unlink()
    (folder / "key").write_bytes(b"short")
    (folder / "key").chmod(0o600)
    assert not ownership.is_own("ab", mark)


def test_where_no_key_can_be_kept_nothing_is_marked(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CONFIG", str(tmp_path / "file" / "config"))
    assert ownership.of("ab") is None
    assert not ownership.is_own("ab", None)


def test_processes_that_make_the_key_at_once_make_one(folder):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(ownership.of, ["ab"] * 16, chunksize=1)
    assert len(set(found)) == 1
    assert ownership.is_own("ab", found[0])
