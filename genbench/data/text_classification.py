"""Classes of texts."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.data.base import tensors
from genbench.data.text import UNITS, UNKNOWN, encoded, split, stamp, vocabulary
from genbench.data.tokens import TokenData
from genbench.draw import Draw

Examples = tuple[Sequence[str], Sequence[str]]  # texts and their classes

_TOPICS = 10
_SHORTEST = 40  # characters of a paragraph


class TextClassification(TokenData):
    """Texts and their classes: of a CSV file with the columns ``text`` and ``label``, of a data set of the hub with the
    same, or, for something that is always there, the paragraphs of the ten longest of Python's own
    ``pydoc_data.topics``, whose class is the topic.

    A text is a row of ``length`` tokens, cut or padded at the end. The vocabulary is that of the training set, the most
    frequent units first, with a token for padding and one for all others. Classes are the distinct labels of the
    training set in their order, numbers by value.

    Args:
        path: a CSV file; ``None`` for none.
        hub: a name on the hub, which the library ``datasets`` fetches; ``None`` for none.
        unit: ``word`` (in lower case; other signs by themselves) or ``character``.
        length: tokens of a text, at least 1.
        vocabulary_size: tokens at most, the two special ones included; at least 3.
        test_fraction: share of the texts for the test split, in (0, 1), the same for every seed; a set of the hub has
            its own.
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
        **settings: Any,
    ) -> None:
        check_choice("data.unit", unit, UNITS)
        check_integer("data.length", length, least=1)
        check_integer("data.vocabulary_size", vocabulary_size, least=3)
        check_number("data.test_fraction", test_fraction, low=0, high=1, open_high=True)
        if path is not None and hub is not None:
            raise ValueError(f"data.path is {path!r} and data.hub {hub!r}; accepted: one of them, or neither")
        made = _made(path, stamp(path), hub, unit, length, vocabulary_size, test_fraction)
        self._content, self.classes, self.vocabulary = made
        super().__init__(**settings)

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
    test_fraction: float,
) -> tuple[tuple[dict[str, Tensor], str], int, int]:
    """The tensors with their digest, the number of classes and that of tokens."""
    if hub is not None:
        train, test = _of_hub(hub, "train"), _of_hub(hub, "test")
    else:
        train, test = _parted(_topics() if path is None else _of_csv(path), test_fraction)
    names = sorted(set(train[1]), key=lambda label: (0, int(label), label) if label.isdecimal() else (1, 0, label))
    if new := sorted(set(test[1]) - set(names)):
        raise ValueError(f"the class {new[0]!r} has no training example; accepted: a set with some of each")
    known: dict[str, int] = {}
    number = {label: index for index, label in enumerate(names)}
    arrays = {}
    for end, (texts, labels) in (("", train), ("_test", test)):
        units = [split(text, unit) for text in texts]
        known = known or vocabulary(units, vocabulary_size)
        arrays[f"x{end}"] = encoded(units, known, length)
        arrays[f"y{end}"] = np.array([number[label] for label in labels])
    return tensors(arrays, TextClassification.name), len(names), len(known) + UNKNOWN + 1


def _parted(found: Examples, test_fraction: float) -> tuple[Examples, Examples]:
    """A training set, and a test set that is the same for every seed."""
    texts, labels = found
    n = len(texts)
    count = round(test_fraction * n)
    if not 1 <= count < n:
        raise ValueError(f"data.test_fraction is {test_fraction}; accepted: what leaves some of {n} texts on each side")
    order = Draw(0, 0).permutation("data.test", n)
    rows = order[count:].sort().values.tolist(), order[:count].sort().values.tolist()
    train, test = (([texts[i] for i in part], [labels[i] for i in part]) for part in rows)
    return train, test


def _topics() -> Examples:
    from pydoc_data.topics import topics

    longest = sorted(topics, key=lambda name: (-len(topics[name]), name))[:_TOPICS]
    found = [(part, name) for name in longest for part in topics[name].split("\n\n") if len(part) >= _SHORTEST]
    return [text for text, _ in found], [name for _, name in found]


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
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"data.hub={name!r} needs the library datasets: pip install 'genbench[datasets]'; accepted also: "
            "data.path=FILE, a CSV with the columns text and label"
        ) from None
    try:
        table = load_dataset(name, split=part)
        return [str(text) for text in table["text"]], [str(label) for label in table["label"]]
    except Exception as error:  # of the network, the hub and the library: dozens
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise ValueError(
            f"data.hub={name!r} cannot be read, for which a network is needed once ({reason}); accepted also: "
            "data.path=FILE, a CSV with the columns text and label"
        ) from error
