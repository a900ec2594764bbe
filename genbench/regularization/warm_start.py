"""Training on a part of the examples first."""

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.regularization.base import Method, Parameters
from genbench.regularization.random_labels import random_numbers
from genbench.rng import StepRandom


class WarmStart(Method):
    """Trains on a share of the examples until a share of training, and on all of them after it, as when data arrive in
    two portions and training goes on from the first (Ash & Adams 2020, arXiv 1910.08475).

    The share is drawn example by example and stays the same. Until then the examples of a batch that are outside it are
    replaced by those inside, in turn, so that the batch keeps its size; a batch without any inside stays as it is. The
    optimizer keeps its state and the schedule goes on.

    Args:
        until: share of the steps on a part of the examples, in [0, 1].
        share: of the examples, in (0, 1].
        seed: of the part, at least 0. Inputs that are equal, to 1e-6, are in it together.
    """

    order = -100  # before methods that change the batch: the part is one of the examples as they lie in the data

    until: Tensor
    share: Tensor
    seed: Tensor
    progress: Tensor

    def __init__(self, *, until: float, share: float, seed: int) -> None:
        super().__init__()
        self.setting("until", until, low=0, high=1)
        self.setting("share", share, low=0, high=1, open_low=True)
        check_integer(f"regularization {type(self).__name__}: seed", seed, least=0)
        self.register_buffer("seed", torch.tensor(seed, dtype=torch.int64))
        self.register_buffer("progress", torch.tensor(0.0, dtype=torch.float64))

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        number = random_numbers(x, self.seed, torch.zeros(len(x), dtype=torch.int64, device=x.device))[:, 0]
        outside = (number >= self.share).long()
        inside = (len(x) - outside.sum()).clamp(min=1)
        place = torch.arange(len(x), device=x.device)
        part = outside.argsort(stable=True)[place % inside]
        chosen = torch.where((self.progress < self.until) & (outside.sum() < len(x)), part, place)
        return x[chosen], y[chosen]

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.progress.fill_(progress)
