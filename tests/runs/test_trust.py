"""A folder from somebody else is data, never code: nothing that it names is run, or imported, without trust=true."""

import copy
import json
import shutil
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import config, records
from genbench.checks import ConfigError
from genbench.privacy import shared
from genbench.runs import execute, measure_checkpoint, trust
from tests.helpers.choices import merged

WATCHED = (
    "import", "exec", "subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.remove", "os.rename", "os.mkdir",
    "socket.connect", "socket.getaddrinfo", "shutil.rmtree", "webbrowser.open", "pickle.find_class",
)  # fmt: skip
_events = None


def _hook(event, arguments):
    if _events is not None and event in WATCHED:
        _events.append((event, str(arguments[:1])))


sys.addaudithook(_hook)


@pytest.fixture
def watched():
    """What of WATCHED happened to anything but genbench."""
    global _events
    trust.check({"model": {"_target_": "genbench.models.MLP"}}, name="x")  # genbench's own imports are done
    _events = []
    yield _events
    _events = None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of genbench's own parts, its record, and what measures it."""
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        root = tmp_path_factory.mktemp("runs")
        train = compose("train", [f"runs_dir={root}", "trainer.accelerator=cpu", "trainer.max_steps=2",
                                  "data.train_size=50", "data.batch_size=10", "callbacks={}", "logger={}"])  # fmt: skip
        measure = compose("measure", ["checkpoint=?", "pictures=null", "measures={}"])
    record = execute.run(OmegaConf.to_container(train, resolve=True))
    return root / "default" / record["run_id"], record, OmegaConf.to_container(measure, resolve=True)


@pytest.fixture
def sent(finished, tmp_path):
    """``sent(change)``: the run as somebody else has sent it, with a digest of their own; its folder."""
    folder, record, _ = finished

    def sent(change):
        target = tmp_path / "sent" / folder.name
        shutil.copytree(folder, target, dirs_exist_ok=True)
        content = copy.deepcopy({key: value for key, value in record.items() if key not in ("digest", "mark")})
        change(content["config"])
        content["digest"] = records.digest(content)
        (target / "record.json").write_text(json.dumps({**content, "mark": record["mark"]}))
        return target

    return sent


@pytest.fixture
def measure(finished):
    def measure(folder, **changes):
        return measure_checkpoint.run({**finished[2], "checkpoint": str(folder), **changes})

    return measure


HOSTILE = [
    "os.system",
    "posix.system",
    "os.popen",
    "os.execv",
    "os.remove",
    "shutil.rmtree",
    "shutil.move",
    "subprocess.Popen",
    "subprocess.run",
    "subprocess.check_output",
    "subprocess.getoutput",
    "psutil.Popen",
    "asyncio.create_subprocess_shell",
    "multiprocessing.Process",
    "pty.spawn",
    "webbrowser.open",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "builtins.getattr",
    "builtins.print",
    "importlib.import_module",
    "runpy.run_path",
    "runpy.run_module",
    "code.interact",
    "pdb.run",
    "timeit.timeit",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "pandas.read_pickle",
    "pandas.eval",
    "numpy.load",
    "shelve.open",
    "torch.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.utils.cpp_extension.load",
    "torch.nn.Linear",
    "torch.optim.Adam",
    "torch.optim.os.system",
    "torch.optim.adam.Adam",
    "torch.serialization.pickle.loads",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve",
    "socket.create_connection",
    "http.server.test",
    "smtplib.SMTP",
    "logging.config.listen",
    "site.addsitedir",
    "ctypes.CDLL",
    "hydra.utils.get_method",
    "hydra.utils.get_object",
    "hydra.utils.get_class",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "omegaconf.OmegaConf.load",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.os.system",
    "evil_module.Net",
    "evil_package.nets.Net",
    "tests.test_experiment.Kills",
    # genbench's own names for what is not its own, and its own for what is not of this kind
    "genbench.config.json.codecs.open",
    "genbench.runs.provenance.subprocess.run",
    "genbench.runs.build.make",
    "genbench.cli.commands.os.system",
    "genbench.runs.distributed.subprocess.Popen",
    "genbench.runs.executors.Processes",
    "genbench.cli.train",
    "genbench.config.get_object",
    "genbench.records.write_atomic",
    "genbench.records.read",
    "genbench.data.MNIST1D",
    "genbench.regularization.L2",
    "genbench.measures.l2_norm",
    "genbench.loggers.CSVLogger",
    "genbench.models.MLP.__init__",
    "genbench.models.mlp.nn.Module",
    "genbench.models.mlp.torch.load",
    "genbench.models",
    "genbench",
    "genbench..models.MLP",
    "genbench.models.__init__.MLP",
    "genbench/models.MLP",
    " genbench.models.MLP",
    "genbench.models.MLP ",
    "",
    "MLP",
    None,
    3,
    ["genbench.models.MLP"],
    {"_target_": "os.system"},
]
CALL = {"path": "x", "args": ["touch", "x"], "command": "id"}

