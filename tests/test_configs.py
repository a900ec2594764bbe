"""Every YAML composes and builds, every partial is bound, every method does something in every experiment."""

import inspect
import re
from itertools import product

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from genbench import config, regularization
from genbench.cli import catalog
from genbench.runs import execute, plan
from tests.helpers.choices import DATA, METHOD, STRONG, choices, merged

FOLDER = config.folder()
FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
CHOICES = [path for path in FILES if not path.name.startswith("_")]
GROUPS = {"data", "model", "optimizer", "scheduler", "regularization", "measures", "callbacks", "logger", "trainer"}
METHODS = [name for name in choices("regularization") if name != "none"]
# those on real data have tests of their own
OWN = ("_paper", "_middle", "_images")
EXPERIMENTS = sorted(p.stem for p in FILES if p.parent.name == "experiment" and not p.stem.endswith(OWN))
OTHER_PARENTS = {"experiment", "launcher", "sweeper"}


def composed(*overrides):
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return OmegaConf.to_container(compose("train", list(overrides)), resolve=True)


def choose(path):
    group = path.parent.as_posix()
    if group == "regularization":
        return f"{group}=[{path.stem}]", *METHOD.get(path.stem, [])
    if group == "data":
        return f"{group}={path.stem}", *DATA.get(path.stem, [])
    return (f"{group}=[{path.stem}]" if group == "logger" else f"{group}={path.stem}",)


def short(plain):
    """The same run, but tiny."""
    plain["data"] |= {"train_size": 120, "val_fraction": 0.25, "batch_size": 30}
    if "parts" in plain["data"]:
        plain["data"]["parts"] = 1  # a batch has more examples than a part would
    plain["trainer"] |= {"accelerator": "cpu", "max_steps": 9}
    return plain


def test_no_file_is_missed():
    tested = [path.name for path in CHOICES if path.parent.name in GROUPS | OTHER_PARENTS]
    others = ["train.yaml", "measure.yaml", "_launcher.yaml", "_shared.yaml", "_stream.yaml"]
    assert sorted([*tested, *others]) == sorted(path.name for path in FILES)


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name in GROUPS], ids=str)
def test_every_choice_composes_binds_and_builds(path):
    plain = short(composed(*choose(path)))
    config.bind(plain)
    plan.check(plain)


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name in GROUPS], ids=str)
def test_every_choice_says_in_its_first_line_what_it_is(path):
    first = (FOLDER / path).read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) <= 120


EXAMPLES = [
    (path, example)
    for path in CHOICES
    if path.parent.name in GROUPS
    for line in (FOLDER / path).read_text().splitlines()
    for example in re.findall(rf"(?<![\w.])(?:{'|'.join(GROUPS)})\.[a-z_.]+=\w[\w.]*", line.partition("#")[2])
]


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=str)
def test_a_setting_in_a_comment_can_be_set_so(path, example):
    key, _, value = example.partition("=")
    found = OmegaConf.select(OmegaConf.create(composed(*choose(path), example)), key)
    assert found == yaml.safe_load(value)


