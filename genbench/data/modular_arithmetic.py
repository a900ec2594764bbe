"""Modular arithmetic: the whole table of an operation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genbench.checks import check_choice, check_integer, check_number
from genbench.data.base import tensors
from genbench.data.table import divided
from genbench.data.tokens import TokenData

OPERATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: a * b % p,
    "divide": lambda a, b, p: a * _power(b, p - 2, p) % p,  # b^(p−2) is 1 / b
    "polynomial": lambda a, b, p: (a**3 + a * b**2 + b) % p,
}


class ModularArithmetic(TokenData):
    """Equations a ∘ b = c mod p as tokens [a, ∘, b, =] and the class c (Power et al. 2022, arXiv 2201.02177, Appendix
    A.1.1).

    The vocabulary has p + 2 tokens, and there are p classes. Every pair (a, b) occurs once, without b = 0 in a
    division. The first ``train_fraction`` of one random order is the training set, and the rest is the test split;
    smaller training sets lie within larger ones.

    Args:
        p: modulus, a prime.
        operation: ``add``, ``subtract``, ``multiply``, ``divide``, or ``polynomial``: a³ + ab² + b.
        train_fraction: share of the table to train on, in (0, 1), validation included.
        settings: the others of :class:`genbench.data.tokens.TokenData`.
    """

    name = "modular_arithmetic"

    def __init__(
        self,
        *,
        p: int = 97,
        operation: str = "divide",
        train_fraction: float = 0.5,
        channels: int = 128,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.classes = check_integer("data.p", p, least=2, most=1000)  # a³ fits in an integer, the table in memory
        if any(p % k == 0 for k in range(2, p)):
            raise ValueError(f"data.p is {p}; accepted: a prime")
        self.vocabulary = p + 2
        self._operation = check_choice("data.operation", operation, tuple(OPERATIONS))
        self._fraction = check_number("data.train_fraction", train_fraction, low=0, high=1, open_high=True)
        self._seed = check_integer("data.seed", seed, least=0)
        super().__init__(channels=channels, seed=seed, **settings)

    def content(self) -> tuple[dict[str, Tensor], str]:
        p = self.classes
        a, b = torch.cartesian_prod(torch.arange(p), torch.arange(self._operation == "divide", p)).T
        x = torch.stack([a, torch.full_like(a, p), b, torch.full_like(a, p + 1)], 1)
        y = OPERATIONS[self._operation](a, b, p)
        return tensors(divided(x, y, round(self._fraction * len(y)), seed=self._seed), self.name)


def _power(b: Tensor, exponent: int, p: int) -> Tensor:
    """b^exponent mod p, by squaring."""
    result = torch.ones_like(b)
    while exponent:
        if exponent % 2:
            result = result * b % p
        b, exponent = b * b % p, exponent // 2
    return result
