"""Classification of texts."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from genbench import hub
from genbench.checks import check_choice, check_integer, check_number, require
from genbench.data.base import tensors
from genbench.data.text import UNITS, UNKNOWN, encoded, split, stamp, vocabulary
from genbench.data.tokens import TokenData
from genbench.rng import StepRandom

Examples = tuple[Sequence[str], Sequence[str]]  # texts and their classes

_TOPICS = 10
_SHORTEST = 40  # fewest characters of a paragraph that counts


class TextClassification(TokenData):
    """Texts and their classes from a CSV file, a data set of the hub, or Python's own help pages.

    Files and data sets have the columns ``text`` and ``label``. The help pages (``pydoc_data.topics``) need no file:
    texts are the paragraphs of the ten longest topics, classes are the topics, and paragraphs that occur in several
    topics are left out.

    A text is a row of ``length`` tokens, cut or padded at the end. The vocabulary is that of the training set, by
    descending frequency, with tokens for padding and unknown units. Classes are the distinct labels of training and
    validation in order, numbers by value. Equal rows of units are all in the same split, except in the hub's own test
    split.

    Args:
        path: a CSV file.
        hub: name of a data set of the hub, fetched by the library ``datasets``.
        unit: ``word`` (in lower case; other signs are units too) or ``character``.
        length: tokens of a text, at least 1.
        vocabulary_size: largest number of tokens, the two special ones included; at least 3.
        test_fraction: share of the texts for the test split, in (0, 1), the same for every seed, and slightly more if
            the last text has copies; a data set of the hub has its own test split.
        val_fraction: share of the other texts for the validation split, in [0, 1), the same for every seed; the same
            share of ``train_size`` texts.
        settings: those of :class:`genbench.data.tokens.TokenData`.
    """

    name = "text_classification"

    def __init__(
        self,
        *,
        path: str | None = None,
        hub: str | None = None,
        unit: str = "word",
        length: int = 64,
        vocabulary_size: int = 10_000,
        test_fraction: float = 0.2,
        val_fraction: float = 0.0,
        **settings: Any,
    ) -> None:
        check_choice("data.unit", unit, UNITS)
        check_integer("data.length", length, least=1)
        check_integer("data.vocabulary_size", vocabulary_size, least=3)
        check_number("data.test_fraction", test_fraction, low=0, high=1, open_low=True, open_high=True)
        if path is not None and hub is not None:
            raise ValueError(f"data.path is {path!r} and data.hub {hub!r}; accepted: one of them, or neither")
        check_number("data.val_fraction", val_fraction, low=0, high=1, open_high=True)
        made = _made(path, stamp(path), hub, unit, length, vocabulary_size, (test_fraction, val_fraction))
        self._content, self.classes, self.vocabulary = made
        super().__init__(val_fraction=val_fraction, **settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        return self._content


@lru_cache(2)
def _made(
    path: str | None,
    stamp: tuple[int, int] | None,
    hub: str | None,
    unit: str,
    length: int,
    vocabulary_size: int,
    shares: tuple[float, float],
) -> tuple[tuple[dict[str, Tensor], str], int, int]:
    """Return the tensors with their digest, the number of classes and the number of tokens."""

    def parted(found: Examples, name: str, share: float) -> tuple[Examples, Examples]:
        return _parted(found, share, [tuple(split(text, unit)[:length]) for text in found[0]], name=name)

    if hub is not None:
        train, test = _of_hub(hub, "train"), _of_hub(hub, "test")
    else:
        train, test = parted(_topics() if path is None else _of_csv(path), "data.test_fraction", shares[0])
    val: Examples = [], []
    if shares[1] > 0:
        train, val = parted(train, "data.val_fraction", shares[1])
    labels = {*train[1], *val[1]}
    names = sorted(labels, key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
    if new := sorted(set(test[1]) - labels):
        raise ValueError(f"the class {new[0]!r} has no training example; accepted: a set with some of each")
    known = vocabulary((split(text, unit) for text in train[0]), vocabulary_size)
    number = {label: index for index, label in enumerate(names)}
    arrays = {}
    for end, texts, of_texts in (("", [*train[0], *val[0]], [*train[1], *val[1]]), ("_test", *test)):
        arrays[f"x{end}"] = encoded((split(text, unit) for text in texts), known, length)
        arrays[f"y{end}"] = np.array([number[label] for label in of_texts])
    if val[0]:
        arrays["val"] = np.arange(len(arrays["y"])) >= len(train[0])
    return tensors(arrays, TextClassification.name), len(names), len(known) + UNKNOWN + 1


def _parted(
    found: Examples, share: float, keys: Sequence[Hashable] | None = None, *, name: str = "data.test_fraction"
) -> tuple[Examples, Examples]:
    """Split examples in two parts, the second with a share of them, the same for every seed.

    Examples with the same key (``None``: the same text) are in the same part.
    """
    texts, labels = found
    n = len(texts)
    count = round(share * n)
    if not 1 <= count < n:
        raise ValueError(f"{name} is {share}; accepted: what leaves some of {n} texts on each side")
    together: dict[Hashable, list[int]] = {}
    for i in StepRandom(0, 0).permutation("data.test", n).tolist():
        together.setdefault((keys or texts)[i], []).append(i)
    rows: set[int] = set()
    for group in together.values():
        if len(rows) < count:
            rows.update(group)
    if len(rows) == n:
        raise ValueError(f"{name} is {share}; accepted: what leaves a text to train on, all its copies together")
    train, test = (
        ([texts[i] for i in part], [labels[i] for i in part])
        for part in ([i for i in range(n) if i not in rows], sorted(rows))
    )
    return train, test


def _topics() -> Examples:
    from pydoc_data.topics import topics

    topics_of: dict[str, set[str]] = {}
    for name, text in topics.items():
        for part in _paragraphs(text):
            topics_of.setdefault(part, set()).add(name)
    own = {
        name: [part for part in dict.fromkeys(_paragraphs(text)) if len(topics_of[part]) == 1]
        for name, text in topics.items()
    }
    longest = sorted(own, key=lambda name: (-sum(map(len, own[name])), name))[:_TOPICS]
    return [part for name in longest for part in own[name]], [name for name in longest for _ in own[name]]


def _paragraphs(text: str) -> list[str]:
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return [part for part in parts if len(part) >= _SHORTEST]


def _of_csv(path: str) -> Examples:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"data.path is {path!r}, which is no CSV: {str(error).partition(chr(10))[0]}") from None
    for column in ("text", "label"):
        if column not in table:
            raise ValueError(
                f"data.path is {path!r} with the columns {', '.join(map(str, table))}; accepted: text and label"
            )
    texts, labels = table["text"].tolist(), [label.strip() for label in table["label"]]
    if "" in labels:
        raise ValueError(
            f"data.path is {path!r}, whose example {labels.index('') + 1} has no label; accepted: one each"
        )
    return texts, labels


def _of_hub(name: str, part: str) -> Examples:
    file = "data.path=FILE, a CSV with the columns text and label"
    load_dataset = require("datasets", extra="datasets", needed_by=f"data.hub={name!r}", otherwise=file).load_dataset
    hub.go_offline()
    try:
        table = load_dataset(name, split=part)
        return [str(text) for text in table["text"]], [str(label) for label in table["label"]]
    except Exception as error:  # network, hub and library raise dozens of kinds
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise ValueError(
            f"data.hub={name!r} cannot be read, for which a network is needed once ({reason}); accepted also: {file}"
        ) from error
