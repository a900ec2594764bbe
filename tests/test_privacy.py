"""Nothing that must not be shared, in whatever it is nested."""

import json
import os

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genbench import privacy, report
from genbench.checks import ConfigError
from genbench.config import folder
from genbench.privacy import clean, shared
from genbench.report.measures_page import drawn_page
from genbench.runs import measure_checkpoint, sweep, sweep_plan
from genbench.runs.executors import Processes
from tests.helpers.commands import typed

KEY = "0a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no space on /home/somebody/runs/weights.pt", "no space on …/weights.pt"),
        ("cannot read '/srv/my data/x.csv' or /home/somebody", "cannot read '…/x.csv' or ~"),
        ("/srv/x and /Users/somebody/y/z", "…/x and …/z"),
        ("C:\\Users\\somebody\\x.csv", "…\\x.csv"),
        ("file:///home/somebody/x/y.csv", "file://…/y.csv"),
        ("https://me:word@host.org/a?token=abc&x=1 failed", "https://…@host.org/a?… failed"),
        ("postgresql://me:word@host:5432/db", "postgresql://…@host:5432/db"),
        ("HF_TOKEN=abc seed=3", "HF_TOKEN=… seed=3"),
        ("--api-key abc --seed 3", "--api-key … --seed 3"),
        ("{'password': 'a b', 'width': 3}", "{'password': '…', 'width': 3}"),
        ("model={token:abc,width:3}", "model={token:…,width:3}"),
        ("Authorization: Bearer abcdefgh", "Authorization: … …"),
        ("hf_" + "a1" * 17, "…"),
        ("the key AKIA0123456789ABCDEF was refused", "the key … was refused"),
    ],
)
def test_what_a_text_must_not_tell_is_left_out(text, kept):
    assert clean(text) == kept
    assert clean(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "test/gap/accuracy", "genbench.models.MLP", "uoft-cs/cifar10", "hf://owner/name@main", "https://arxiv.org/abs/1411",
        "s3://bucket/key", "1/2 of 3", "[l2,mixup]", "regularization=[l2,mixup]", "data.label_noise=0.2", "<pad>",
        "seed=range(5)", "runs/ablation/x", "max_tokens=32", "mask_token=<mask>", "λ₁ ≥ 0.5",
    ],
)  # fmt: skip
def test_ordinary_words_stay(text):
    assert shared(text) == clean(text) == text


def test_values_of_keys_that_name_secrets_are_hidden_wherever_they_stand():
    given = {
        "said": f"{KEY}?",
        "model": {"_target_": "mine.Net", "apiKey": KEY, "token": 3, "pad_token": "<pad>", "width": 64},
        "auth": {"user": "somebody", "codes": ["x1", "x2"]},
        "path": "/srv/my data/words.txt",
        "error": f"the server said: {KEY} is wrong",
        "command": [f"+model.apiKey={KEY}", "data.path=/home/somebody/my data"],
    }
    assert shared(given) == {
        "said": "…?",
        "model": {"_target_": "mine.Net", "apiKey": "…", "token": 3, "pad_token": "<pad>", "width": 64},
        "auth": {"user": "…", "codes": ["…", "…"]},
        "path": "…/words.txt",
        "error": "the server said: … is wrong",
        "command": ["+model.apiKey=…", "data.path=…/my data"],
    }
    assert given["model"]["apiKey"] == KEY  # a copy


def test_home_and_secrets_of_the_environment_are_found_wherever_they_lie(monkeypatch):
    monkeypatch.setenv("HOME", "/data/users/somebody")
    monkeypatch.setenv("MY_SERVICE_TOKEN", KEY)
    privacy._home.cache_clear()
    privacy._secrets.cache_clear()
    try:
        assert clean(f"{KEY} in /data/users/somebody") == "… in ~"
        assert shared("/data/users/somebody") == "~"
    finally:
        monkeypatch.undo()
        privacy._home.cache_clear()
        privacy._secrets.cache_clear()


def test_what_was_shortened_is_not_shortened_again():
    once = shared({"a": ["x=/srv/a b/c", "https://u:p@h/x?y=z"], "password": "x"})
    assert shared(once) == once
    assert os.environ["HOME"] not in json.dumps(once)


def test_a_command_names_what_lies_nearby_from_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    privacy._home.cache_clear()
    here = tmp_path / "home" / "me" / "project"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    try:
        assert privacy.nearby(f"--config-dir={tmp_path}/home/me/conf") == "--config-dir=../conf"
        assert privacy.nearby(f"{here}/conf") == "conf"
        for other in (f"data.path={tmp_path}/home/you/data", "x=/srv/data", "data.path=images", "seed=1"):
            assert privacy.nearby(other) == other
    finally:
        monkeypatch.undo()
        privacy._home.cache_clear()


