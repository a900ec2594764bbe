"""Spectral norm regularization."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import Parameters, WeightPenalty, matrices
from genbench.rng import StepRandom


class SpectralNorm(WeightPenalty):
    """Adds strength / 2 · Σ σ(W)² over the weights W (out × rest) to the loss, where σ is the largest singular value
    (Yoshida & Miyato 2017, arXiv 1705.10941).

    This is a penalty, not the normalization of Miyato et al. 2018. σ is computed as uᵀWv; the singular vectors start at
    those of the initial weights and take one power iteration after each step.
    """

    def weights(self, net: nn.Module) -> list[Tensor]:
        return matrices(super().weights(net))

    @torch.no_grad()
    def build(self, net: nn.Module) -> nn.Module:
        net = super().build(net)
        found = [torch.linalg.svd(weight, full_matrices=False) for weight in self.weights(net)]
        self.remember("left", (u[:, 0] for u, _, _ in found))
        self.remember("right", (v[0] for _, _, v in found))
        return net

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        parts = zip(self.recall("left"), self.weights(net), self.recall("right"), strict=True)
        sizes = [u @ weight @ v for u, weight, v in parts]
        return self.strength.to(output.dtype) / 2 * torch.stack(sizes).square().sum()

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        for u, weight, v in zip(self.recall("left"), matrices(params), self.recall("right"), strict=True):
            v.copy_(_unit(u @ weight))
            u.copy_(_unit(weight @ v))


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp(min=1e-12)
