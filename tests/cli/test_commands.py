"""What a newcomer types wrong, and what the commands say of it."""

import pytest

from tests.helpers.commands import importable, typed

MINE = "mine:\n  _target_: {}\n"


@pytest.fixture
def work(tmp_path):
    """A folder with a method ``mine`` in my_conf, whose class is in no module yet."""
    group = tmp_path / "my_conf" / "regularization"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text(MINE.format("my_newcomer.Mine"))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("genbench --dryrun", "--dry-run"),
        ("genbench --config_dir=x", "--config-dir"),
        ("genbench --vers", "--version"),
        ("genbench-table --al .", "--all"),
        ("genbench-table . --dash", "--dashboard"),
    ],
)
def test_an_unknown_flag_is_no_other_one_and_says_which_it_resembles(work, words, meant):
    name, *arguments = words.split()
    status, out, err = typed(work, name, *arguments)
    (flag,) = (word.partition("=")[0] for word in arguments if word != ".")
    assert (status, out) == (1, "")
    assert err.startswith(f"{name}: unrecognized arguments: {flag}")
    assert err.endswith(f"; did you mean '{meant}'?\n")


def test_a_class_that_is_not_found_says_where_python_would_find_it(work):
    words = ["--config-dir", "my_conf", "regularization=mine"]
    said = "genbench: regularization.mine._target_='my_newcomer.Mine' cannot be imported: "
    status, _, err = typed(work, "genbench", *words)
    assert status == 1
    assert err.splitlines()[-1] == f"{said}No module named 'my_newcomer'; is its folder in PYTHONPATH?"
    (work / "my_newcomer.py").write_text("class Mines:\n    pass\n")
    _, _, err = typed(work, "genbench", *words)
    here = "my_newcomer.py lies in this folder: begin the command with PYTHONPATH=."
    assert err.splitlines()[-1] == f"{said}No module named 'my_newcomer'; {here}"
    with importable(work):
        _, _, err = typed(work, "genbench", *words)
    assert err.splitlines()[-1] == f"{said}my_newcomer has no 'Mine'; did you mean 'Mines'?"


def test_a_choice_in_a_folder_that_was_not_given_says_how_to_give_it(work):
    status, _, err = typed(work, "genbench", "regularization=mine")
    assert (status, err) == (1, "genbench: regularization=mine: no such choice; did you mean --config-dir my_conf?\n")


def test_a_file_behind_one_of_ours_is_said_not_to_be_read(work):
    mine, words = work / "my_conf" / "regularization" / "l2.yaml", ["--config-dir", "my_conf", "--cfg", "job"]
    mine.write_text("l2:\n  _target_: my_newcomer.Mine\n")
    status, out, err = typed(work, "genbench", *words, "regularization=l2")
    assert status == 0
    assert "my_newcomer" not in out
    expected = "genbench has another file of that name, which comes first; rename yours"
    assert err == f"genbench: my_conf/regularization/l2.yaml is not read: {expected}\n"
    (work / "my_conf" / "regularization" / "l1.yaml").write_text("l1:\n  _target_: my_newcomer.Mine\n")
    assert "l1.yaml is not read (and 1 more): " in typed(work, "genbench", *words)[2]
    for path in mine.parent.glob("l?.yaml"):
        path.rename(path.with_stem(f"my_{path.stem}"))
    assert typed(work, "genbench", *words)[2] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("measures=full measures.relative_flatness.layer=nosuch", "measures.relative_flatness.layer is 'nosuch'; acc"),
        ("+callbacks.stop.network=nosuch", "network='nosuch' is not a part of Training; accepted: lanes"),
    ],
)
def test_a_part_that_the_network_has_not_is_refused_before_training(tmp_path, words, said):
    status, out, err = typed(tmp_path, "genbench", *words.split())
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"genbench: {said}")
    assert not list(tmp_path.iterdir())
