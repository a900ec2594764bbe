"""Plain recurrent network."""

from typing import Any

from torch import nn

from genbench.checks import check_choice
from genbench.models.recurrent import Recurrent


class RNN(Recurrent):
    """Elman's recurrent network (1990), h ← φ(W x + U h + b): see :class:`genbench.models.recurrent.Recurrent`.

    ``activation`` is φ, tanh or relu.
    """

    unit = nn.RNN

    def __init__(self, *, activation: str = "tanh", **settings: Any) -> None:
        nonlinearity = check_choice("model.activation", activation, ("tanh", "relu"))
        super().__init__(nonlinearity=nonlinearity, **settings)
