"""How far a run is: what it notes, and what a command shows of it."""

import contextlib
import io
import json
import re
import time

import pytest
import rich.console

from genbench.measures import measure_progress, operators
from genbench.process import progress
from genbench.process.progress import Note, Pace
from genbench.runs import execute, plan


@pytest.fixture
def clock(monkeypatch):
    """The clock, in seconds, as a test sets it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def notes(monkeypatch):
    """Every note that a training writes, one after each step."""
    found = []
    write = Pace._write
    monkeypatch.setattr(progress, "NOTED", 0.0)
    monkeypatch.setattr(Pace, "_write", lambda pace: (found.append(pace._last), write(pace)))
    return found


def screen(monkeypatch, **settings):
    text = io.StringIO()
    console = rich.console.Console(file=text, width=150, **settings)
    monkeypatch.setattr(progress, "console", lambda: console)
    return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())


def test_a_note_says_step_loss_steps_a_second_and_time_left(tmp_path, clock):
    pace, asked = Pace(tmp_path), []

    def loss():
        asked.append(True)
        return 0.25

    for step in range(1, 301):  # a hundred steps a second
        clock[0] += 0.01
        pace.look(step, 1000, loss)
    note = progress.read(tmp_path)
    assert (note.doing, note.steps, note.loss) == ("training", 1000, 0.25)
    assert note.step >= 200
    assert len(asked) == 3  # once a second, not once a step
    assert note.rate == pytest.approx(100)
    assert note.left == pytest.approx((1000 - note.step) / 100)
    assert (
        str(note) == f"step {note.step} of 1,000, loss 0.25, 100 steps/s, about {(1000 - note.step) / 100:.0f} s left"
    )
    pace.say("measuring")
    assert str(progress.read(tmp_path)) == "measuring"
    pace.end()
    assert progress.read(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_is_left_out(tmp_path, clock):
    pace = Pace(tmp_path)
    pace.look(1, 10, lambda: float("nan"))
    assert progress.read(tmp_path) == Note("training", 1, 10, None, 0.0)


def test_notes_of_killed_runs_and_foreign_files_are_not_shown(tmp_path):
    Pace(tmp_path).say("measuring")
    assert progress.read(tmp_path, since=time.time()) is not None
    assert progress.read(tmp_path, since=time.time() + 10) is None
    path = tmp_path / progress.FILE
    for text in ("", "{", "[]", '{"doing": 3}', '{"doing": "x", "step": "y"}', '{"other": 1}', "x" * 5000):
        path.write_text(text)
        assert progress.read(tmp_path) is None, text


def test_a_note_is_never_written_through_a_link(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / progress.FILE).symlink_to(other)
    Pace(folder).say("measuring")
    assert other.read_text() == "mine"
    assert progress.read(folder) is None


def test_a_run_notes_the_loss_of_its_steps(configure, notes):
    record = execute.run(config := configure("callbacks.measures=null"), watch=contextlib.nullcontext)
    trained = [note for note in notes if note.doing == "training"]
    assert [note.step for note in trained] == list(range(1, 28))
    assert {note.steps for note in trained} == {27}
    assert notes[-1].doing == "measuring"
    folder = plan.plan(config).folder
    rows = (folder / record["history"]).read_text().splitlines()
    column = rows[0].split(",").index("train/optimization/objective")
    epochs = [float(row.split(",")[column]) for row in rows[1:]]
    for epoch, objective in enumerate(epochs):  # of 9 steps each
        losses = [note.loss for note in trained[9 * epoch : 9 * epoch + 9]]
        assert sum(losses) / 9 == pytest.approx(objective, rel=1e-5)
    assert not (folder / progress.FILE).exists()


def test_a_pack_notes_which_measure_of_which_run_is_taken_and_what_is_left(configure, notes, monkeypatch):
    monkeypatch.setattr(measure_progress, "_OFTEN", -1.0)  # each pass is noted
    product = operators._summed

    def slow(snapshot, *args):
        time.sleep(0.02)
        return product(snapshot, *args)

    monkeypatch.setattr(operators, "_summed", slow)
    monkeypatch.setattr(measure_progress, "SLOW", 0.0)
    few = ("~measures.adaptive_sharpness", "~measures.average_sharpness", "~measures.sam_sharpness")
    configs = configure(*few, "~callbacks.gap", each=[{"seed": 0}, {"seed": 1}])
    execute.run_packed(configs, choices=[{}, {}], overrides=[(), ()])
    said = [note.doing for note in notes if " measuring " in note.doing]
    passes = r"measuring trace: 5 of at most 24 passes of about \d+ ms, at most [0-9] s left$"
    first, second = ([line for line in said if line.startswith(f"run {i} of 2")] for i in (1, 2))
    assert len(said) == len(first) + len(second)
    assert len([line for line in first if re.match(rf"run 1 of 2: {passes}", line)]) == 1
    assert len([line for line in second if re.match(rf"run 2 of 2 \(\d+ s left\): {passes}", line)]) == 1
    assert any(re.search(r"measuring lambda_1: \d+ of at most 100 passes .*; then trace$", line) for line in first)


def test_a_pack_notes_the_mean_loss_of_its_runs(configure, notes):
    configs = configure("callbacks.measures=null", each=[{"seed": 0}, {"seed": 1}])
    execute.run_packed(configs, choices=[{}, {}], overrides=[(), ()])
    together = [note for note in notes if note.doing == "training"]
    assert [note.step for note in together] == list(range(1, 28))
    assert [re.sub(r" \(\d+ s left\)", "", note.doing) for note in notes[notes.index(together[-1]) + 1 :]] == [
        *["measuring"] * 2,  # their final weights are set
        "run 1 of 2: measuring",
        "run 2 of 2: measuring",
    ]
    del notes[:]
    for config in configs:
        execute.run({**config, "name": "alone"})
    first, second = ([n.loss for n in notes if n.doing == "training"][start : start + 27] for start in (0, 27))
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert [note.loss for note in together] == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize("bar", ["TQDMProgressBar", "RichProgressBar"])
def test_any_bar_of_lightnings_may_be_added_and_is_no_part_of_the_identity(configure, bar, capfd):
    plain = configure("callbacks.measures=null", "trainer.max_steps=10")
    config = configure(
        "callbacks.measures=null", "trainer.max_steps=10", f"+callbacks.bar._target_=pytorch_lightning.callbacks.{bar}"
    )
    assert plan.plan(config).run_id == plan.plan(plain).run_id
    watched = []
    record = execute.run(config, watch=lambda folder: watched.append(folder) or contextlib.nullcontext())
    assert record["status"] == "completed"
    assert not watched  # one bar is enough
    out, err = capfd.readouterr()
    assert "Epoch" in out + err


def test_on_a_terminal_a_bar_stands_while_a_run_trains(tmp_path, monkeypatch):
    shown = screen(monkeypatch, force_terminal=True)
    monkeypatch.setattr(progress, "SHOWN", 0.01)
    with progress.shown(tmp_path):
        Pace(tmp_path).say("measuring")
        deadline = time.monotonic() + 10
        while "measuring" not in shown() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "measuring" in shown()


def test_without_one_a_line_is_written_now_and_then(tmp_path, monkeypatch):
    shown = screen(monkeypatch, force_terminal=False)
    monkeypatch.setattr(progress, "LINES", 0.02)
    note = Note("training", 640, 1200, 0.231, 410.0)
    (tmp_path / progress.FILE).write_text(json.dumps(note.__dict__))
    with progress.shown(tmp_path):
        deadline = time.monotonic() + 10
        while shown().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert set(shown().splitlines()) == {"step 640 of 1,200, loss 0.231, 410 steps/s, about 1 s left"}


def test_a_reader_of_errors_who_leaves_ends_no_run(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(progress.sys, "stderr", Closed())
    out = progress.console()
    out.print("a line")
    out.print("another")
    assert out.quiet


def test_a_sweep_counts_runs_and_says_how_each_ended(monkeypatch, clock):
    shown = screen(monkeypatch, force_terminal=True)
    with progress.Sweep(total=5, done=1) as sweep:
        sweep.update([(1, None), (1, None)], waiting=2)
        clock[0] += 60
        sweep.finished("regularization=l2", status="completed", result="test accuracy 0.500", seconds=1.25)
        sweep.finished("regularization=sam", status="failed", result="failed: out of [memory]", seconds=None)
        sweep.update([(1, Note("training", 5, 10, 0.5, 1.0))], waiting=1)
    assert "regularization=l2  test accuracy 0.500  1.2 s" in shown()
    assert "regularization=sam  failed: out of [memory]" in shown()
    # two runs and a half in 60 s, a run and a half are left
    assert re.search(r"3/5 1 running, 1 failed · step 5 of 10, loss 0.5, 1 steps/s · about 36 s left", shown())


def test_runs_that_diverged_are_not_called_failed(monkeypatch, clock):
    shown = screen(monkeypatch, force_terminal=True)
    with progress.Sweep(total=2, done=0) as sweep:
        clock[0] += 1
        sweep.finished("regularization=none", status="diverged", result="diverged: loss is nan", seconds=0.5)
        sweep.update([(1, None)], waiting=0)
    assert "1/2 1 running, 0 failed, 1 diverged" in shown()


def test_a_sweep_of_one_pack_is_as_far_as_the_pack(monkeypatch, clock):
    shown = screen(monkeypatch, force_terminal=True)
    with progress.Sweep(total=64, done=0) as sweep:
        sweep.update([(64, Note("training", 100, 300, 0.5, 10.0))], waiting=0)
    assert "64 running, 0 failed · step 100 of 300, loss 0.5, 10 steps/s · about 20 s left" in shown()


def test_a_sweep_without_a_terminal_gives_its_estimate_once_and_a_line_now_and_then(monkeypatch, clock):
    shown = screen(monkeypatch, force_terminal=False)
    with progress.Sweep(total=4, done=0) as sweep:
        clock[0] += 10
        sweep.finished("seed=0", status="completed", result="test accuracy 0.500", seconds=9.0)
        sweep.update([(1, None)], waiting=2)
        clock[0] += 31
        sweep.update([(1, Note("training", 1, 2, None, 0.0))], waiting=2)
        sweep.update([(1, Note("training", 1, 2, None, 0.0))], waiting=2)
    lines = shown().splitlines()
    first = "1 of 4 runs done, 1 running, 0 failed · about 30 s left"
    assert lines[:2] == ["seed=0  test accuracy 0.500  9.0 s", first]
    assert lines[2] == "1 of 4 runs done, 1 running, 0 failed · step 1 of 2 · about 68 s left"
    assert not any(line.startswith("1 of 4") for line in lines[3:])


def test_the_first_run_of_a_pack_does_not_stand_for_the_time_of_the_pack(monkeypatch, clock):
    """A pack of 50 is trained, and the first of it measured: the other 50 take as long."""
    shown = screen(monkeypatch, force_terminal=False)
    with progress.Sweep(total=200, done=100) as sweep:
        clock[0] += 60
        sweep.finished("seed=0", status="completed", result="test accuracy 0.500", seconds=1.0)
        sweep.update([(49, Note("training", 300, 300, None, 0.0))], waiting=1)
    assert shown().splitlines()[1] == "101 of 200 runs done, 49 running, 0 failed · step 300 of 300 · about 60 s left"


def test_durations_are_for_people():
    assert [progress.duration(s) for s in (3.2, 89, 600, 7200)] == ["3 s", "89 s", "10 min", "2.0 h"]


def test_what_is_measured_at_the_end_is_said(configure, monkeypatch):
    from genbench.process.progress import Pace
    from genbench.runs import execute

    said = []
    plain = Pace.say
    monkeypatch.setattr(Pace, "say", lambda self, doing: said.append(doing) or plain(self, doing))
    monkeypatch.setattr("genbench.measures.measure_progress._OFTEN", 0.0)
    assert execute.run(configure("logger={}"))["status"] == "completed"
    assert any(line.startswith("measuring trace: 1 of at most 24 passes") for line in said)
