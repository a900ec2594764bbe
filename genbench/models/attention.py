"""Blocks of transformers."""

import torch
from torch import Tensor, nn

from genbench.models.base import activation
from genbench.models.slots import Dropout, StochasticDepth


class Attention(nn.Module):
    """Self-attention, [B, N, width] -> [B, N, width]: softmax(Q Kᵀ · scale) V in each of ``heads`` heads, joined by a
    linear layer; scale = √(heads / width) (Vaswani et al. 2017, arXiv 1706.03762). ``causal``: no token sees a later
    one."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.scale = (heads / width) ** 0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, N, width / heads]
        scores = (q * self.scale) @ k.mT
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a hidden layer of 4 · width units, each with pre-normalization and a residual connection (Xiong et
    al. 2020, arXiv 2002.04745)."""

    def __init__(self, width: int, heads: int, causal: bool, name: str, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(width), Attention(width, heads, causal), Dropout(dropout), StochasticDepth()
        )
        self.hidden = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            activation(name),
            nn.Linear(4 * width, width),
            Dropout(dropout),
            StochasticDepth(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.hidden(x)


class Positions(nn.Module):
    """Adds a learned vector to each token, initialized from N(0, 0.02²)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight
