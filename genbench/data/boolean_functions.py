"""Truth tables of Boolean functions, part of them for training."""

from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_integer
from genbench.data.base import TensorData, tensors
from genbench.data.table import divided
from genbench.rng import StepRandom


def patterns(n: int) -> Tensor:
    """Return all inputs of n bits in numeric order, highest bit first: [2^n, n] of 0 and 1 (int64)."""
    return torch.arange(2**n)[:, None] >> torch.arange(n - 1, -1, -1) & 1


class BooleanFunctions(TensorData):
    """Generalize a Boolean function {0, 1}^n → {0, 1} from part of its truth table (Valle-Pérez et al. 2019, arXiv
    1805.08522): inputs of shape (1, n), 2 classes.

    The function is drawn uniformly from all 2^(2^n), or given by a number: its i-th binary digit, highest first, is the
    value at input i; or it is a function of ``relevant`` bits alone, which is 1 on half of their values.

    Args:
        bits: n, from 2 to 7.
        function: the number, from 0 to 2^(2^n) − 1; ``None``: drawn by ``seed``.
        relevant: bits that a drawn function looks at, from 1 to n; these and the values are drawn by ``seed``, half of
            them 1, as are half of all 2^n. ``None``: all bits, and any number of ones.
        flips: inputs at which the function has the other value, drawn by ``seed``; those of fewer flips are among them.
        train_size: inputs to train on, those for validation included.
        attack_size: further inputs to train on, with the wrong value (Zhang et al. 2021, arXiv 2103.06219, whose data
            are others). Smaller attack sets lie within larger ones. All other inputs are the test split.
        settings: the others of :class:`genbench.data.TensorData`.
    """

    name = "boolean_functions"
    classes = 2
    per_lane = (*TensorData.per_lane, "relevant", "flips", "attack_size")

    def __init__(
        self,
        *,
        bits: int = 7,
        function: int | None = None,
        relevant: int | None = None,
        flips: int = 0,
        batch_size: int = 32,
        train_size: int = 64,
        attack_size: int = 0,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self._bits = check_integer("data.bits", bits, least=2, most=7)
        inputs = 2**self._bits
        if function is not None:
            check_integer("data.function", function, least=0, most=2**inputs - 1, note="the number of a truth table")
        self._function = function
        if relevant is not None:
            check_integer("data.relevant", relevant, least=1, most=self._bits)
            if function is not None:
                raise ValueError(
                    f"data.relevant is {relevant} and data.function {function}; accepted: one of them null"
                )
        self._relevant = relevant
        self._flips = check_integer("data.flips", flips, least=0, most=inputs)
        note = "the other inputs are the test split"
        self._clean = check_integer("data.train_size", train_size, least=1, most=inputs - 1, note=note)
        most = inputs - 1 - self._clean
        self._size = self._clean + check_integer("data.attack_size", attack_size, least=0, most=most, note=note)
        self._seed = check_integer("data.seed", seed, least=0)
        super().__init__(batch_size=batch_size, train_size=self._size, seed=seed, **settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        x = patterns(self._bits)
        draw = StepRandom(self._seed, 0)
        if self._function is not None:
            y = torch.tensor([int(digit) for digit in f"{self._function:0{len(x)}b}"])
        elif self._relevant is not None:
            bits = draw.permutation("data.relevant", self._bits)[: self._relevant]
            values = draw.permutation("data.values", 2**self._relevant) % 2  # as many even numbers as odd ones
            y = values[(x[:, bits] << torch.arange(self._relevant)).sum(1)]
        else:
            y = (draw.uniform("data.function", len(x)) < 0.5).long()
        y[draw.permutation("data.flips", len(x))[: self._flips]] ^= 1
        arrays = divided(x[:, None].float(), y, self._size, seed=self._seed)
        arrays["y"][self._clean :] = 1 - arrays["y"][self._clean :]
        return tensors(arrays, self.name)
