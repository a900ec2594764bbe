"""Character-level language modelling."""

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.data.base import tensors
from genbench.data.cache import Arrays
from genbench.data.text import read, stamp
from genbench.data.tokens import TokenData


class CharLM(TokenData):
    """The next character of a text from those before it, one class of as many as there are characters.

    With ``targets="last"`` it is the one after the ``window`` characters that are given: an example has one label, and
    any network learns it. With ``"all"`` it is the next one at each of them, from the 1 to ``window`` before it, labels
    [n, window]: an example teaches ``window`` times as much, but a network must be causal and give outputs
    [B, classes, window], as the decoder does. Loss and accuracy are then means over all positions. Windows to test on
    do not overlap then, so that each character counts once, and their standard errors are those of different examples.

    The text is a file of any kind, or that of Python's own ``pydoc_data.topics``: half a million characters of English
    on the language, a little different in each version of Python. Its end is the test split; no training window reaches
    into it. The vocabulary is that of the beginning, and one token for whatever is new in the test split. The mean
    cross-entropy is in nats a character. ``label_noise`` replaces all labels of an example.

    Args:
        path: a text in UTF-8; ``None`` for Python's topics.
        window: characters that are given, at least 1.
        stride: a window starts at every so many characters, at least 1.
        targets: ``last`` or ``all``.
        test_fraction: share of the text for the test split, in (0, 1).
        settings: those of :class:`genbench.data.tokens.TokenData`; with all targets inputs are as they are, as those
            in another order show what is to be predicted.
    """

    name = "char_lm"

    def __init__(
        self,
        *,
        path: str | None = None,
        window: int = 32,
        stride: int = 16,
        targets: str = "last",
        test_fraction: float = 0.1,
        **settings: Any,
    ) -> None:
        check_integer("data.window", window, least=1)
        check_integer("data.stride", stride, least=1)
        self.targets = check_choice("data.targets", targets, ("last", "all"))
        if targets == "all" and (inputs := settings.get("inputs", "original")) != "original":
            raise ValueError(f"data.inputs is {inputs!r} with data.targets=all; accepted: original")
        check_number("data.test_fraction", test_fraction, low=0, high=1, open_high=True)
        self._content, self.classes = _windows(path, stamp(path), window, stride, targets, test_fraction)
        self.vocabulary = self.classes
        super().__init__(**settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        return self._content


@lru_cache(2)
def _windows(
    path: str | None, stamp: tuple[int, int] | None, window: int, stride: int, targets: str, test_fraction: float
) -> tuple[tuple[dict[str, Tensor], str], int]:
    """The tensors with their digest, and the number of tokens: 0 for what is new, then the characters in order."""
    text = _topics() if path is None else read(path)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    cut = len(points) - round(test_fraction * len(points))
    known = np.unique(points[:cut])
    arrays: Arrays = {}
    for split, end, part in (("training", "", points[:cut]), ("test", "_test", points[cut:])):
        if len(part) <= window:
            raise ValueError(
                f"data.window is {window}; accepted: less than the {len(part)} characters of the {split} split"
            )
        token = np.searchsorted(known, part) + 1
        token[~np.isin(part, known)] = 0
        apart = max(stride, window) if split == "test" and targets == "all" else stride
        found = np.lib.stride_tricks.sliding_window_view(token, window + 1)[::apart]
        arrays |= {f"x{end}": found[:, :-1], f"y{end}": found[:, -1] if targets == "last" else found[:, 1:]}
    return tensors(arrays, CharLM.name), len(known) + 1


def _topics() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))
