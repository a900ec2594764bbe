"""``make papers``, with a command that trains nothing in place of ``genbench``."""

import re
import runpy
import sys
from pathlib import Path

from genbench import records
from tests.helpers import factory
from tests.helpers.papers import NAME, runs, written

SCRIPT = Path(__file__).parents[2] / "scripts" / "papers.py"
TRAINS = (
    "import sys; print('a table'); print('2 to train', file=sys.stderr); open('called', 'w').write(f'{sys.argv[1:]}')"
)
FAILS = "import sys; print('genbench: no space left', file=sys.stderr); sys.exit(1)"


def made(work, monkeypatch, program, *words):
    """The status of the command in a folder."""
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["papers.py", "--config-dir=conf", *words])
    script = runpy.run_path(str(SCRIPT))
    script["main"].__globals__["GENBENCH"] = [sys.executable, "-c", program]
    return script["main"]()


def test_each_paper_is_a_command_of_its_own_and_its_cost_stands_first(tmp_path, monkeypatch, capfd):
    written(tmp_path)
    runs(tmp_path / "runs" / NAME)
    assert made(tmp_path, monkeypatch, TRAINS, NAME) == 0
    assert (tmp_path / "called").read_text() == "['--config-dir=conf', 'experiment=nobody2020']"
    out, err = capfd.readouterr()
    assert out.splitlines()[:2] == [
        "nobody2020: 20 runs; 40 were trained and measured in 80 s of one process (cpu, threads=1)",
        "in all 80 s",
    ]
    assert re.fullmatch(r"nobody2020: done in \d+ s", out.splitlines()[2])
    assert err.splitlines() == ["nobody2020 (1 of 1): starts"]
    assert "a table" not in out
    assert "  2 replicated, 1 not replicated (runs/nobody2020)" in out
    assert (tmp_path / "runs" / "papers.html").exists()


def test_a_paper_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    folder = written(tmp_path)
    (folder / "someone2021.yaml").write_text((folder / f"{NAME}.yaml").read_text().replace(NAME, "someone2021"))
    assert made(tmp_path, monkeypatch, FAILS, NAME, "someone2021") == 1
    out = capfd.readouterr().out.splitlines()
    assert out[2] == "in all 2 not measured"
    for line, name in zip(out[3:], (NAME, "someone2021"), strict=False):
        assert re.fullmatch(rf"{name}: failed after \d+ s: genbench: no space left", line)


def test_runs_that_diverged_are_a_result(tmp_path, monkeypatch, capfd):
    """The command's status is 1 for them, as for runs that failed, which are none."""
    written(tmp_path)
    runs(tmp_path / "runs" / NAME)
    folder = tmp_path / "runs" / NAME
    last = records.load(folder).records[-1]
    whole = {key: value for key, value in last.items() if key not in ("digest", "files")}
    factory.leave(folder, factory.failed(whole, "diverged", "loss is nan"))
    ends = "import sys; print('768/768 0 running', file=sys.stderr); sys.exit(1)"
    assert made(tmp_path, monkeypatch, ends, NAME) == 0
    assert re.search(r"^nobody2020: done in \d+ s, 1 run diverged$", capfd.readouterr().out, re.M)
    factory.leave(folder, factory.failed(whole, "failed", "out of memory"))
    assert made(tmp_path, monkeypatch, ends, NAME) == 1
    assert re.search(r"^nobody2020: failed after \d+ s: 768/768 0 running$", capfd.readouterr().out, re.M)


def test_an_unknown_paper_is_refused_before_anything_runs(tmp_path, monkeypatch, capfd):
    written(tmp_path)
    assert made(tmp_path, monkeypatch, TRAINS, "nobody2021") == 1
    out, err = capfd.readouterr()
    assert (out, err) == ("", "papers: there is no paper 'nobody2021'; did you mean 'nobody2020'?\n")
    assert not (tmp_path / "called").exists()


def test_without_names_all_papers_train_and_no_study_of_genbenchs_own(tmp_path, monkeypatch):
    folder = written(tmp_path)
    own = ("  authors:", "  year:", "  link:")
    text = (folder / f"{NAME}.yaml").read_text().replace(NAME, "ours")
    (folder / "ours.yaml").write_text("".join(line for line in text.splitlines(True) if not line.startswith(own)))
    assert made(tmp_path, monkeypatch, "import sys; open('called', 'a').write(sys.argv[-1] + ' ')") == 0
    called = (tmp_path / "called").read_text().split()
    assert {f"experiment={NAME}", "experiment=zhang2017"} <= set(called)
    assert not {"experiment=ours", "experiment=sgd"} & set(called)
    assert made(tmp_path, monkeypatch, TRAINS, "ours") == 0
    assert "experiment=ours" in (tmp_path / "called").read_text()