class Connected(torch.nn.Module):
    """A network of the user's own that is told what must not be shared, and may tell it."""

    def __init__(self, *, input_shape, classes, api_key, words, url, broken=False):
        super().__init__()
        self.head = torch.nn.Linear(input_shape[-1], classes)
        self.told, self.broken, self.steps = f"{api_key} for {url} in {words}", broken, 0

    def forward(self, x):
        self.steps += 1
        if self.broken and self.steps > 5:
            raise RuntimeError(f"refused: {self.told}")
        return self.head(x.flatten(1))


def telling(snapshot):
    """A measure whose reason tells more than it should."""
    assert snapshot.examples  # what fails before it looks is refused before training
    raise ValueError(f"cannot read /home/somebody/private/words.txt with {KEY}")


PLANTED = (KEY, "somebody", "private", "pa55word", "s1gnature")


def test_no_file_that_is_written_holds_a_planted_secret(configure, tmp_path, monkeypatch, capfd):
    """Record, history, metrics, traceback, plan, tables, report, measures; and nothing that is printed."""
    monkeypatch.setattr(sweep_plan, "SWEPT", {})
    settings = {
        "api_key": KEY, "words": "/home/somebody/private/words.txt", "url": "https://me:pa55word@host/x?sig=s1gnature"
    }  # fmt: skip
    jobs = []
    for seed, broken in enumerate((False, True)):
        plain = configure("measures={}", "logger=[csv]")
        plain |= {"seed": seed, "model": {"_target_": f"{__name__}.Connected", **settings, "broken": broken}}
        plain["callbacks"]["own"] = {
            "_target_": "genbench.callbacks.Measures",
            "measures": {"telling": {"_target_": f"{__name__}.telling", "_partial_": True}},
        }
        typed = (
            *(f"+model.{key}={value}" for key, value in settings.items()),
            f"model.broken={broken}",
            f"seed={seed}",
        )
        jobs.append(sweep.Job(typed, plain, {"model": "own"}))
    command = [word for job in jobs for word in job.overrides]
    outcomes = sweep.run(jobs, command=command, executor=Processes(n_jobs=1), retries=0)
    assert [outcome.status for outcome in outcomes] == ["completed", "failed"]
    where = tmp_path / "runs" / "default"
    shown = report.Report(where)
    shown.write()
    shown.show()
    with initialize_config_dir(str(folder()), version_base="1.3"):
        measure = compose("measure", [f"checkpoint={where / outcomes[0].run_id}", "pictures=null", "measures=norms"])
    measure = OmegaConf.to_container(measure, resolve=True)
    with pytest.raises(ConfigError, match=r"the record does not hold model\.api_key, which was not to be shared"):
        measure_checkpoint.run(measure)
    with pytest.raises(
        ConfigError, match=r"model is that of the run; accepted: model\.api_key, model\.words, model\.url"
    ):
        measure_checkpoint.run({**measure, "model": {**settings, "broken": True}})
    measure_checkpoint.run({**measure, "model": settings}, page=drawn_page)
    files = {path: path.read_bytes() for path in where.rglob("*") if path.is_file()}
    names = {path.name for path in files}
    assert names >= {
        "record.json", "sweep.json", "metrics.csv", "history.csv", "traceback.txt", "report.html", "table.md",
        "table.csv", "measures.json", "measures.html", "measures.csv",
    }  # fmt: skip
    found = [(path.name, word) for path, content in files.items() for word in PLANTED if word.encode() in content]
    assert not found
    out, err = capfd.readouterr()
    assert not [word for word in PLANTED if word in out + err]
    assert "refused: …" in (where / outcomes[1].run_id / "traceback.txt").read_text()


def refusing(snapshot, *, api_key):
    """A measure that tells its key before it looks at anything."""
    raise ValueError(f"the key {api_key} is not accepted")


def test_a_secret_that_was_typed_is_in_no_error(tmp_path):
    target = [f"+measures.own._target_={__name__}.refusing", "+measures.own._partial_=true"]
    for more in ([], ["-m"]):
        status, out, err = typed(tmp_path, "genbench", *more, *target, f"+measures.own.api_key={KEY}")
        assert status == 1
        assert "measures.own: the key … is not accepted" in err
        assert KEY not in out + err
