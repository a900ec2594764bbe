"""Summaries: what is made from one is what is made from the folder of the runs."""

import csv
import io
import json

import pytest
import yaml

from genbench.claims import registration
from genbench.report import build, load, points, render
from genbench.report.figures import custom, style
from genbench.report.papers import summary
from genbench.report.spec import curves_of
from tests.helpers import factory
from tests.helpers.papers import EXPERIMENT, runs

NODE = yaml.safe_load(EXPERIMENT)


def both(folder, node=NODE):
    """The runs of a folder, and those of its summary."""
    path = folder.parent / "summary.csv"
    found = load(folder)
    path.write_text(summary.write(found))
    return found, summary.read(path, node)


def made(selection, spec):
    """What is made of runs: their table, their figures and the verdicts on the claims, as they are printed."""
    table = build(selection, spec)
    with style.context():
        drawn = [custom.draw(curve, points(selection, spec)) for curve in curves_of(spec["figures"])]
        figures = [(each.caption, style.saved(each, "svg")) for each in drawn]
    claims = registration.read(NODE["claims"])
    verdicts = registration.judged(claims, selection.records)
    return render.comma_separated(table), render.markdown(table), figures, verdicts


def troubled(item):
    """Every kind of trouble: a null metric, a search that did not end, a run that diverged, one that failed, one that
    is missing, a method that alters the loss, a number beyond the range of floats."""
    run = (item["seed"], item["choices"]["regularization"], item["config"]["data"]["label_noise"])
    if run == (1, [], 0.0):
        return item.update(factory.failed(item, "diverged", "diverged at step 3: the training loss is nan"))
    if run == (2, ["l2"], 0.5):
        return item.update(factory.failed(item, "failed", "OutOfMemoryError: killed, /home/someone/x.pt"))
    if run == (3, [], 0.5):
        return False
    if run[0] == 4:
        item["converged"]["weights/norm/l2"] = False
        item["notes"] |= {"weights/norm/l2": "search: 3 of 4 starts; a bound", "code": "trained with foreign code"}
    if run == (5, [], 0.5):
        item["metrics"]["weights/norm/l2"], item["notes"]["weights/norm/l2"] = None, "undefined: no weights"
    if run[1] == ["l2"]:
        item["altered"] = {"l2": "trained on another loss"}
    if run == (6, ["l2"], 0.0):
        item["metrics"]["weights/norm/l2"] = 10**400
    return None


@pytest.mark.parametrize("change", [None, troubled])
def test_a_summary_gives_the_same_table_figures_and_verdicts(tmp_path, change):
    found, again = both(runs(tmp_path / "runs", change=change))
    ours, theirs = made(found, NODE["table"]), made(again, NODE["table"])
    for here, there in zip(ours, theirs, strict=True):
        assert here == there
    assert len(ours[3]) == 3
    assert [verdict.status for verdict in ours[3]][:1] == (["replicated"] if change is None else ["undecided"])


def test_a_table_without_columns_has_the_usual_ones(tmp_path):
    folder = factory.ablation(tmp_path / "runs", ["none", "sam"], spec=None)
    found, again = both(folder, {"name": "ablation"})
    assert render.comma_separated(build(found)) == render.comma_separated(build(again))


def test_the_summary_of_a_summary_is_the_same(tmp_path):
    found, again = both(runs(tmp_path / "runs", change=troubled))
    ours, theirs = (list(csv.reader(io.StringIO(summary.write(each)))) for each in (found, again))
    assert [row[:-1] for row in ours] == [row[:-1] for row in theirs]


def test_a_summary_holds_what_is_read_and_no_more(tmp_path):
    text = summary.write(load(runs(tmp_path / "runs")))
    rows = list(csv.DictReader(io.StringIO(text)))
    head = list(rows[0])
    assert head[:5] == ["run_id", "status", "seed", "lanes", "claims"]
    assert [name for name in head if "/" in name] == ["test/performance/accuracy", "weights/norm/l2"]
    data = [f"config.data.{key}" for key in ("label_noise", "seed", "train_size")]  # say whether a seed redraws it
    varying = [*data, "config.model.normalization", "config.regularization.l2.strength"]
    assert [name for name in head if name.startswith("config.")] == varying
    assert len(rows) == 40
    item = next(iter(load(tmp_path / "runs").records))
    row = next(row for row in rows if row["run_id"] == item["run_id"])
    assert float(row["weights/norm/l2"]) == item["metrics"]["weights/norm/l2"]
    about = json.loads(rows[0]["sweep"])
    assert about == {
        "command": ["--config-dir", "conf", "experiment=nobody2020"],
        "seconds": 80.0,  # 40 runs of 2 s, whatever they shared
        "genbench": "0.1.0",
        "python": "3.11.7",
        "torch": "2.13.0",
        "device": "cpu",
        "threads": "1",
    }
    assert {row["sweep"] for row in rows[1:]} == {""}


def test_the_metrics_of_a_trajectory_are_held(tmp_path):
    def change(item):
        item["metrics"] |= {f"test/trajectory/error_at_{step}": 1 / step for step in (2, 10, 100)}

    folder = runs(tmp_path / "runs", seeds=2, change=change)
    found = load(folder)
    figure = {"name": "errors", "title": "Errors", "y": "test/trajectory/error_at_*"}
    found.sweep["table"]["figures"] = [figure]
    head = summary.write(found).partition("\n")[0].split(",")
    named = [name for name in head if "trajectory" in name]
    assert named == [f"test/trajectory/error_at_{step}" for step in (2, 10, 100)]


def test_a_summary_has_nothing_that_must_not_be_shared(tmp_path):
    def change(item):
        item["config"]["data"]["source"] = f"/home/someone/data/{item['seed'] % 2}.npz"
        item["config"]["data"]["api_key"] = f"s3cret-{item['seed'] % 2}-0123456789"

    text = summary.write(load(runs(tmp_path / "runs", change=change)))
    assert "0.npz" in text
    assert "someone" not in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no summary of runs; accepted: what genbench-table FOLDER --summary prints"),
        ("row,mean\nnone,1\n", "is no summary of runs; accepted: what genbench-table FOLDER --summary prints"),
        ("run_id,status,seed,sweep\na,done,0,{}\n", "status is 'done'; accepted: missing, completed, diverged, failed"),
        ("run_id,status,seed,a/b/c,sweep\na,completed,0,many,\n", "a/b/c is 'many'; accepted: a number, or null"),
        ("run_id,status,seed,sweep\na,completed,0\n", "is no summary of runs"),
    ],
)
def test_what_is_no_summary_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "summary.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        summary.read(path, NODE)
    assert len(str(caught.value).splitlines()) == 1