PLACES = {
    "the model": lambda c, node: c.__setitem__("model", node),
    "a setting of the model": lambda c, node: c["model"].__setitem__("width", node),
    "a list in the data": lambda c, node: c["data"].__setitem__("label_noise", [0.1, [node]]),
    "a list of positional arguments": lambda c, node: c["model"].__setitem__("_args_", [node]),
    "a measure": lambda c, node: c.__setitem__(
        "callbacks", {"m": {"_target_": "genbench.callbacks.Measures", "measures": {"x": node}}}
    ),
    "a measure that is looked up": lambda c, node: c.__setitem__(
        "callbacks",
        {"m": {"_target_": "genbench.callbacks.Measures",
               "measures": {"x": {"_target_": "hydra.utils.get_method", "path": node["_target_"]}}}},
    ),
    "a reducer": lambda c, node: c.__setitem__(
        "callbacks", {"t": {"_target_": "genbench.callbacks.Trajectory", "metrics": {"x": node}}}
    ),
    "a reducer's step": lambda c, node: c.__setitem__(
        "callbacks",
        {"t": {"_target_": "genbench.callbacks.Trajectory",
               "metrics": {"x": {"_target_": "genbench.measures.trajectory.Value", "when": node}}}},
    ),
    "a method": lambda c, node: c.__setitem__("regularization", {"l2": node}),
    "the schedule": lambda c, node: c.__setitem__("scheduler", {**node, "_partial_": True}),
    "the Trainer": lambda c, node: c.__setitem__("trainer", node),
    "a setting of the Trainer": lambda c, node: c["trainer"].__setitem__("devices", {"x": node}),
    "an unknown group": lambda c, node: c.__setitem__("x", {"y": [{"z": node}]}),
}  # fmt: skip
# what belongs there after all
OWN = {("a measure that is looked up", "genbench.measures.l2_norm"), ("a measure", "genbench.measures.l2_norm"),
       ("a method", "genbench.regularization.L2"), ("the Trainer", "pytorch_lightning.Trainer")}  # fmt: skip


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """Modules that leave a file when they are imported; the file."""
    (tmp_path / "evil_package").mkdir()
    for name in ("evil_module.py", "evil_package/__init__.py", "evil_package/nets.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()
    assert not {"evil_module", "evil_package"} & sys.modules.keys()


REFUSED = "was not written by you, and names what is not genbench's own"


@pytest.mark.parametrize("place", PLACES)
def test_no_hostile_target_is_run_or_imported(finished, place, evil, watched):
    tried = 0
    for target in HOSTILE:
        if (place, target if isinstance(target, str) else "") in OWN:
            continue
        config = copy.deepcopy(finished[1]["config"])
        PLACES[place](config, {"_target_": target, **CALL})
        with pytest.raises(ConfigError, match=REFUSED) as error:
            trust.check(config, name="the run x")
        assert "\n" not in str(error.value)
        if isinstance(target, str) and target.strip() and place != "a list of positional arguments":
            assert repr(target) in str(error.value), "it is named"
        assert not watched, (target, watched)
        tried += 1
    assert tried >= 60


@pytest.mark.parametrize("target", [*HOSTILE[::12], "evil_module.Net", "genbench.config.json.codecs.open"], ids=str)
def test_a_run_that_names_one_is_refused_before_anything_of_it_is_built(sent, measure, target, evil, watched):
    folder = sent(lambda c: c["model"].update({"_target_": target, **CALL}))
    watched.clear()
    with pytest.raises(ConfigError, match=REFUSED):
        measure(folder)
    assert not watched
    assert not (folder / "measures").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["model"].__setitem__("_partial_", True), "model._partial_=True"),
        (lambda c: c["model"].__setitem__("_call_", "os.system"), "model._call_='os.system'"),
        (lambda c: c["model"].__setitem__("_args_", []), r"model._args_=\[\]"),
        (lambda c: c["model"].__setitem__("width", {"_partial_": True}), "model.width._partial_=True"),
        (lambda c: c["optimizer"].__setitem__("_partial_", "yes"), "optimizer._partial_='yes'"),
        (lambda c: c.__setitem__("model", ["os.system"]), r"model=\['os.system'\]"),
        (lambda c: c.__setitem__("regularization", "os.system"), "regularization='os.system'"),
        (lambda c: c["data"].__setitem__("path", "/etc/passwd"), "data.path='/etc/passwd'"),
        (lambda c: c["data"].__setitem__("path", "results"), "data.path='results'"),
        (lambda c: c["data"].__setitem__("noise_kind", "../x.npy"), r"data.noise_kind='\.\./x.npy'"),
        (lambda c: c["data"].__setitem__("hub", "evil/set"), "data.hub='evil/set'"),
        (lambda c: c["data"].__setitem__("inputs", "${oc.env:HOME}"), r"data.inputs='\$\{oc.env:HOME\}'"),
        (
            lambda c: c.__setitem__("regularization", {"transfer": {
                "_target_": "genbench.regularization.transfer.Transfer", "source": "hf://evil/net", "tune": "all"}}),
            "regularization.transfer.source='hf://evil/net'",
        ),
        (
            lambda c: c.__setitem__("regularization", {"transfer": {
                "_target_": "genbench.regularization.transfer.Transfer", "source": "runs", "tune": "all"}}),
            "regularization.transfer.source='runs'",
        ),
    ],
)  # fmt: skip
def test_partials_positional_arguments_places_and_interpolations_are_refused(sent, measure, watched, change, named):
    folder = sent(change)
    watched.clear()
    with pytest.raises(ConfigError, match=named):
        measure(folder)
    assert not watched


