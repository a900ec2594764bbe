"""Causal transformer."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genbench.models.transformer import Attentive


class Decoder(Attentive):
    """Decoder: a token sees itself and those before it (Radford et al. 2019, GPT-2); see
    :class:`genbench.models.transformer.Attentive`.

    The head is given the output of the last token. Where ``target_shape`` says that there is a target at each of T
    tokens, it is given that of each, [B, T, width], and logits are [B, classes, T].
    """

    causal = True

    def __init__(self, *, target_shape: Sequence[int] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.everywhere = len(target_shape) > 0
        self.parametrize(self.head.in_features)

    def features(self, x: Tensor) -> Tensor:
        outputs = self.outputs(self.tokens(x))
        return outputs if self.everywhere else outputs[:, -1]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).movedim(-1, 1)
