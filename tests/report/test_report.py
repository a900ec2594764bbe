import html
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from genbench import cli, records, report
from genbench.report import html as page
from genbench.report.figures import style, sweep
from genbench.report.selection import load
from genbench.report.table import build
from tests.helpers import browser, factory
from tests.helpers.commands import typed
from tests.helpers.rendered import Outline

FILES = ["table.md", "table.tex", "table.csv", "report.html"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = factory.holes(tmp_path_factory.mktemp("runs") / "ablation")
    return folder, report.Report(folder).write()


def test_every_file_is_written_and_named(written):
    folder, paths = written
    assert [path.name for path in paths[:4]] == FILES
    assert all(path.is_file() and path.stat().st_size > 500 for path in paths)
    names = {path.name for path in paths[4:]}
    assert {f"gap_flatness.{kind}" for kind in ("svg", "png")} <= names
    assert {name.split(".")[0] for name in names} == {
        "differences", "gap_flatness", "gap_norm", "learning_accuracy", "learning_cross_entropy",
    }  # fmt: skip
    assert not list(folder.rglob("*.tmp"))


def test_the_page_needs_no_network_and_holds_everything(written):
    folder, _ = written
    page = (folder / "report.html").read_text()
    outline = Outline(page)
    assert outline.open == []
    assert "script" not in outline.tags
    assert len(outline.fetched) == 5
    assert all(address.startswith("data:image/svg+xml;base64,") for address in outline.fetched)
    assert "@import" not in page
    assert "url(" not in page
    for text in ("diverged at step 340", "record.json is truncated", "mean of 5 members", "label_noise", "2.13.0"):
        assert text in outline.text


@browser.needs_chromium
@pytest.mark.parametrize("width", [1400, 800])
def test_the_page_fits_a_browser_s_window_and_its_console_says_nothing(written, width):
    seen = browser.assert_fits(written[0] / "report.html", width)
    # all 13 columns are seen at once where there is room
    assert ("Regularization on MNIST-1D" in seen.scrolling) is (width < 1400)


@browser.needs_chromium
@pytest.mark.parametrize(
    ("body", "said"),
    [("<details><p style='width: 900px'>wide</p></details>", "wide"), ("<script>nothing()</script>", "nothing is not")],
)
def test_what_sticks_out_of_a_page_or_fails_in_it_is_seen(tmp_path, body, said):
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><html><body>{body}</body></html>")
    with pytest.raises(AssertionError, match=said):
        browser.assert_fits(page, 800)


def test_all_text_of_the_page_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"

    def change(item):
        if item["choices"]["regularization"]:
            item["choices"]["regularization"] = [evil]
            item["config"]["regularization"] = {evil: {"strength": evil}}
        item["notes"] = {"test/performance/accuracy": f"note {evil}"}
        item["provenance"]["torch"] = evil
        return item

    spec = {"title": evil, "caption": evil, "rows": ["regularization"], "baseline": ["none"],
            "columns": [{"label": evil, "group": evil, "metric": "test/performance/accuracy"}]}  # fmt: skip
    factory.ablation(tmp_path, ["none", "l1"], (0.0,), spec=spec, change=change)
    (tmp_path / evil.replace("/", "")).mkdir()
    (tmp_path / evil.replace("/", "") / "record.json").write_text("{}")
    page = report.Report(tmp_path).text("html")
    assert "<script" not in page
    outline = Outline(page)
    assert outline.text.count(evil) >= 8
    assert html.escape(evil, quote=False) in page
    assert not (tmp_path / "figures").exists()  # asked for as text, nothing is written


def test_nothing_private_is_shared(tmp_path):
    def change(item):
        item["provenance"] |= {
            "hostname": "ann-laptop",
            "data": "/home/ann/data/set.npz",
            "argv": ["--key", "sk-12345"],
        }
        item["config"]["data"]["root"] = "/home/ann/data"
        return factory.failed(item, "failed", "OSError: /home/ann/runs/x/weights.pt") if item["seed"] == 2 else item

    folder = factory.ablation(tmp_path / "ablation", ["none", "l1"], (0.0,), change=change)
    report.Report(folder).write()
    for path in [*(folder / name for name in FILES), *(folder / "figures").iterdir()]:
        content = path.read_bytes()
        for secret in (b"/home/", b"ann-laptop", b"sk-12345", str(tmp_path).encode()):
            assert secret not in content or path.suffix == ".png", (path.name, secret)


def test_unchanged_records_draw_nothing_again(written, monkeypatch):
    folder, _ = written
    before = {path: path.stat().st_mtime_ns for path in (folder / "figures").iterdir()}
    text = (folder / "report.html").read_text()
    monkeypatch.setattr(sweep, "draw", lambda *args: pytest.fail("drawn again"))
    report.Report(folder).write()
    assert {path: path.stat().st_mtime_ns for path in (folder / "figures").iterdir()} == before
    assert (folder / "report.html").read_text() == text


def test_figures_are_drawn_again_when_a_record_or_a_file_changed(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []

    def draw(loaded, table, found):
        drawn.append(loaded)
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, str(len(drawn)))
        yield style.Drawing("one", "title", "caption", figure)

    monkeypatch.setattr(sweep, "draw", draw)
    folder = factory.ablation(tmp_path, ["none", "l1"], (0.0,))
    report.Report(folder).write()
    report.Report(folder).write()
    assert len(drawn) == 1
    (folder / "figures" / "one.svg").write_bytes(b"half")
    report.Report(folder).write()
    assert len(drawn) == 2
    changed = factory.record("l1", 0.0, 1)
    changed["metrics"]["weights/norm/l2"] = 99.0
    factory.leave(folder, changed)
    report.Report(folder).write()
    assert len(drawn) == 3
    manifest = json.loads((folder / "figures" / "figures.json").read_text())
    (folder / "notes.png").write_bytes(b"mine")
    manifest |= {"inputs": "others", "files": manifest["files"] | {"gone.svg": "", "../notes.png": ""}}
    (folder / "figures" / "figures.json").write_text(json.dumps(manifest))
    (folder / "figures" / "gone.svg").write_bytes(b"of other runs")
    (folder / "figures" / "mine.svg").write_bytes(b"mine")
    report.Report(folder).write()
    left = {path.name for path in (folder / "figures").iterdir()}
    assert left == {"one.svg", "one.png", "figures.json", "mine.svg"}
    assert (folder / "notes.png").exists()


def test_show_ends_with_the_failed_runs_and_how_to_rerun_them(holes):
    console = Console(width=140, file=io.StringIO(), color_system=None)
    report.Report(holes).show(console)
    lines = console.file.getvalue().splitlines()
    assert lines[-1] == "run these again with the same command: genbench experiment=ablation"
    assert lines[-3].startswith(
        f"failed: {factory.run_id('dropout', 0.0, 2)} (regularization=dropout data.label_noise=0.0"
    )
    assert lines[-2].startswith("damaged: ")


AT_ONCE = """
import sys, time
from genbench import report
found = report.Report(sys.argv[1])
found.write()
found.show()
print("torch" in sys.modules, "matplotlib" in sys.modules, time.process_time())
"""


def test_a_complete_sweep_prints_its_table_at_once(written):
    """Measured in a fresh process with imports, in processor seconds, which a busy machine hardly changes."""
    folder, _ = written
    result = subprocess.run([sys.executable, "-c", AT_ONCE, str(folder)], capture_output=True, text=True, check=True)
    torch, matplotlib, seconds = result.stdout.split()[-3:]
    assert (torch, matplotlib) == ("False", "False")
    assert float(seconds) < 5


def test_command_prints_and_writes(written):
    folder, _ = written
    (folder / "table.md").unlink()
    status, out, err = typed(folder, "genbench-table", folder)
    assert (status, err) == (0, "")
    assert "Regularization on MNIST-1D" in out
    assert "report.html" in out.splitlines()[-1]
    assert (folder / "table.md").exists()


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "html"])
def test_command_formats_are_the_files(written, kind):
    folder, _ = written
    name = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv", "html": "report.html"}[kind]
    assert typed(folder, "genbench-table", folder, "--format", kind) == (0, (folder / name).read_text(), "")


