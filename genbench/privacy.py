"""Remove home folders, absolute paths and credentials from every file and message that is meant to be shared."""

import functools
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HIDDEN = "…"

_NOUNS = "password passwd passphrase pwd secret secrets token apikey credential credentials auth authorization cookie"
_KEYS = ("api", "access", "private", "secret", "account", "signing", "encryption")  # before "key"
_VOCABULARY = "pad mask cls sep eos bos unk start end class special"  # before "token": entries of a tokenizer's
_SPEAKING = re.compile(  # credentials with a form of their own
    r"\b(?:hf_\w{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|wandb_v\d+_\w{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,})"
)
_SUSPICIOUS = re.compile(
    r"[~=:@\\]|(?<![\w.])/|hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox|wandb_v|AKIA|ASIA|eyJ|--|(?i:bearer|basic) "
)
_SETTING = re.compile(r"([+~]*[\w./@-]+)(=)(.+)", re.DOTALL)
_NAMED = re.compile(r"""([\w.-]+)(["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;&'"()\[\]{}]+)""")
_FLAG = re.compile(r"""(?<!\S)--?([\w-]+)([\s=]+)("[^"]*"|'[^']*'|[^\s-]\S*)""")
_seen: set[str] = set()  # secrets of a configuration, which errors and names may repeat


def clean(text: Any) -> str:
    """Return one line of text without control characters, absolute paths and secrets.

    >>> clean("no space on /home/somebody/runs/weights.pt")
    'no space on …/weights.pt'
    >>> clean("cannot read '/srv/my data/x.csv' or /home/somebody")
    "cannot read '…/x.csv' or ~"
    """
    line = " ".join(str(text).split())
    if not line.isprintable():  # as nearly all of it is
        line = "".join(char for char in line if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return shorten(line)


def shared(value: Any, key: str = "") -> Any:
    """Return a plain value without what must not be shared, at any depth: home folders become ~, absolute paths keep
    their last part, URLs lose user and query, and secrets are hidden, both under their key and wherever they are
    repeated.

    >>> shared({"vocabulary": "/home/somebody/words.txt", "api_key": "s3cret0123", "pad_token": "<pad>"})
    {'vocabulary': '…/words.txt', 'api_key': '…', 'pad_token': '<pad>'}
    >>> shared(["data.path=/srv/my data/x", "url=https://me:word@host/set?sig=ab", "the s3cret0123 was refused"])
    ['data.path=…/x', 'url=https://…@host/set?…', 'the … was refused']
    """
    _learn(value, key)  # first: a secret may stand in what comes before its own key
    return _shared(value, key)


def _shared(value: Any, key: str) -> Any:
    if names_secret(key):
        return _hidden(value)
    if isinstance(value, Mapping):
        return {
            shorten(name) if isinstance(name, str) else name: _shared(item, str(name)) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_shared(item, "") for item in value)
    return _leaf(value) if isinstance(value, str) else value


def learn(words: Sequence[str]) -> None:
    """Remember the secrets among typed settings (key=value): an error may repeat them before they are bound."""
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        _learn(value, key)


def _learn(value: Any, key: str) -> None:
    """Remember the secrets in a value, to hide them where they stand without their key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _learn(item, key if names_secret(key) else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            _learn(item, key)
    elif names_secret(key) and _random(str(value)):
        _seen.add(str(value))


def nearby(word: str) -> str:
    """Write an absolute path in a word of a command relative to the working folder; leave it if the two share only the
    folders above home folders.

    >>> nearby(f"data.path={os.getcwd()}/images"), nearby("--seed"), nearby("x=/nowhere/else")
    ('data.path=images', '--seed', 'x=/nowhere/else')
    """
    key, equals, value = word.rpartition("=")
    if not os.path.isabs(value):
        return word
    shared_folder = os.path.commonpath([value, os.getcwd()])
    if shared_folder in ("/", "/home", "/Users") or _home().startswith(shared_folder + "/"):
        return word
    return f"{key}{equals}{os.path.relpath(value)}"


@functools.cache
def names_secret(key: str) -> bool:
    """Tell whether a key names a secret; of a dotted key the last part counts.

    >>> [names_secret(key) for key in ("model.apiKey", "HF_TOKEN", "max_tokens", "mask_token", "key")]
    [True, True, False, False, False]
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key.rpartition(".")[2])]
    pairs = list(zip(["", *words], words, strict=False))
    return any(
        (word in _NOUNS.split() and not (word == "token" and before in _VOCABULARY.split()))
        or (word in ("key", "keys") and before in _KEYS)
        for before, word in pairs
    )


