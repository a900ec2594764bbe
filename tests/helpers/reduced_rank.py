"""Linear networks of two layers at a rank below their widths, and exact draws of their weights."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from genbench.measures.mixing import effective_sample_size, r_hat


def reduced_rank(inputs: int, hidden: int, outputs: int, *, rank: int = 2, seed: int = 0):
    """(network, loss, batches) of L = ½‖BA − T‖² at BA = T, both factors and T of this rank."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int) -> Tensor:
        a, b = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((rows, rank), (rank, columns))
        )
        return a @ b / math.sqrt(rank)

    net = nn.Sequential(nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(draw(hidden, inputs))
        net[1].weight.copy_(draw(outputs, hidden))
    x = math.sqrt(inputs) * torch.eye(inputs, dtype=torch.float64)  # of unit second moment
    return net, lambda out, target: (out - target).square().sum(1).mean() / 2, [(x, net(x).detach())]


def gibbs(net: nn.Module, nbeta: float, gamma: float, *, chains: int = 64, sweeps: int = 600, seed: int = 0):
    """The mean of nβL and its error by exact Gibbs sampling around the weights: the columns of A given B, and the rows
    of B given A, are normal with precision nβBᵀB + γI, and nβAAᵀ + γI."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (layer.weight.detach() for layer in net)
    target, unit = second @ first, torch.eye(len(first), dtype=torch.float64)
    a, b = (w.expand(chains, *w.shape) for w in (first, second))
    draws = []

    def normal(precision: Tensor, linear: Tensor) -> Tensor:
        root = torch.linalg.cholesky(precision)
        noise = torch.randn(linear.shape, generator=generator, dtype=torch.float64)
        return torch.cholesky_solve(linear, root) + torch.linalg.solve_triangular(root.mT, noise, upper=True)

    for sweep in range(sweeps):
        a = normal(nbeta * b.mT @ b + gamma * unit, nbeta * b.mT @ target + gamma * first)
        b = normal(nbeta * a @ a.mT + gamma * unit, nbeta * a @ target.T + gamma * second.T).mT
        if sweep >= sweeps // 5:
            draws.append(nbeta / 2 * (b @ a - target).square().sum((1, 2)))
    values = torch.stack(draws, 1).numpy()
    assert r_hat(values) < 1.01
    return float(values.mean()), float(np.std(values)) / math.sqrt(effective_sample_size(values))
