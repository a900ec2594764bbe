"""What people type: three hundred malformed inputs, each answered in a line or three that name it, with nothing
written; fifteen of them as commands of their own."""

# ruff: noqa: E501 - tables
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate

from genbench import config
from genbench.checks import ConfigError
from genbench.cli import catalog
from genbench.cli.explain import explain
from genbench.runs import plan
from tests.helpers.commands import command, program

WRONG = "abc -1 1.5 null [1] {a:1} true nan"
SHARE = "abc -1 1.5 null [1] {a:1} true nan inf"
WORD = "abc 3 null [a] {a:1} true"
# a setting, what its refusals say, and wrong values; what is chosen beside it
SETTINGS = [
    ("seed", r"seed.*(Integer|accepted: an integer of at least 0|not Optional)", WRONG, ""),
    ("threads", r"threads.*(Integer|accepted: an integer from 1 to 1024|not Optional)", f"{WRONG} 0 1e9", ""),
    ("checkpoint_seconds", r"checkpoint_seconds.*(Float|accepted: a number|not Optional)", "abc -1 null [1] {a:1}", ""),
    ("data.batch_size", r"data\.batch_size(.*accepted: an integer from 1|=nan is not a finite)", "abc -1 1.5 [1] {a:1} true nan 0", ""),
    ("data.train_size", r"data\.train_size(.*accepted: an integer from 1|=nan is not a finite)", "abc -1 1.5 [1] 0", ""),
    ("data.val_fraction", r"data\.val_fraction(.*accepted: a number in \[0, 1\)|=.* is not a finite)", SHARE, ""),
    ("data.label_noise", r"data\.label_noise(.*accepted: a number in \[0, 1\]|=.* is not a finite)", SHARE, ""),
    ("data.duplicates", r"data\.duplicates(.*accepted: a number in \[0, 1\)|=.* is not a finite)", SHARE, ""),
    ("data.imbalance", r"data\.imbalance(.*accepted: |=.* is not a finite)", "abc -1 0 null [1] {a:1} true nan", ""),
    ("data.inputs", r"data\.inputs is .*; accepted: original", WORD, ""),
    ("model.width", r"model\.width(.*accepted: an integer of at least 1| is \[1\]; accepted with model\.depth=2: |=nan is not a finite)", f"{WRONG} 0", ""),
    ("model.depth", r"model\.depth(.*accepted: an integer of at least 1|=nan is not a finite)", f"{WRONG} 0", ""),
    ("model.dropout", r"model\.dropout(.*accepted: a number in \[0, 1\)|=.* is not a finite)", SHARE, ""),
    ("model.activation", r"model\.activation is .*; accepted: relu", WORD, ""),
    ("optimizer.lr", r"optimizer\.lr is .*; accepted: a number in \(0, inf\)", "abc -1 0 null [1] {a:1} true nan inf", ""),
    ("optimizer.eps", r"optimizer(\.eps is .*; accepted: a number|: .*epsilon|\.eps=nan)", "abc -1 null [1] {a:1} nan", ""),
    ("optimizer.betas", r"optimizer[.:]", "abc 1.5 null [2,2]", ""),
    ("trainer.max_steps", r"trainer\.max_steps.*(accepted: an integer|never end)", "abc -1 0 1.5 null [1] {a:1} true nan", ""),
    ("trainer.accelerator", r"trainer\.accelerator is .*; accepted: auto, cpu, gpu, mps", "x 3 null [a] {a:1} true", ""),
    ("trainer.precision", r"trainer\.precision is .*; accepted: 32-true, bf16-mixed", "x 16 null [a] {a:1} true", ""),
    ("trainer.devices", r"trainer\.devices is .*; accepted: ", "abc -1 0 2 null [1]", ""),
    ("callbacks.gap.every_n_epochs", r"every_n_epochs(.*accepted: |=nan is not a finite)", "abc -1 0 1.5 [0] nan", ""),
    ("measures.trace.probes", r"measures\.trace\.probes(.*accepted: an integer of at least 2|=nan is not a finite)", f"{WRONG} 1", ""),
    ("measures.lambda_1.k", r"measures\.lambda_1\.k(.*accepted: an integer of at least 1|=nan is not a finite)", f"{WRONG} 0", ""),
    ("callbacks.measures.split", r"split is .*; accepted: train, val, test", WORD, ""),
    ("callbacks.measures.examples", r"examples(.*accepted: an integer of at least 1|=nan is not a finite)", "abc -1 1.5 [1] {a:1} true nan 0", ""),
    ("callbacks.gap.log_details", r"log_details is .*; accepted: true, false", "abc 3 null [1]", ""),
    ("regularization.l2.strength", r"strength(=.* is not a finite number| is .*; accepted: a number in \[0, inf\))", "abc -1 null [1] nan inf", "l2"),
    ("regularization.sam.rho", r"rho(=.* is not a finite number| is .*; accepted: a number in \[0, inf\))", "abc -1 null [1] nan inf", "sam"),
    ("regularization.dropout.rate", r"rate(=.* is not a finite| is .*accepted: a number in \[0, 1\))", SHARE, "dropout"),
    ("regularization.mixup.alpha", r"alpha(=.* is not a finite number| is .*; accepted: a number in \[0, inf\))", "abc -1 null [1] nan", "mixup"),
    ("regularization.ensemble.members", r"members(=.* is not a finite number| is .*; accepted: an integer of at least 2)", "abc 1 null [1] nan", "ensemble"),
    ("regularization.transfer.source", r"regularization.transfer.* source.*accepted", "nosuch 3 [1] {a:1}", "transfer"),
    ("regularization.transfer.tune", r"tune is .*; accepted: all, head", "x 3 null [all]", "transfer"),
]  # fmt: skip
# what is typed, and what its answer has to say; \x1f separates the words of a command
OTHERS = [
    # misspelt keys: the one that was meant
    *((f"{typed}=1", f"{typed} is not a setting; did you mean '{meant}'?") for typed, meant in {
        "trainr.max_steps": "trainer.max_steps", "data.trainsize": "data.train_size", "data.lable_noise": "data.label_noise",
        "data.bathc_size": "data.batch_size", "data.val_fracton": "data.val_fraction", "model.widht": "model.width",
        "model.dept": "model.depth", "model.droput": "model.dropout", "optimizer.learning": "optimizer.lr",
        "optimzer.lr": "optimizer.lr", "optimizer.bets": "optimizer.betas", "sed": "seed", "thread": "threads",
        "nam": "name", "runs_dri": "runs_dir", "run_dir": "runs_dir", "chekpoint_seconds": "checkpoint_seconds",
        "trainer.max_step": "trainer.max_steps", "trainer.max_epoch": "trainer.max_epochs", "trainer.device": "trainer.devices",
        "callbacks.gap.every_n_epoch": "callbacks.gap.every_n_epochs", "callbacks.gap.exampels": "callbacks.gap.examples",
        "callbacks.stop.train_los": "callbacks.stop.train_loss", "measures.trace.probs": "measures.trace.probes",
        "measures.sam_sharpnes.rho": "measures.sam_sharpness.rho", "max_steps": "trainer.max_steps",
        "train_size": "data.train_size", "label_noise": "data.label_noise",
    }.items() if typed != "optimizer.learning"),
    # keys of what is not chosen
    ("regularization.l2.strength=1", "is a setting of regularization=l2, which is not chosen here"),
    ("regularization.sam.rho=1", "is a setting of regularization=sam, which is not chosen here"),
    ("model.heads=3", "is a setting of model=decoder, transformer, which is not chosen here"),
    ("optimizer.momentum=0.9", "which is not chosen here"),
    # keys that nothing reads
    ("foo=1", "foo is not a setting\n  accepted: name, runs_dir, seed"),
    ("xyzzy.plugh=1", "xyzzy.plugh is not a setting\n  accepted: "),
    ("+foo=1", "foo is not a setting, and no setting refers to it"),
    ("++trainr.max_steps=3", "trainr is not a setting, and no setting refers to it; did you mean 'trainer'?"),
    ("+seedd=1", "seedd is not a setting, and no setting refers to it; did you mean 'seed'?"),
    ("++trainer.max_stepss=3", "trainer.max_stepss is not a setting here; did you mean 'max_steps'?"),
    ("+model.foo=1", "model.foo is not a setting of genbench.models.MLP"),
    ("+data.foo=1", "data.foo is not a setting of genbench.data"),
    ("+optimizer.foo=1", "optimizer.foo is not a setting of torch.optim.Adam"),
    ("+callbacks.gap.foo=1", "callbacks.gap.foo is not a setting of genbench.callbacks"),
    ("+measures.trace.foo=1", "measures.trace.foo is not a setting of genbench.measures"),
    ("+regularization.l2.strength=1", "regularization.l2 is not chosen, so it cannot be set"),
    ("+regularization.nosuch=1", "regularization.nosuch is not chosen, so it cannot be set"),
    ("+seed=3", "seed is a setting already: leave out the + before it"),
    ("+data.seed=3", "data.seed is a setting already: leave out the + before it"),
    # choices
    *((f"{group}={typed}", f"{group}={typed}: no such choice; did you mean '{meant}'?") for group, typed, meant in [
        ("regularization", "droput", "dropout"), ("regularization", "wieght_decay", "weight_decay"), ("model", "mlpp", "mlp"),
        ("model", "resnet", "resnet18"), ("data", "mnist2d", "mnist1d"), ("data", "cifar", "cifar10"), ("optimizer", "adamm", "adam"),
        ("scheduler", "cosin", "cosine"), ("measures", "standart", "standard"), ("callbacks", "defaults", "default"),
        ("logger", "wanb", "wandb"), ("trainer", "defualt", "default"), ("experiment", "ablatoin", "ablation"),
        ("hydra/launcher", "process", "processes"),
    ]),
    ("regularization=[l2,droput]", "regularization=droput: no such choice; did you mean 'dropout'?"),
    ("regularization=[l2, droput]", "regularization=droput: no such choice; did you mean 'dropout'?"),
    ("logger=[csv,wanb]", "logger=wanb: no such choice; did you mean 'wandb'?"),
    ("model=", "model=: no such choice; accepted: alexnet"),
    ("model=nosuchthing", "model=nosuchthing: no such choice; accepted: alexnet"),
    *((f"{group}={value}", "a choice is a name or a list of names") for group, value in [
        ("regularization", "null"), ("callbacks", "null"), ("measures", "null"), ("logger", "null"), ("model", "null"),
        ("data", "3"), ("optimizer", "1.5"), ("trainer", "true"),
    ]),
    *((f"~{group}", f"{group} is not given; accepted: {group}=") for group in ("model", "data", "optimizer", "scheduler", "trainer")),
    ("~regularization.l2", "there is no regularization.l2 to take out"),
    ("~nosuch", "there is no nosuch to take out"),
    # targets
    *((f"{part}._target_={value}", f"{part}._target_{said}") for part in ("model", "data", "optimizer", "scheduler") for value, said in [
        ("null", " is None; accepted: the dotted name"), ("nosuch.X", "='nosuch.X' cannot be imported: No module named 'nosuch'"),
        ("3", " is 3; accepted: the dotted name"), ('""', " is ''; accepted: the dotted name"),
    ]),
    ("model._target_=genbench.models.MLPP", "model._target_='genbench.models.MLPP' cannot be imported"),
    ("model._target_=torch.pi", "model._target_='torch.pi' cannot be called"),
    ("+callbacks.mine._target_=nosuch.X", "callbacks.mine._target_='nosuch.X' cannot be imported"),
    ("trainer._target_=nosuch.X", "trainer._target_='nosuch.X' cannot be imported"),
    # names and folders
    *((f"name={value}", "is not the name of a folder") for value in (
        '"a\nb"', '"a\tb"', '""', "'a/b'", ".", "..", "'../x'", '"\x1b[31m"', "'/etc'", "x" * 300,
    )),
    ("name=null", "name=null"),
    ("name=[a]", "name=[a]"),
    ("runs_dir=", "runs_dir='' is not a folder"),
    ("runs_dir=''", "runs_dir='' is not a folder"),
    ('runs_dir="a\nb"', "runs_dir='a\\nb' is not a folder"),
    ("runs_dir=null", "runs_dir=null"),
    # values and syntax
    ("seed=${x}", "Interpolation key 'x' not found"),
    ("seed=${oc.env:NOSUCH_VARIABLE}", "Environment variable 'NOSUCH_VARIABLE' not found"),
    ("seed=${", "seed=${"),
    ("name=${name}", "Recursive interpolation"),
    ("seed=$x", "seed=$x"),
    ("a", "'a' cannot be read; accepted: key=value"),
    ("seed=1\x1fmodel", "'model' cannot be read; accepted: key=value"),
    ("=3", "a choice is a name or a list of names, not int"),
    ("seed", "'seed' cannot be read"),
    ("seed=[1", "'seed=[1' cannot be read; put values with special characters in quotes"),
    ("seed={a", "'seed={a' cannot be read; put values with special characters in quotes"),
    ("name='open", "name='open"),
    ("name=a b=c", "'name=a b=c' cannot be read; put values with special characters in quotes"),
    ("seed=" + "[" * 2000, "seed="),
    ("data={a:1}", "a key of what data is set to is not a setting"),
    ("model=[]", "model is not given"),
    ("model=[mlp,cnn]", "model"),
    ("model=[mlp]\x1fmodel=cnn\x1fmodel.nosuch=1", "model.nosuch is not a setting"),
    ("table=3", "table=3"),
    ("table={a:3}", "table"),
    ("sources=3", "sources=3"),
    ("logger=csv\x1flogger.csv=3", "logger.csv"),
    ("callbacks.gap=3", "callbacks.gap is not chosen, so it cannot be set"),
    ("seed=1\x1fseed={a", "'seed={a' cannot be read"),
    ("trainer.max_steps=null\x1ftrainer.max_epochs=null", "training would never end"),
    ("trainer.strategy=ddp", "trainer"),
    ("hydra.nosuch=1", "hydra.nosuch"),
    ("experiment=nosuch", "experiment=nosuch: no such choice"),
    ("data.batch_size=100\x1fdata.train_size=10", "data.batch_size is 100; accepted: an integer from 1 to 10"),
    ("regularization=early_stopping", "watches the validation split; set data.val_fraction > 0"),
    ("regularization=batch_norm\x1fdata.batch_size=1", "the first training step fails"),
    ("regularization=stochastic_depth", "stochastic"),
    ("data=cifar10\x1fdata.path=/nosuch", "data.path is '/nosuch', where there is no folder"),
    ("data=images\x1fdata.path=/nosuch", "data.path is '/nosuch', where there is no folder"),
    ("data=text_classification\x1fdata.path=/nosuch", "nosuch"),
]  # fmt: skip
SWEEPS = [
    ("seed=range(0)", "seed=range(0) has no values, so the sweep is empty"),
    ("seed=range(5,5)", "has no values, so the sweep is empty"),
    ("seed=range(5,1)", "has no values, so the sweep is empty"),
    ("seed=range(1e9)", "the sweep has 1,000,000,000 runs or more with seed=range(1e9); accepted: 100,000"),
    ("seed=range(0,1,1e-9)", "accepted: 100,000"),
    ("seed=range(1000)\x1fthreads=range(1,1000)", "the sweep has 999,000 runs or more"),
    ("seed=interval(0,1)", "does not support sweep type"),
    ("seed=choice(", "seed=choice("),
]
TABLE = [
    *(([*([f"regularization={chosen}"] if chosen else []), f"{key}={value}"], said)
      for key, said, values, chosen in SETTINGS for value in values.split()),
    *((words.split("\x1f"), re.escape(said)) for words, said in OTHERS),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def composing():
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def check(said, expected):
    assert re.search(expected, said, re.S), said
    lines = said.splitlines()
    assert len(lines) <= 3
    assert len(said) < 1000
    assert "Traceback" not in said
    for typed, meant in re.findall(r"(\S+) is not a setting; did you mean '([^']+)'", said):
        assert typed != meant


def test_there_are_three_hundred():
    assert len(TABLE) + len(SWEEPS) >= 300


@pytest.mark.parametrize(("words", "expected"), TABLE, ids=[" ".join(words)[:60] for words, _ in TABLE])
def test_a_malformed_input_is_answered_in_a_line_that_names_it(words, expected, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as refusal:  # noqa: PT011, PT012 - what it says is what counts
        plain = config.resolve(compose("train", words))
        plan.plan(plain)
        plan.check(plain)
    check(explain(refusal.value, words), expected)
    assert not list(tmp_path.iterdir())
    assert "Error getting object" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("words", "expected"), SWEEPS, ids=[words for words, _ in SWEEPS])
def test_a_malformed_sweep_is_counted_before_it_is_written_down(words, expected):
    sweeper = instantiate({"_target_": "hydra_plugins.genbench.grid.GridSweeper"})  # as Hydra has loaded it
    sweeper.hydra_context = SimpleNamespace(config_loader=GlobalHydra.instance().config_loader())
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    with pytest.raises(Exception) as refusal:  # noqa: PT011
        sweeper.split_arguments(parser.parse_overrides(words.split("\x1f")), None)
    check(explain(refusal.value, words.split("\x1f")), re.escape(expected))


def test_a_key_that_others_refer_to_is_there_for_them():
    plain = config.resolve(compose("train", ["+units=64", "model.width=${units}"]))
    assert plain["model"]["width"] == 64
    assert "units" not in plain


def test_a_file_that_aliases_make_endless_is_refused(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    arguments = ["--config-dir", str(tmp_path), "experiment=mine"]
    for text in (bomb, "a: &a [*a]\n"):
        (folder / "mine.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.yaml: its aliases .* larger than 100,000 nodes"):
            catalog.check_files(arguments)
    (folder / "mine.yaml").write_text("a: &a {lr: 0.1}\nb: *a\nc: *a\n# 3 * 4 & 5\n")
    catalog.check_files(arguments)


# -- commands

COMMANDS = [
    (["genbench", "--version"], 0, r"^genbench \d+\.\d+\.\d+\n$", ""),
    (["genbench", "regularization=sam", "--help"], 0, r"regularization\.sam\.rho=0\.05  radius of the ℓ2 ball, ≥ 0", ""),
    (["genbench", "model=cnnn", "--help"], 1, "", r"model=cnnn: no such choice; did you mean 'cnn'\?"),
    (["genbench", "--nosuch"], 1, "", r"^genbench: unrecognized arguments: --nosuch; see genbench --help\n$"),
    (["genbench", "foo=1"], 1, "", r"^genbench: foo is not a setting\n  accepted: .*\n  genbench --help .*\n$"),
    (["genbench", "+foo=1"], 1, "", r"foo is not a setting, and no setting refers to it"),
    (["genbench", "regularization=[l2,droput]"], 1, "", r"did you mean 'dropout'\?"),
    (["genbench", "~model"], 1, "", r"^genbench: model is not given; accepted: model=alexnet"),
    (["genbench", "seed=range(3)"], 1, "", r"that takes -m: genbench -m 'seed=range\(3\)'"),
    (["genbench", "-m", "seed=range(0)"], 1, "", r"seed=range\(0\) has no values, so the sweep is empty"),
    (["genbench", "-m", "seed=range(1e9)"], 1, "", r"accepted: 100,000"),
    (["genbench", "--config-dir", "nosuch"], 1, "", r"'.*nosuch' not found"),
    (["genbench-measure"], 1, "", r"^genbench-measure: checkpoint is not given; accepted: checkpoint=a run's folder"),
    (["genbench-measure", "foo=1"], 1, "", r"^genbench-measure: foo is not a setting\n"),
    (["genbench", "model._target_=nosuch.X"], 1, "", r"\ngenbench: model\._target_='nosuch\.X' cannot be imported: .*\n$"),
]  # fmt: skip


def test_fifteen_of_them_as_commands(tmp_path):
    """Each in a process of its own; three import themselves what they need, too."""
    assert len(COMMANDS) == 15
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    ended = [command(words, tmp_path) for words, *_ in COMMANDS]
    whole = [COMMANDS[0], COMMANDS[4], COMMANDS[-3]]
    for words, *_ in whole:
        afresh = [sys.executable, "-c", program(words)]
        ended.append(subprocess.run(afresh, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120))
    for (words, status, out, err), done in zip([*COMMANDS, *whole], ended, strict=True):
        assert done.returncode == status, (words, done.stderr)
        assert re.search(out, done.stdout), (words, done.stdout)
        assert re.search(err, done.stderr), (words, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["genbench", "--help"], ["genbench", "--cfg", "job"]])
def test_a_reader_that_leaves_early_leaves_no_traceback(words, tmp_path):
    """As head does: the pipe is closed before anything is written."""
    code = f"import sys; sys.argv = {words!r}; from genbench.cli import train; train()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=120) == 0, said
    assert said == ""


def test_the_hub_without_a_network_is_given_up_in_three_seconds(tmp_path):
    """The library's own tries take twenty-five."""
    pytest.importorskip("huggingface_hub", reason="the hub needs the extra hub")
    code = (
        "import time; import torch; from genbench.records import weights; import huggingface_hub; started = time.monotonic()\n"
        "try: weights.file_of('hf://nosuch/model', 'source')\n"
        "except ValueError as error: print(time.monotonic() - started, error)"
    )
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **unreachable}, capture_output=True, text=True, timeout=120
    )
    seconds, _, said = done.stdout.partition(" ")
    assert float(seconds) < 3, done.stderr
    assert "it is not in the cache of the hub's library, and to fetch it a network is needed" in said