def test_command_status(holes):
    status, out, _ = typed(holes, "genbench-table", holes, "--status")
    assert status == 0
    assert out.splitlines()[0] == "71 done, 0 running, 4 diverged, 1 failed, 2 damaged, 7 missing"
    assert "OutOfMemoryError" in out
    assert out.splitlines()[-1].endswith("genbench experiment=ablation")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["nowhere"], "there is no folder nowhere; accepted"),
        (["."], "holds no runs; did you mean mixed"),
        (["empty"], "holds no runs; accepted"),
        (["sweep", "--format", "pdf"], "invalid choice: 'pdf'"),
        ([], "required: folder"),
        (["sweep", "--every"], "unrecognized arguments: --every"),
        (["mixed"], "mixes configurations: data.label_noise is 0 and 0.2"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, arguments, match):
    factory.ablation(tmp_path / "sweep", ["none"], (0.0,), (0,))
    factory.ablation(tmp_path / "mixed", ["none"], seeds=(0,), spec={"rows": ["regularization"]})
    (tmp_path / "empty").mkdir()
    status, _, err = typed(tmp_path, "genbench-table", *arguments)
    assert status == 1
    assert match in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_command_shows_the_table_of_a_folder_it_may_not_write(tmp_path, monkeypatch):
    folder = factory.ablation(tmp_path, ["none"], (0.0,))

    def refuse(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(records, "write_atomic", refuse)
    status, out, err = typed(tmp_path, "genbench-table", folder)
    assert status == 0
    assert "none" in out
    assert "not written: Read-only file system" in err


def test_a_traceback_is_there_on_demand(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["genbench-table", str(tmp_path / "no")])
    with pytest.raises(ValueError, match="there is no folder"):
        cli.table()


def test_details_tell_how_searches_went_and_of_how_many_they_do_not(tmp_path, monkeypatch):
    def change(item):
        item["converged"]["train/flatness/sam_sharpness"] = True
        item["notes"]["train/flatness/sam_sharpness"] = f"search: 8 starts, {3 + item['seed']} reached it; in float64"
        return item

    loaded = load(factory.ablation(tmp_path, ["none"], (0.0,), change=change))
    monkeypatch.setattr(page, "_MOST", 2)
    one, two, _ = (run.run_id for run in loaded.runs)
    assert page._searches(loaded, build(loaded)) == {
        "sharpness, SAM": f"{one} 8 starts, 3 reached it; {two} 8 starts, 4 reached it; and 1 more, in the records"
    }
    text = page.page(loaded, build(loaded), [], [])
    assert text.count("8 starts, 4 reached it") == 1
    assert "in float64" in text.split("<details>")[0]


def test_one_run_alone_has_a_report(tmp_path):
    factory.leave(tmp_path, factory.record())
    paths = report.Report(tmp_path).write()
    assert {path.name for path in paths} >= set(FILES)
    drawn = json.loads((tmp_path / "figures" / "figures.json").read_text())["figures"]
    assert [item["name"] for item in drawn] == ["learning_accuracy", "learning_cross_entropy"]  # no relation of one run
    assert (tmp_path / "report.html").read_text().count('style="--width: 403px"') == 2


def test_a_sweep_in_which_every_run_failed_has_a_report(tmp_path):
    folder = factory.ablation(tmp_path, ["none", "l1"], change=lambda item: factory.failed(item, "failed", "E: no"))
    assert {Path(path).name for path in report.Report(folder).write()} == set(FILES)
    assert "failed" in (folder / "table.md").read_text()


@pytest.mark.parametrize("step", [0, 1], ids=["equal", "different"])
def test_runs_measured_at_their_ends_only_have_no_learning_curves(tmp_path, monkeypatch, step):
    ends = itertools.count(5, step)
    history = factory.history

    def last_row(item):
        head, *_, last = history(item, next(ends)).splitlines()
        return f"{head}\n{last}\n"

    monkeypatch.setattr(factory, "history", last_row)
    folder = factory.ablation(tmp_path / "runs" / "ablation", strategies=["none", "l2"])
    report.Report(folder).write()
    assert not list((folder / "figures").glob("learning*"))
    assert list((folder / "figures").glob("*.png"))
