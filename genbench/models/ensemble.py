"""Deep ensemble."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Averages the predicted class probabilities of several networks (Lakshminarayanan et al. 2017, arXiv 1612.01474,
    Eq. 2).

    The output [B, classes, ...] is the logarithm of the mean of the members' softmax probabilities.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ValueError("Ensemble was given 0 members; accepted: at least 1")

    def forward(self, x: Tensor) -> Tensor:
        logs = torch.stack([member(x).log_softmax(dim=1) for member in self.members])
        return logs.logsumexp(dim=0) - math.log(len(self.members))
