"""Transformer encoder, and the base class that it shares with the decoder."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_choice, check_integer
from genbench.models.attention import Block, Positions
from genbench.models.base import convolution
from genbench.models.parametrization import Parametrized


class Attentive(Parametrized):
    """Base class of transformers: patches as tokens, ``depth`` blocks of attention, and a linear head.

    A token is a linear map of ``patch`` points of a sequence or ``patch`` × ``patch`` points of an image, row by row,
    plus a learned position. Blocks use LayerNorm; dropout follows the attention and the hidden layer of each block.
    """

    causal: bool

    def __init__(
        self,
        *,
        width: int = 32,
        depth: int = 2,
        heads: int = 4,
        patch: int = 1,
        activation: str = "gelu",
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_integer("model.depth", depth, least=1)
        check_integer("model.heads", heads, least=1)
        if check_integer("model.width", width, least=1) % heads:
            raise ValueError(f"model.width is {width}; accepted: a multiple of model.heads={heads}")
        channels, sides = self.spatial(least=check_integer("model.patch", patch, least=1))
        if any(side % patch for side in sides):
            raise ValueError(
                f"{type(self).__name__} does not fit an input of shape {self.input_shape}; "
                f"accepted: sides that are multiples of model.patch={patch}"
            )
        self.patches = convolution(channels, width, patch, len(sides), stride=patch)
        self.positions = Positions(prod(side // patch for side in sides), width)
        self.layers = nn.Sequential(*(Block(width, heads, self.causal, activation, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Return the input of the blocks, [B, N, width]."""
        return self.positions(self.patches(x).flatten(2).mT)

    def outputs(self, tokens: Tensor) -> Tensor:
        """Return the normalized output of the blocks, [B, N, width]."""
        return self.norm(self.layers(tokens))


class Transformer(Attentive):
    """Transformer encoder: every token attends to all tokens; see :class:`Attentive` for its blocks.

    On images it is a vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929). The head takes the mean of the
    outputs, or with ``pooling="class_token"`` the output of a learned token put before the others.
    """

    causal = False

    def __init__(self, *, pooling: str = "mean", **settings: Any) -> None:
        super().__init__(**settings)
        check_choice("model.pooling", pooling, ("mean", "class_token"))
        self.token = ClassToken(self.head.in_features) if pooling == "class_token" else None
        self.parametrize(self.head.in_features)

    def features(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        if self.token is None:
            return self.outputs(tokens).mean(1)
        return self.outputs(self.token(tokens))[:, 0]


class ClassToken(nn.Module):
    """Puts a learned token, initialized from N(0, 0.02²), before the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.weight.expand(len(x), -1, -1), x], 1)
