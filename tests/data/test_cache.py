import multiprocessing
import os
import time

import numpy as np
import pytest

from genbench.data import cache


def at_once(work):
    """Two processes that do the same thing at the same time, both to its end."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(2)
    processes = [context.Process(target=work, args=(ready,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def make():
    return {"x": np.arange(6.0).reshape(2, 3), "y": np.array([0, 1])}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never():
    raise AssertionError("made although it was stored")


def test_made_once_and_read_back_exactly(folder):
    cache.cached("a", make)
    again = cache.cached("a", never)
    assert again.keys() == {"x", "y"}
    assert all(np.array_equal(again[k], make()[k]) and again[k].dtype == make()[k].dtype for k in again)
    assert sorted(os.listdir(folder)) == ["a.npz", "a.npz.lock"]


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "changed", "pickled"])
def test_damaged_is_made_again(folder, damage):
    cache.cached("a", make)
    path = folder / "a.npz"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        path.write_text("something else")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "changed":  # a valid archive whose numbers are not those of the digest
        np.savez(path, digest=np.array(cache.content_digest(make())), **{**make(), "y": np.array([1, 1])})
    else:
        np.savez(path, x=np.array([{}], dtype=object))
    assert np.array_equal(cache.cached("a", make)["y"], [0, 1])
    assert np.array_equal(cache.cached("a", never)["y"], [0, 1])  # and stored again


def test_a_folder_that_cannot_be_written_does_not_stop_anything(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert np.array_equal(cache.cached("a", make)["y"], [0, 1])
    assert "a is not cached (NotADirectoryError)" in caplog.text


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    assert np.array_equal(cache.cached("a", make)["y"], [0, 1])
    assert os.listdir(folder) in ([], ["a.npz.lock"])


def test_two_processes_at_once_make_it_once(tmp_path):
    journal = tmp_path / "journal"

    def slow():
        with journal.open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return make()

    def work(ready):
        ready.wait()
        assert np.array_equal(cache.cached("a", slow)["y"], [0, 1])

    at_once(work)
    assert journal.read_text() == "made\n"


def test_digest_depends_on_names_types_shapes_and_values():
    x = np.arange(6.0)
    variants = [{"x": x}, {"z": x}, {"x": x.astype("float32")}, {"x": x.reshape(2, 3)}, {"x": x + 1}]
    assert len({cache.content_digest(variant) for variant in variants}) == len(variants)


def fill(path):
    (path / "a").write_text("whole")


def whole(path):
    return (path / "a").is_file() and (path / "a").read_text() == "whole"


def test_a_folder_is_made_once_and_again_where_it_is_not_whole(folder):
    made = []
    for damage in ("half", None, None):
        path = cache.cached_folder("set", lambda path: made.append(1) or fill(path), whole=whole)
        assert whole(path)
        assert os.listdir(path) == ["a"]
        if damage:
            (path / "a").write_text(damage)
            (path / "rest").write_text("of something else")
    assert len(made) == 2
    assert sorted(os.listdir(folder)) == ["set", "set.lock"]


def test_what_a_killed_process_left_of_a_folder_is_removed(folder):
    (folder / ".set.left").mkdir(parents=True)
    (folder / ".set.left" / "a").write_text("part")
    cache.cached_folder("set", fill, whole=whole)
    assert sorted(os.listdir(folder)) == ["set", "set.lock"]


def test_a_folder_that_cannot_be_made_leaves_nothing(folder):
    def broken(path):
        fill(path)
        raise ValueError("image 7 is corrupt")

    with pytest.raises(ValueError, match="image 7 is corrupt"):
        cache.cached_folder("set", broken, whole=whole)
    assert os.listdir(folder) == ["set.lock"]


def test_two_processes_at_once_make_a_folder_once(folder, tmp_path):
    journal = tmp_path / "journal"

    def slow(path):
        with journal.open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        fill(path)

    def work(ready):
        ready.wait()
        assert whole(cache.cached_folder("set", slow, whole=whole))

    at_once(work)
    assert journal.read_text() == "made\n"
