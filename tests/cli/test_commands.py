"""What a newcomer types wrong, and what the commands say of it."""

import re

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


COMMENTS = "# words\n\n  # more words\n"


@pytest.mark.parametrize(
    ("group", "text", "accepted"),
    [
        ("regularization", COMMENTS, "mine: {_target_: my_package.MyClass}"),
        ("regularization", "mine:\n", "mine: {_target_: my_package.MyClass}"),
        ("measures", COMMENTS, "mine: {_target_: my_package.MyClass}"),
        ("callbacks", "", "mine: {_target_: my_package.MyClass}"),
        ("logger", "---\n{}\n", "mine: {_target_: my_package.MyClass}"),
        ("data", COMMENTS, "_target_: my_package.MyClass"),
        ("model", COMMENTS, "_target_: my_package.MyClass"),
        ("optimizer", COMMENTS, "_target_: my_package.MyClass"),
        ("scheduler", COMMENTS, "_target_: my_package.MyClass"),
        ("trainer", COMMENTS, "_target_: my_package.MyClass"),
        ("experiment", f"# @package _global_\n{COMMENTS}", "name: mine"),
    ],
)
def test_a_choice_that_sets_nothing_is_refused(work, group, text, accepted):
    (work / "my_conf" / group).mkdir(exist_ok=True)
    (work / "my_conf" / group / "mine.yaml").write_text(text)
    status, out, err = typed(work, "genbench", "--config-dir", "my_conf", f"{group}=mine")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == f"genbench: {group}/mine.yaml sets nothing; accepted: {accepted}, say"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("genbench", ["-m", "regularization=none,mine"]),
        ("genbench", ["-m", "regularization=[l2,mine]"]),
        ("genbench-measure", ["measures=mine", "checkpoint=nosuch"]),
    ],
)
def test_a_choice_that_sets_nothing_is_refused_among_others(work, name, words):
    for group in ("regularization", "measures"):
        (work / "my_conf" / group).mkdir(exist_ok=True)
        (work / "my_conf" / group / "mine.yaml").write_text(COMMENTS)
    status, _, err = typed(work, name, "--config-dir", "my_conf", *words)
    assert status == 1
    assert re.search(rf"\A(genbench: a sweep .*\n)?{name}: \w+/mine\.yaml sets nothing; accepted: .*\n\Z", err)


def test_a_choice_called_none_may_set_nothing(work):
    for group in ("regularization", "callbacks"):
        (work / "my_conf" / group).mkdir(exist_ok=True)
        (work / "my_conf" / group / "none.yaml").write_text(COMMENTS)
    words = ["--config-dir", "my_conf", "callbacks=none", "--cfg", "job", "--package", "callbacks"]
    status, out, err = typed(work, "genbench", *words, "regularization=none")
    assert (status, out.split()) == (0, ["#", "@package", "callbacks", "{}"]), err


MALFORMED = b"mine:\n  a: [1\n  b: 2\n"
UNREADABLE = [
    (
        MALFORMED,
        "mine.yaml, line 3: expected ',' or ']', but got ':' (while parsing a flow sequence of line 2)",
    ),
    (b"mine:\n  a: b: c\n", "mine.yaml, line 2: mapping values are not allowed here"),
    (b"# caf\xe9\n", "mine.yaml is no text in UTF-8"),
    (b"a: \x07\n", "mine.yaml: unacceptable character #x0007: special characters are not allowed"),
]


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        *(("regularization=mine", *file) for file in UNREADABLE),
        ("modl=cnn", *UNREADABLE[0]),
        ("--help", *UNREADABLE[2]),
        ("regularization=mine --help", *UNREADABLE[0]),
        ("--cfg job modl=cnn", *UNREADABLE[0]),
    ],
    ids=str,
)
def test_a_malformed_file_is_named_with_the_line_of_its_fault(work, words, content, said):
    (work / "my_conf" / "regularization" / "mine.yaml").write_bytes(content)
    status, out, err = typed(work, "genbench", *words.split(), "--config-dir", "my_conf")
    assert (status, out, err) == (1, "", f"genbench: regularization/{said}\n")


