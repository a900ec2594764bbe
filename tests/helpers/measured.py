"""Networks and gradients that tests of several measures know the values of."""

import torch
import torch.nn.functional as F
from torch import nn

from genbench.measures import Snapshot


def independent(margins: torch.Tensor) -> Snapshot:
    """Example i is decided by weight i alone, which is its margin."""
    n = len(margins)
    x = torch.eye(n, dtype=torch.float64)
    net = nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(margins)
    return Snapshot(net, F.binary_cross_entropy_with_logits, [(x, torch.ones(n, 1, dtype=torch.float64))])


def one_by_one(net: nn.Module, x: torch.Tensor, y: torch.Tensor, loss=F.cross_entropy) -> torch.Tensor:
    """∇ℓᵢ [N, size] by a loop of backward passes."""
    net.eval()
    rows = []
    for i in range(len(x)):
        trained = [p for p in net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss(net(x[i : i + 1]), y[i : i + 1]), trained, materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(rows)


class Table(nn.Module):
    """Gives its input back, as a table of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x