def test_the_test_signals_are_those_of_training_but_for_what_is_set():
    plain = composed("data=mnist1d_stream", "data.signals.scale=0.5", "data.test_signals.shear=1.5")["data"]
    assert plain["signals"]["scale"] == 0.5
    assert plain["test_signals"] == plain["signals"] | {"shear": 1.5}


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name in GROUPS | {"launcher", "sweeper"}], ids=str)
def test_every_partial_is_bound_and_every_setting_listed(path):
    """A setting that is not in the YAML cannot be swept; ours are all there (those of libraries are chosen)."""
    for node in targets(OmegaConf.to_container(merged(FOLDER / path))):
        accepted = config.signature(get_object(node["_target_"]))
        settings = {key: value for key, value in node.items() if not key.startswith("_")}
        inspect.Signature(accepted).bind_partial(**settings)
        if node["_target_"].startswith("genbench."):
            passed = {name for names in config.PASSED.values() for name in names} | {"loss", "forward", "initial"}
            named = {p.name for p in accepted if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
            assert named - passed == set(settings), node["_target_"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_file_is_one_keyed_entry(name):
    text = (FOLDER / "regularization" / f"{name}.yaml").read_text()
    assert "@package" not in text
    assert list(yaml.safe_load(text)) == [name]


def test_a_set_of_data_repeats_no_setting_that_it_includes():
    """Its own lines are those that differ, in value or in what they say."""
    shared = (FOLDER / "data" / "_shared.yaml").read_text().splitlines()
    stream = (FOLDER / "data" / "_stream.yaml").read_text().splitlines()
    for path in config.choices("data").values():
        lines = path.read_text().splitlines()
        assert not set(lines) & ({*shared, *stream} if "defaults: [_stream]" in lines else {*shared}), path


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_class_is_exported(name):
    target = next(targets(yaml.safe_load((FOLDER / "regularization" / f"{name}.yaml").read_text())))["_target_"]
    exported = target.rpartition(".")[2]
    assert exported in regularization.__all__
    assert getattr(regularization, exported) is get_object(target)


@pytest.mark.parametrize("key", ["accelerator", "precision"])
def test_the_trainers_comments_list_what_is_accepted(key):
    found = {setting.key: setting for setting in catalog.settings("trainer", FOLDER / "trainer" / "default.yaml")}
    with pytest.raises(ValueError, match=f"trainer.{key} is 'other'") as refused:
        plan.plan(composed(f"trainer.{key}=other"))
    assert str(refused.value).partition("accepted: ")[2] == found[f"trainer.{key}"].about


def test_methods_combine():
    plain = composed("regularization=[l2,mixup,sam]")
    assert sorted(plain["regularization"]) == ["l2", "mixup", "sam"]
    assert composed("regularization=none")["regularization"] == {}


def trained(plain, runs, steps):
    plain = {**short(plain), "runs_dir": str(runs), "callbacks": {}, "logger": {}}
    plain["trainer"]["max_steps"] = steps
    record = execute.run(plain)
    assert record["status"] == "completed", record["error"]
    return torch.load(runs / record["experiment"] / record["run_id"] / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that several tests compare with is trained once."""
    return tmp_path_factory.mktemp("runs")


# every method in one experiment, every experiment with five methods at least, taking turns; the whole product is for
# pytest -m matrix
PLACES = [(EXPERIMENTS[i % len(EXPERIMENTS)], method) for i, method in enumerate(METHODS)]


@pytest.mark.parametrize(
    ("name", "method"),
    [pytest.param(*pair, marks=() if pair in PLACES else pytest.mark.matrix) for pair in product(EXPERIMENTS, METHODS)],
)
def test_every_method_has_its_effect_in_every_experiment(name, method, runs):
    """Global files lose silently against an experiment's plain values: the final weights must differ from ``none``."""
    data, strong = METHOD.get(method, []), STRONG.get(method, [])
    model = composed(f"experiment={name}")["model"]
    if lacking := [each for each in data if each.startswith("model.") and each[6:].split("=")[0] not in model]:
        pytest.skip(f"the network of the experiment has no setting for {lacking[0]}")
    file = yaml.safe_load((FOLDER / "experiment" / f"{name}.yaml").read_text())
    own = file.get("data") or {}
    methods = {each: f"~regularization.{each}" for each in file.get("regularization") or {}}
    without = [words for each, words in methods.items() if each != method]
    if any(each.startswith("data=") for each in data) and (lacking := own.keys() - composed(*data)["data"].keys()):
        pytest.skip(f"the data of the method have no setting {min(lacking)} of the experiment's")
    if (isinstance(model.get("width"), list) or model.get("depth") == 1) and "model.residual=true" in data:
        pytest.skip("one hidden layer, and layers of different widths, have no residual branches")
    steps = 120 if method == "early_stopping" else 9
    plain = trained(composed(f"experiment={name}", "regularization=none", *methods.values(), *data), runs, steps)
    chosen = composed(f"experiment={name}", f"regularization={method}", *without, *data, *strong)
    try:
        other = trained(chosen, runs, steps)
    except ValueError as error:
        # frozen features have neither, slots may be taken, tokens are not moved, and a method that needs it says so
        refused = r"(RandomFeatures|Embedded) has no layers|has no free normalization|which tokens|inputs are tokens"
        if re.search(refused, str(error)) is None:
            raise
        pytest.skip(f"{error}")
    assert plain.keys() != other.keys() or not all(torch.equal(plain[key], other[key]) for key in plain)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_cell_of_an_experiments_table_mixes_what_is_swept(name):
    """It would be said when all has been trained."""
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose("train", [f"experiment={name}"], return_hydra_config=True)
    swept = {key for key, values in config.hydra.sweeper.params.items() if "," in str(values)} - {"seed"}
    for column in (config.table or {}).get("columns") or []:
        assert swept <= {*(config.table.rows or swept), *column.get("where", {})}, column.label


def test_the_ablations_caption_states_what_is_not_chosen():
    """The strengths that the validation split chooses are in the table; what stays as it is stands in the caption."""
    plain = composed("experiment=ablation", f"regularization=[{','.join(METHODS)}]")
    caption, methods = plain["table"]["caption"], plain["regularization"]
    assert f"shifts by up to {methods['augmentation']['shift']} " in caption
    assert f"scales by up to {methods['augmentation']['scale']}." in caption
    assert f"each of {methods['ensemble']['members']} members" in caption
