"""Causal transformer."""

from typing import Any

from torch import Tensor

from genbench.models.transformer import Attentive


class Decoder(Attentive):
    """Decoder: a token sees itself and those before it, and the head is given the output of the last (Radford et al.
    2019, GPT-2); see :class:`genbench.models.transformer.Attentive`."""

    causal = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.parametrize(self.head.in_features)

    def features(self, x: Tensor) -> Tensor:
        return self.outputs(self.tokens(x))[:, -1]
