"""Training in a random subspace."""

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.random_subspace import RandomSubspace as Subspace
from genbench.regularization.base import Method, Parameters
from genbench.regularization.swa import trainable
from genbench.rng import StepRandom


class RandomSubspace(Method):
    """Trains in a random linear subspace of the weights, w = w⁰ + Pz with z of ``dimension`` numbers (Li et al. 2018,
    arXiv 1804.08838), for a short description of the network (Lotfi et al. 2022, arXiv 2211.13609).

    P is that of :class:`genbench.models.random_subspace.RandomSubspace`, orthonormal, over all trainable weights. The
    gradient is projected onto it; since the weights of a column then share one gradient but for its sign, Adam and
    other optimizers that work by element train z. What rounding, weight decay and other methods add outside of the
    subspace is taken off after each step.

    Args:
        dimension: of z, 1 to the number of trainable weights.
        seed: of P.
    """

    order = 120  # after every method that changes gradients or weights
    per_lane = ("seed",)

    seed: Tensor
    places: Tensor
    column: Tensor
    sign: Tensor
    sizes: Tensor

    def __init__(self, *, dimension: int, seed: int) -> None:
        super().__init__()
        self.dimension = check_integer("regularization random_subspace: dimension", dimension, least=1)
        self.setting("seed", check_integer("regularization random_subspace: seed", seed, least=0))

    def build(self, net: nn.Module) -> nn.Module:
        weights = trainable(net)
        try:
            drawn = Subspace.drawn(sum(p.numel() for p in weights), self.dimension, int(self.seed))
        except ValueError as error:
            raise ValueError(f"regularization random_subspace: {error}") from error
        for name, tensor in vars(drawn).items():
            self.register_buffer(name, tensor.to(weights[0].device))
        self.remember("start", weights)
        return net

    @torch.no_grad()
    def gradient(self, params: Parameters, grads: Parameters, draw: StepRandom) -> Parameters:
        return self._projected(grads)

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        start = self.recall("start")
        moved = self._projected([p - s for p, s in zip(params, start, strict=True)])
        for p, s, m in zip(params, start, moved, strict=True):
            p.copy_(s + m)

    def _projected(self, tensors: Parameters) -> Parameters:
        subspace = Subspace(self.places, self.column, self.sign, self.sizes)
        vector = subspace.projected(torch.cat([t.reshape(-1) for t in tensors]))
        parts = vector.split([t.numel() for t in tensors])
        return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]
