"""genbench-measure: every architecture, every kind of checkpoint, what it writes, and what it refuses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench import records
from genbench.callbacks import views
from genbench.checks import ConfigError
from genbench.data import MNIST1D, Digits, image_sources
from genbench.measures import Snapshot, accuracy, distance_from_init, hessian_trace, l2_norm
from genbench.models import CNN, MLP
from genbench.report.measures_page import drawn_page
from genbench.runs import build, execute, measure_checkpoint
from tests.helpers.commands import composed, typed
from tests.helpers.pictures import pixels, write_folders

COMMAND = str(Path(sys.executable).with_name("genbench-measure"))
QUICK = ["pictures=null"]


def measured(*overrides):
    return measure_checkpoint.run(composed(*QUICK, *overrides), page=drawn_page)


@pytest.fixture
def trained(configure, tmp_path):
    """The folder of a short run."""

    def trained(*overrides):
        plain = configure("callbacks={}", "logger={}", *overrides)
        record = execute.run(plain)
        assert record["status"] == "completed", record["error"]
        return tmp_path / "runs" / record["experiment"] / record["run_id"]

    return trained


MODELS = [
    ["model=linear"],
    ["model=mlp", "regularization=[l2,dropout]"],
    ["model=mlp", "regularization=batch_norm"],
    ["model=mlp", "regularization=ensemble", "regularization.ensemble.members=2"],
    ["model=mlp", "model.residual=true"],
    ["model=cnn", "data=digits"],
    ["model=cnn", "regularization=batch_norm"],
    ["model=gru"],
]


@pytest.mark.parametrize("overrides", MODELS, ids=" ".join)
def test_a_run_of_every_architecture(trained, overrides):
    folder = trained(*overrides)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found = measured(f"checkpoint={folder}", "device=cpu")
    # the same numbers from the same pieces, put together here
    plain = json.loads((folder / "record.json").read_text())["config"]
    data = build.build_data(plain)
    network = build.build_module(plain, data).network
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    initial = torch.load(folder / "initial.pt", weights_only=True)
    snapshot = Snapshot(network, F.cross_entropy, data.evaluation_batches("train"), initial=initial)
    assert found.estimates["train/performance/accuracy"].value == accuracy(snapshot).value
    assert found.estimates["weights/norm/l2"].value == l2_norm(snapshot)["l2"].value
    assert found.estimates["weights/norm/distance"].value == distance_from_init(snapshot)["distance"].value > 0
    assert found.estimates["train/flatness/trace"].value == pytest.approx(hessian_trace(snapshot).value, rel=1e-5)
    test = accuracy(Snapshot(network, F.cross_entropy, data.evaluation_batches("test")))
    gap = accuracy(snapshot).value - test.value
    assert found.estimates["test/gap/accuracy"].value == pytest.approx(gap)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_what_it_writes(trained):
    folder = trained()
    found = measure_checkpoint.run(
        composed(
            f"checkpoint={folder}", "pictures.plane_points=3", "pictures.density_runs=2", "pictures.density_steps=4"
        ),
        page=drawn_page,
    )
    assert [path.relative_to(folder).as_posix() for path in found.files] == [
        f"measures/measures.{kind}" for kind in ("json", "csv", "html")
    ]
    written = json.loads(found.files[0].read_text())
    assert written["measures"].keys() == found.estimates.keys()
    trace = found.estimates["train/flatness/trace"]
    entry = written["measures"]["train/flatness/trace"]
    assert (entry["value"], entry["stderr"], entry["seconds"]) == (trace.value, trace.stderr, trace.seconds)
    assert trace.stderr > 0
    assert trace.seconds > 0
    assert len(written["data"]["spectral_density"]["nodes"]) == 2
    assert len(written["data"]["loss_plane"]["loss"]) == 3
    assert {"loss_lines", "weight_spectra"} <= written["data"].keys()
    assert written["left_out"] == {}
    assert written["settings"]["model"]["_target_"] == "genbench.models.MLP"
    with open(found.files[1]) as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    assert rows.keys() == found.estimates.keys()
    assert float(rows["train/flatness/trace"]["value"]) == trace.value
    page = found.files[2].read_text()
    assert page.count("data:image/svg+xml;base64,") == 6
    for text in (page, found.files[0].read_text()):
        assert str(folder.parent) not in text
        assert os.uname().nodename not in text


def test_a_page_reaches_for_nothing_outside(trained):
    page = measured(f"checkpoint={trained()}").files[2].read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script src" not in page


def test_a_bare_state_dict(tmp_path):
    torch.manual_seed(0)
    net = MLP(input_shape=(1, 40), classes=10, width=20)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    torch.save({k: torch.zeros_like(v) for k, v in net.state_dict().items()}, tmp_path / "start.pt")
    arguments = [f"checkpoint={tmp_path / 'net.pt'}", "model=mlp", "model.width=20", "data=mnist1d"]
    found = measured(*arguments, f"initial={tmp_path / 'start.pt'}", "data.train_size=200", "examples=50")
    norm = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).norm()
    assert found.estimates["weights/norm/l2"].value == pytest.approx(float(norm), rel=1e-6)
    assert found.estimates["weights/norm/distance"].value == pytest.approx(float(norm), rel=1e-6)
    assert found.files[0] == tmp_path / "net_measures" / "measures.json"
    share = found.estimates["train/performance/accuracy"].value
    assert share * 50 == pytest.approx(round(share * 50))
    assert "net.pt" in found.title


def test_another_split_and_place(trained, tmp_path):
    found = measured(f"checkpoint={trained()}", "split=test", f"output={tmp_path / 'there'}")
    assert "test/flatness/lambda_1" in found.estimates
    assert "train/flatness/lambda_1" not in found.estimates
    assert {"train/performance/accuracy", "test/gap/accuracy"} <= found.estimates.keys()
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        f"measures.{kind}" for kind in ("csv", "html", "json")
    ]


def test_another_split_of_a_run_with_validation(trained):
    found = measured(f"checkpoint={trained()}", "split=val", "measures={}")
    assert "val/gap/accuracy" in found.estimates


def test_a_run_on_other_data(trained):
    folder = trained("model=mlp")
    found = measured(f"checkpoint={folder}", "data=mnist1d", "data.label_noise=0.5", "measures={}")
    own = measured(f"checkpoint={folder}", "measures={}")
    assert found.estimates["test/performance/accuracy"].value == own.estimates["test/performance/accuracy"].value
    assert found.estimates["train/performance/accuracy"].value != own.estimates["train/performance/accuracy"].value


def test_a_run_on_data_that_are_made_otherwise_now(trained, tmp_path):
    """As those are whose content another version of genbench has changed; a record without their digest is measured."""
    folder = trained("model=linear")
    record = records.read(folder)
    assert (record["provenance"]["data"], record["provenance"]["data_path"]) == (MNIST1D().digest, False)
    record["provenance"]["data"] = "0" * 64
    records.write(folder, record)
    with pytest.raises(ConfigError, match=r"the data are not those of the run .*, its record's 000000000000\)"):
        measured(f"checkpoint={folder}", "measures={}")
    for key in ("data", "data_path"):
        del record["provenance"][key]
    records.write(folder, record)
    assert measured(f"checkpoint={folder}", "measures={}").estimates["train/performance/accuracy"].value > 0


def test_a_run_on_images_is_told_where_they_lie_now(trained, tmp_path, monkeypatch):
    images = os.environ["GENBENCH_TINY"]
    folder = trained(
        "model=linear", "data=fashion_mnist", "data.channels=3", f"data.path={images}", "data.label_noise=0.5"
    )
    record = records.read(folder)
    assert record["provenance"]["data_path"] is True
    assert images not in json.dumps(record)
    monkeypatch.setattr(image_sources, "_of_hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(ConfigError, match=r"the run was trained on files, .*; accepted: data\.path=FOLDER"):
        measured(f"checkpoint={folder}", "measures={}")
    for split in ("train", "test"):
        write_folders(tmp_path / "other" / split, pixels(220, seed=1), [index % 10 for index in range(220)])
    with pytest.raises(
        ConfigError, match=r"data\.path='other': they are not those of the run \(their digest is \w+, its"
    ):
        measured(f"checkpoint={folder}", f"+data.path={tmp_path / 'other'}", "measures={}")
    output = tmp_path / "there"
    moved, clean = (
        measured(f"checkpoint={folder}", f"+data.path={images}", *more, "measures={}", f"output={output}").estimates
        for more in ((), ("+data.label_noise=0",))
    )
    key = "train/performance/accuracy"  # of its own noisy labels, and of those that are true
    assert moved[key].value > clean[key].value
    assert images not in (output / "measures.json").read_text()


class Stranger(nn.Module):
    """Not genbench's: its own arguments, its own forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        return self.body(x)