def _hidden(value: Any) -> Any:
    """Return the placeholder of a secret; small numbers stay, as they are counts or vocabulary entries (``token:
    3``)."""
    if isinstance(value, Mapping):
        return {name: _hidden(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hidden(item) for item in value)
    if value is None or isinstance(value, bool) or value == "" or (isinstance(value, int | float) and abs(value) < 1e3):
        return value
    return HIDDEN


def _random(text: str) -> bool:
    """Tell whether a secret is unlikely to be a word of other texts, so that all texts can be searched for it."""
    mixed = any(map(str.isdigit, text)) and any(map(str.isalpha, text))
    return len(text) >= (8 if mixed else 20) and not text.startswith("/")


def _leaf(text: str) -> str:
    """Shorten a string that is a whole value: a path in it may contain spaces."""
    if found := _SETTING.fullmatch(text):
        name, equals, value = found.groups()
        return f"{shorten(name)}{equals}{_shared(value, name.lstrip('+~'))}"
    at_home = _at_home(text)
    if re.match(r"~/|/[^/]+/", at_home) and "\n" not in text:
        return f"{HIDDEN}/" + shorten(at_home.rstrip("/").rpartition("/")[2])
    return shorten(text)


def shorten(text: str) -> str:
    """Return a text of any length without what must not be shared."""
    for secret in {*_secrets(), *_seen}:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if not _SUSPICIOUS.search(text):
        return text
    text = _SPEAKING.sub(HIDDEN, text)
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}", rf"\1 {HIDDEN}", text)
    text = re.sub(r"://[^/\s'\"@]+@", f"://{HIDDEN}@", text)
    text = re.sub(r"(://[^\s'\"?]*)\?[^\s'\"…]+", rf"\1?{HIDDEN}", text)
    for pattern in (_FLAG, _NAMED):
        text = pattern.sub(_without_value, text)
    text = re.sub(r"file://[^\s'\"]*/", f"file://{HIDDEN}/", text)
    text = re.sub(r"\b[A-Za-z]:\\(?:[^\\\s'\"]+\\)+", lambda _: f"{HIDDEN}\\", text)
    text = _at_home(text)
    text = re.sub(r"""(['"])(?:~|/[^'"/\n]*)/(?:[^'"\n]*/)?([^'"/\n]+)\1""", rf"\1{HIDDEN}/\2\1", text)
    return re.sub(r"(?<![\w.:/~…])~?(?:/[\w.+@-]+){1,}", lambda found: _last_part(found[0]), text)


def _without_value(found: re.Match[str]) -> str:
    name, _, value = found.groups()
    inside = value.strip("'\"")
    if not names_secret(name) or not inside:
        return found[0]
    return found[0][: -len(value)] + value.replace(inside, HIDDEN)


def _at_home(text: str) -> str:
    """Replace home folders by ~, this user's wherever it lies."""
    if (home := _home()) in text:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    return re.sub(r"(?<![\w.:/~…])(?:/(?:home|Users)/[^\s/'\"]+|/root\b)", "~", text)


def _last_part(path: str) -> str:
    return path if path.count("/") < 2 and not path.startswith("~") else f"{HIDDEN}/" + path.rsplit("/", 1)[-1]


@functools.cache
def _home() -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody's
        home = "/"
    return home if len(home) > 1 else "\0"


@functools.cache
def _secrets() -> frozenset[str]:
    """Return the secrets among the environment variables."""
    return frozenset(value for name, value in os.environ.items() if names_secret(name) and _random(value))
