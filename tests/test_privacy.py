"""Nothing that must not be shared, in whatever it is nested."""

import json
import os

import pytest

from genbench import privacy
from genbench.privacy import clean, shared

KEY = "0a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no space on /home/somebody/runs/weights.pt", "no space on …/weights.pt"),
        ("cannot read '/srv/my data/x.csv' or /home/somebody", "cannot read '…/x.csv' or ~"),
        ("/root/x and /Users/somebody/y/z", "…/x and …/z"),
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