def test_a_lightning_checkpoint_of_somebody_elses_model(tmp_path):
    net = Stranger(7)
    state = {f"model.net.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {**state, "metric.total": torch.zeros(1)}}, tmp_path / "last.ckpt")
    found = measured(
        f"checkpoint={tmp_path / 'last.ckpt'}",
        "data=digits",
        "+model._target_=tests.runs.test_measure_checkpoint.Stranger",
        "+model.width=7",
    )
    x, y = Digits().tensors("train")
    assert found.estimates["train/performance/accuracy"].value == pytest.approx(
        float((net(x).argmax(1) == y).double().mean())
    )


def bad(tmp_path, name):
    torch.manual_seed(0)
    net = CNN(input_shape=(1, 40), classes=10)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    torch.save({k: v.fill_(float("nan")) for k, v in net.state_dict().items()}, tmp_path / "nan.pt")
    torch.save(net, tmp_path / "pickled.pt")
    normalized = CNN(input_shape=(1, 40), classes=10, normalization="batch_norm")
    torch.save(normalized.state_dict(), tmp_path / "normalized.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    whole = ["model=cnn", "data=mnist1d"]
    return {
        "no file": [f"checkpoint={tmp_path / 'nothing.pt'}", *whole],
        "folder": [f"checkpoint={tmp_path / 'empty'}", *whole],
        "pickled": [f"checkpoint={tmp_path / 'pickled.pt'}", *whole],
        "text": [f"checkpoint={tmp_path / 'text.pt'}", *whole],
        "list": [f"checkpoint={tmp_path / 'list.pt'}", *whole],
        "no model": [f"checkpoint={tmp_path / 'net.pt'}", "data=mnist1d"],
        "no data": [f"checkpoint={tmp_path / 'net.pt'}", "model=cnn"],
        "other model": [f"checkpoint={tmp_path / 'net.pt'}", "model=gru", "data=mnist1d"],
        "other width": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "model.width=9"],
        "other method": [f"checkpoint={tmp_path / 'normalized.pt'}", *whole],
        "other data": [f"checkpoint={tmp_path / 'net.pt'}", "model=cnn", "data=digits"],
        "split": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "split=dev"],
        "no val": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "split=val"],
        "examples": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "examples=0"],
        "setting": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "measures.trace.probes=1"],
        "device": [f"checkpoint={tmp_path / 'net.pt'}", *whole, "device=tpu"],
        "nan": [f"checkpoint={tmp_path / 'nan.pt'}", *whole],
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no file", "there is no file 'nothing.pt'; accepted: a run's folder, or a file of weights"),
        ("folder", "'empty' is a folder without record.json"),
        ("pickled", "'pickled.pt' holds no weights that can be loaded safely"),
        ("text", "'text.pt' holds no weights that can be loaded safely"),
        ("list", "'list.pt' holds no state dict"),
        ("no model", "model is not chosen, and a bare state dict does not tell; accepted: model=mlp"),
        ("no data", "data is not chosen"),
        ("other model", "checkpoint has no 'layers.0.rnn.weight_ih_l0'"),
        ("other width", r"'layers.0.0.weight' has shape \(25, 1, 5\), the model's \(9, 1, 5\)"),
        ("other method", "has 'layers.0.1.weight', which the model has not"),
        ("other data", "another model's"),
        ("split", "split is 'dev'; accepted: train, val, test"),
        ("no val", "split=val is not there; accepted: train, test"),
        ("examples", "examples is 0"),
        ("device", "device is 'tpu'"),
        ("nan", "are not finite"),
        ("setting", r"measures\.trace\.probes is 1; accepted: an integer of at least 2"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(name, message, tmp_path):
    arguments = bad(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as caught:
        measured(*arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_left_no_weights(trained):
    folder = trained()
    record = json.loads((folder / "record.json").read_text())
    (folder / "weights.pt").unlink()
    with pytest.raises(ConfigError, match=r"weights\.pt is missing"):
        measured(f"checkpoint={folder}")
    assert record["files"]["weights.pt"]


def command(work, *arguments):
    done = subprocess.run([COMMAND, *arguments], cwd=work, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_command(trained, tmp_path):
    folder = trained()
    status, out, err = command(tmp_path, f"checkpoint={folder}", "pictures=null", "measures.lambda_1.k=2")
    assert (status, err) == (0, "")
    for text in ("lambda_2", "train/flatness", "weights/norm", "measures/measures.json", "… and", "std. error"):
        assert text in out
    assert "layers.0" not in out


def test_the_command_takes_settings_that_are_in_no_yaml_and_refuses_misspelt_ones(tmp_path):
    torch.save(Stranger(7).state_dict(), tmp_path / "net.pt")
    own = [
        "checkpoint=net.pt",
        "data=digits",
        "model._target_=tests.runs.test_measure_checkpoint.Stranger",
        "pictures=null",
    ]
    status, out, _ = typed(tmp_path, "genbench-measure", *own, "model.width=7", "measures={}")
    assert status == 0
    assert "Stranger (net.pt)" in out
    status, _, err = typed(tmp_path, "genbench-measure", *own, "model.widht=7", "measures={}")
    assert (status, err) == (
        1,
        f"genbench-measure: model.widht is not a setting of {__name__}.Stranger; did you mean 'width'?\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint is not given; accepted: checkpoint=a run's folder, or a file of weights"),
        (["checkpoint=nothing.pt"], "there is no file 'nothing.pt'"),
        (["checkpoint=x.pt", "measure=full"], "did you mean 'measures'?"),
        (["checkpoint=x.pt", "measures=ful"], "measures=ful: no such choice; did you mean 'full'?"),
        (["checkpoint=x.pt", "splits=train"], "did you mean 'split'?"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, tmp_path):
    status, _, err = typed(tmp_path, "genbench-measure", *arguments)
    assert status == 1
    assert err.startswith("genbench-measure: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick():
    status, out, _ = command(".", "--help")
    assert status == 0
    assert "genbench-measure checkpoint=" in out
    assert "full" in out


def test_curvature_and_sharpness_are_measured_on_a_thousand_examples(trained, tmp_path):
    run = trained("data.train_size=2000")
    overrides = [f"checkpoint={run}", f"output={tmp_path / 'auto'}"]
    found = measured(*overrides).estimates
    trace = found["train/flatness/trace"]
    assert trace.note.startswith("on 1,024 of 1,800 train examples")
    assert found["train/performance/cross_entropy"].note is None
    assert found["weights/norm/l2"].note is None
    few = measured(*overrides, "examples=1024").estimates
    assert few["train/flatness/trace"].value == trace.value
    assert few["train/performance/cross_entropy"].value != found["train/performance/cross_entropy"].value
    whole = measured(*overrides, "examples=null").estimates
    assert whole["train/flatness/trace"].value != trace.value
    assert whole["train/performance/cross_entropy"].value == found["train/performance/cross_entropy"].value
    assert json.loads((tmp_path / "auto" / "measures.json").read_text())["unfinished"] == []


def test_what_is_measured_is_there_after_a_kill_and_is_not_measured_again(trained, tmp_path, monkeypatch):
    run, output = trained(), tmp_path / "measures"
    overrides = [f"checkpoint={run}", f"output={output}"]
    whole = measured(*overrides, f"output={tmp_path / 'whole'}").estimates
    plain = views.evaluate

    def killed(measures, snapshot, *, keep, **settings):
        def kept(name, found):
            keep(name, found)
            if name == "trace":
                raise KeyboardInterrupt

        return plain(measures, snapshot, keep=kept, **settings)

    monkeypatch.setattr(views, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(*overrides)
    monkeypatch.setattr(views, "evaluate", plain)
    left = json.loads((output / "measures.json").read_text())
    assert left["unfinished"] == ["sam_sharpness", "average_sharpness", "adaptive_sharpness"]
    assert left["measures"]["train/flatness/trace"]["value"] == whole["train/flatness/trace"].value
    with open(output / "measures.csv") as file:
        assert "train/flatness/lambda_1" in {row["measure"] for row in csv.DictReader(file)}

    # what was measured is taken as it is: a mark in it stays, that of another command does not
    left["measures"]["train/flatness/trace"]["value"] = 12345.0
    (output / "measures.json").write_text(json.dumps(left))
    again = measured(*overrides).estimates
    assert again["train/flatness/trace"].value == 12345.0
    assert again["train/flatness/sam_sharpness"].value == whole["train/flatness/sam_sharpness"].value
    assert again.keys() == whole.keys()
    assert measured(*overrides).estimates["train/flatness/trace"].value == whole["train/flatness/trace"].value
    (output / "measures.json").write_text(json.dumps(left))
    other = measured(*overrides, "seed=1").estimates
    assert other["train/flatness/trace"].value == whole["train/flatness/trace"].value
