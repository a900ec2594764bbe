"""Character-level language modelling."""

import re
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
    """Predicts the next character of a text from the characters before it; each character is a class.

    With ``targets="last"``, an example has one label, the character after a window of ``window`` characters, and any
    network can learn it. With ``"all"``, it has a label at each position, [n, window], the character after it; the
    network must be causal with outputs [B, classes, window], as the decoder is. Loss and accuracy are then means over
    all positions, and windows of the test and validation splits do not overlap, so that each character counts once.

    The text is a file, or Python's own help pages (``pydoc_data.topics``): a third of a million characters of English,
    slightly different in each version of Python. Repeated lines are removed, since 18 % of the test windows would
    otherwise occur in the training text. The end of the text is the test split, and the end of the rest is the
    validation split; no training window reaches into either. The vocabulary is that of the text before the test split,
    with one token for all other characters. Cross-entropy is in nats per character. ``label_noise`` replaces all labels
    of an example.

    Args:
        path: a text file in UTF-8; ``None``: Python's help pages.
        window: characters in an input, at least 1.
        stride: characters between the starts of two windows, at least 1.
        targets: ``last`` or ``all``.
        test_fraction: share of the text for the test split, in (0, 1).
        val_fraction: share of the text before it for the validation split, in [0, 1), the same for every seed; the
            same share of ``train_size`` windows.
        settings: those of :class:`genbench.data.tokens.TokenData`; with ``targets="all"``, ``inputs`` must be
            ``original``, as reordered inputs would reveal their labels.
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
        val_fraction: float = 0.0,
        **settings: Any,
    ) -> None:
        check_integer("data.window", window, least=1)
        check_integer("data.stride", stride, least=1)
        self.targets = check_choice("data.targets", targets, ("last", "all"))
        if targets == "all" and (inputs := settings.get("inputs", "original")) != "original":
            raise ValueError(f"data.inputs is {inputs!r} with data.targets=all; accepted: original")
        check_number("data.test_fraction", test_fraction, low=0, high=1, open_low=True, open_high=True)
        check_number("data.val_fraction", val_fraction, low=0, high=1, open_high=True)
        shares = test_fraction, val_fraction
        self._content, self.classes = _windows(path, stamp(path), window, stride, targets, shares)
        self.vocabulary = self.classes
        super().__init__(val_fraction=val_fraction, **settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        return self._content


@lru_cache(2)
def _windows(
    path: str | None,
    stamp: tuple[int, int] | None,
    window: int,
    stride: int,
    targets: str,
    shares: tuple[float, float],
) -> tuple[tuple[dict[str, Tensor], str], int]:
    """Return the tensors with their digest, and the number of tokens: 0 for unknown characters, then the known ones."""
    text = _topics() if path is None else read(path)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    cut = len(points) - round(shares[0] * len(points))
    known = np.unique(points[:cut])
    token = np.searchsorted(known, points) + 1
    token[~np.isin(points, known)] = 0

    def windows(split: str, part: np.ndarray, apart: int) -> tuple[np.ndarray, np.ndarray]:
        if len(part) <= window:
            raise ValueError(
                f"data.window is {window}; accepted: less than the {len(part)} characters of the {split} split"
            )
        found = np.lib.stride_tricks.sliding_window_view(part, window + 1)[::apart]
        return found[:, :-1], found[:, -1] if targets == "last" else found[:, 1:]

    apart = max(stride, window) if targets == "all" else stride
    end = cut
    if shares[1] > 0:
        end = min(cut, -(-(cut - round(shares[1] * cut)) // stride) * stride)  # the start of a window
    x, y = windows("training", token[:end], stride)
    x_test, y_test = windows("test", token[cut:], apart)
    arrays: Arrays = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    if shares[1] > 0:
        x_val, y_val = windows("validation", token[end:cut], apart)
        arrays |= {"x": np.concatenate([x, x_val]), "y": np.concatenate([y, y_val])}
        arrays["val"] = np.arange(len(x) + len(x_val)) >= len(x)
    return tensors(arrays, CharLM.name), len(known) + 1


def _topics() -> str:
    from pydoc_data.topics import topics

    lines = (line for name in sorted(topics) for line in topics[name].split("\n"))
    once = {line.strip() or number: line for number, line in enumerate(lines)}  # blank lines are kept
    return re.sub(r"\n{3,}", "\n\n", "\n".join(once.values()))