def test_what_is_genbenchs_own_is_measured_whoever_wrote_it(sent, measure):
    found = measure(sent(lambda c: c.__setitem__("threads", 1)))
    assert found.estimates["train/performance/accuracy"].value is not None


def test_a_place_may_be_given_on_the_command_line(sent, measure):
    folder = sent(lambda c: c["data"].__setitem__("inputs", "../x"))
    assert measure(folder, data={"inputs": "original"}).estimates
    whole = sent(lambda c: c.__setitem__("data", {"_target_": "os.system"}))
    data = {"_target_": "genbench.data.MNIST1D", "train_size": 50, "batch_size": 10}
    assert measure(whole, data=data).estimates


class Net(__import__("torch").nn.Module):
    """A network of the user's own."""

    def __init__(self, *, input_shape, classes):
        super().__init__()
        self.head = __import__("torch").nn.Linear(input_shape[-1], classes)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_ones_own_classes_need_no_word_and_anothers_need_trust(configure, tmp_path, monkeypatch, finished):
    plain = configure("callbacks={}", "logger={}")
    plain["model"] = {"_target_": f"{__name__}.Net"}
    record = execute.run(plain)
    assert record["status"] == "completed", record["error"]
    how = {**finished[2], "checkpoint": str(tmp_path / "runs" / "default" / record["run_id"])}
    assert measure_checkpoint.run(how).estimates
    monkeypatch.setenv("GENBENCH_CONFIG", str(tmp_path / "another user's"))
    with pytest.raises(ConfigError, match=f"model._target_='{__name__}.Net'; accepted: trust=true"):
        measure_checkpoint.run(how)
    assert measure_checkpoint.run({**how, "trust": True}).estimates


def test_genbench_trusts_all_that_its_own_choices_name():
    """Every file of every group, bound as records have it."""
    methods = [*config.choices("regularization")]
    chosen = [f"regularization=[{','.join(methods)}]", "measures=full", "callbacks=robustness"]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        whole = OmegaConf.to_container(compose("train", chosen), resolve=True)
    for group in ("data", "model", "optimizer", "scheduler"):
        for path in config.choices(group).values():
            plain = OmegaConf.to_container(OmegaConf.create({"seed": 0, group: merged(path)}), resolve=True)
            if path.stem == "grouped_images":
                plain[group]["groups"] = [[0, 1], [2, 3]]  # which a command has to give
            trust.check({group: shared(plain[group])}, name=path.stem)
    reducers = "genbench.measures.trajectory"
    best = {"_target_": f"{reducers}.Largest", "metric": "val/performance/accuracy"}
    value = {"_target_": f"{reducers}.Value", "metric": "train/performance/accuracy", "when": best}
    whole["callbacks"]["trajectory"] = {"_target_": "genbench.callbacks.Trajectory", "metrics": {"best": value}}
    for name, node in whole["regularization"].items():
        if "source" in node:
            whole["regularization"][name] = {**node, "source": "sha256:0123456789ab"}
    trust.check(shared(config.bind(whole)), name="all")
