"""Fully connected network."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from torch import Tensor, nn

from genbench.checks import check_flag, check_integer
from genbench.models.base import activation, normalization
from genbench.models.parametrization import Parametrized
from genbench.models.slots import Dropout, StochasticDepth


class MLP(Parametrized):
    """``depth`` hidden layers of ``width`` units on the flattened input; ``width`` may be a list, one number a layer.

    Each is linear, normalization, activation, dropout. With the defaults it has the 15,210 parameters of MNIST-1D's
    reference (40-100-100-10). ``residual=True`` adds to each hidden layer after the first its input, as that reference
    does (greydanus/mnist1d, ``notebooks/models.py``, MLPBase); the default is a plain network.
    """

    def __init__(
        self,
        *,
        width: int | Sequence[int] = 100,
        depth: int = 2,
        activation: str = "relu",
        normalization: str = "none",
        dropout: float = 0.0,
        residual: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_integer("model.depth", depth, least=1)
        widths = _widths(width, depth)
        single = check_flag("model.residual", residual) or self._parametrization.startswith("mup")
        if single and len(set(widths)) > 1:
            raise ValueError(
                f"model.width is {widths!r}; accepted with model.residual or a mup parametrization: one width for all"
            )
        sizes = [prod(self.input_shape), *widths]
        self.layers = nn.ModuleList(
            hidden(size, out, activation, normalization, dropout, branch=residual and index > 0)
            for index, (size, out) in enumerate(pairwise(sizes))
        )
        self.head = nn.Linear(widths[-1], self.classes)
        self.parametrize(widths[-1])

    def features(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return x


def _widths(width: int | Sequence[int], depth: int) -> list[int]:
    """Return the units of each hidden layer."""
    if isinstance(width, str) or not isinstance(width, Sequence):
        return [check_integer("model.width", width, least=1)] * depth
    if len(width) != depth:
        raise ValueError(
            f"model.width is {list(width)!r}; accepted with model.depth={depth}: a number, or a list of {depth}"
        )
    return [check_integer(f"model.width[{index}]", units, least=1) for index, units in enumerate(width)]


def hidden(size: int, width: int, name: str, norm: str, dropout: float, *, branch: bool) -> nn.Sequential:
    """Return one hidden layer from ``size`` inputs to ``width`` units; ``branch`` adds its input to its output."""
    layers = [nn.Linear(size, width), normalization(norm, width, 0), activation(name), Dropout(dropout)]
    return Residual(*layers, StochasticDepth()) if branch else nn.Sequential(*layers)


class Residual(nn.Sequential):
    """Adds the input x to the output of the modules."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)
