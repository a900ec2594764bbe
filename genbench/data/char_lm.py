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
    """The next character of a text from those before it, one class of as many as there are characters.

    With ``targets="last"`` it is the one after the ``window`` characters that are given: an example has one label, and
    any network learns it. With ``"all"`` it is the next one at each of them, from the 1 to ``window`` before it, labels
    [n, window]: an example teaches ``window`` times as much, but a network must be causal and give outputs
    [B, classes, window], as the decoder does. Loss and accuracy are then means over all positions. Windows to test and
    to validate on do not overlap then, so that each character counts once, and their standard errors are those of
    different examples.

    The text is a file of any kind, or that of Python's own ``pydoc_data.topics``: a third of a million characters of
    English on the language, a little different in each version of Python. Each of its lines is there once, as topics
    repeat one another: 18 % of the windows to test on would be in the training text word for word. The end of a text is
    the test split, and the end of what is left the validation split, as windows overlap: no training window reaches
    into either. The vocabulary is that of the text before the test split, and one token for whatever is new there. The
    mean cross-entropy is in nats a character. ``label_noise`` replaces all labels of an example.

    Args:
        path: a text in UTF-8; ``None`` for Python's topics.
        window: characters that are given, at least 1.
        stride: a window starts at every so many characters, at least 1.
        targets: ``last`` or ``all``.
        test_fraction: share of the text for the test split, in (0, 1).
        val_fraction: share of the text before it for the validation split, in [0, 1), the same for every seed. Of
            ``train_size`` windows as large a share is validated on as of all.
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
    """The tensors with their digest, and the number of tokens: 0 for what is new, then the characters in order."""
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
        end = min(cut, -(-(cut - round(shares[1] * cut)) // stride) * stride)  # where a window starts
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
    once = {line.strip() or number: line for number, line in enumerate(lines)}  # of blank ones, all
    return re.sub(r"\n{3,}", "\n\n", "\n".join(once.values()))
