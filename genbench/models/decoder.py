"""Causal transformer."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genbench.models.transformer import Attentive


class Decoder(Attentive):
    """Causal transformer: each token attends to itself and earlier tokens (Radford et al. 2019, GPT-2).

    See :class:`genbench.models.transformer.Attentive` for its blocks. The head takes the output of the last token. With
    ``target_shape`` (T,), a target at each token, it takes the outputs of all tokens, [B, T, width], and logits are
    [B, classes, T].
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