@pytest.mark.parametrize("flag", ["--cfg job", "--info"])
def test_one_configuration_is_shown_and_not_those_of_several_runs(work, flag):
    status, out, err = typed(work, "genbench", "-m", "seed=0,1", *flag.split())
    said = "--cfg and --info show one configuration: leave out -m and the settings of several runs; see genbench --help"
    assert (status, out, err) == (1, "", f"genbench: {said}\n")


def test_a_malformed_file_that_is_not_read_is_no_obstacle(work):
    (work / "my_conf" / "regularization" / "mine.yaml").write_bytes(MALFORMED)
    status, out, err = typed(work, "genbench", "--config-dir", "my_conf", "--cfg", "job", "seed=3")
    assert (status, err) == (0, "")
    assert "\nseed: 3\n" in out


@pytest.mark.parametrize("key", ["regularization.l2", "logger.csv"])
def test_a_choice_that_is_set_to_null_says_how_to_take_it_out(work, key):
    words = ["regularization=l2", "trainer.accelerator=cpu", "trainer.max_steps=5", "--dry-run"]
    status, _, err = typed(work, "genbench", *words, f"{key}=null")
    assert (status, err.splitlines()[-1]) == (1, f"genbench: {key} is null; accepted: ~{key}, which takes it out")
    status, out, err = typed(work, "genbench", *words, f"~{key}")
    assert status == 0, err
    assert out.endswith("\n1 run: 1 to train\n")


def test_an_experiment_without_its_first_line_is_told_it(work):
    (work / "my_conf" / "experiment").mkdir()
    (work / "my_conf" / "experiment" / "mine.yaml").write_text("name: mine\n")
    status, _, err = typed(work, "genbench", "--config-dir", "my_conf", "experiment=mine")
    assert (status, err) == (1, "genbench: experiment/mine.yaml must begin with the line: # @package _global_\n")


@pytest.mark.parametrize(
    "words",
    [
        "-m seed=0,1 --dry-run model.width=4 --config-dir my_conf optimizer.lr=0.1",
        "seed=0,1 model.width=4 optimizer.lr=0.1 --dry-run -cd my_conf -m",
    ],
)
def test_flags_and_settings_stand_in_any_order(work, words):
    status, out, err = typed(work, "genbench", *words.split())
    assert status == 0, err
    runs = [line.split("  ", 2) for line in out.splitlines()[:2]]
    assert [words for *_, words in runs] == ["seed=0", "seed=1"]
    assert out.endswith("\n2 runs: 2 to train\n")


def test_settings_between_flags_are_applied(work):
    status, out, _ = typed(
        work, "genbench", "seed=3", "--cfg", "job", "name=mine", "--package", "_global_", "threads=2"
    )
    assert status == 0
    assert {"seed: 3", "name: mine", "threads: 2"} <= set(out.splitlines())
    status, out, _ = typed(work, "genbench-measure", "checkpoint=x", "--cfg", "job", "split=test")
    assert status == 0
    assert {"checkpoint: x", "split: test"} <= set(out.splitlines())


def test_a_flag_between_the_folders_of_tables(work):
    for name in ("one", "two"):
        (work / f"{name}.csv").write_text(f"method,seed,accuracy\n{name},0,0.5\n")
    words = ["one.csv", "--format", "csv", "two.csv", "--columns", "accuracy"]
    status, out, err = typed(work, "genbench-table", *words)
    assert (status, err) == (0, "")
    assert [name in out for name in ("one", "two")] == [True, True]


def test_an_unknown_flag_between_settings_is_named_alone(work):
    status, _, err = typed(work, "genbench", "-m", "seed=0,1", "--dryrun", "model=cnn")
    assert (status, err) == (1, "genbench: unrecognized arguments: --dryrun; did you mean '--dry-run'?\n")
