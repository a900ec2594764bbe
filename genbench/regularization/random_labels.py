"""Training on random labels first."""

import torch
from torch import Tensor, nn

from genbench.regularization.base import Method, Parameters
from genbench.rng import StepRandom

_GRAIN = 2.0**20  # inputs count in steps of 1e-6
_MIX = 0x9E3779B97F4A7C15 - 2**64  # odd, from the golden ratio


class RandomLabels(Method):
    """Trains on random labels until a share of training, and on the true ones after it: SGD then starts from weights
    that fit noise (Liu, Papailiopoulos & Achlioptas 2020, Bad global minima exist and SGD can reach them, arXiv
    1906.02613).

    Each input has one random label, uniform over the classes: the hash of its numbers, to 1e-6, and of ``seed``. Equal
    inputs have equal ones. Methods that change the batch come after it. The optimizer keeps its state, and the schedule
    goes on.

    Args:
        until: share of the steps with random labels, in [0, 1].
        seed: at least 0; others give other labels.
    """

    order = -100  # labels the examples as they lie in the data

    until: Tensor
    progress: Tensor

    def __init__(self, *, until: float, seed: int = 0) -> None:
        super().__init__()
        self.setting("until", until, low=0, high=1)
        self.setting("seed", seed, low=0)
        self.register_buffer("progress", torch.tensor(0.0, dtype=torch.float64))

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        if y.is_floating_point() or y.ndim != 1:
            raise ValueError("regularization RandomLabels: targets are not one label an example")
        drawn = random_labels(x, self.seed, self.classes)
        return x, torch.where(self.progress < self.until, drawn, y)

    def build(self, net: nn.Module) -> nn.Module:
        classes = getattr(net, "classes", None)
        if not isinstance(classes, int):
            raise ValueError(
                f"regularization RandomLabels: {type(net).__name__} has no number of classes; accepted: a network with "
                "the attribute classes"
            )
        self.classes = classes
        return net

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.progress.copy_(torch.as_tensor(progress, dtype=torch.float64))


def random_labels(x: Tensor, seed: Tensor, classes: int) -> Tensor:
    """The random label of each input of x [n, ...], int64 [n]."""
    numbers = (x.flatten(1).double() * _GRAIN).round().long() if x.is_floating_point() else x.flatten(1).long()
    place = torch.arange(1, numbers.shape[1] + 1, device=x.device)
    # each number is mixed with its place before they are added; int64 wraps
    mixed = _mixed(_mixed(numbers + place * _MIX) + place)
    return ((_mixed(mixed.sum(1) + (seed.long() + 1) * _MIX) >> 17) & 0x7FFFFFFF) % classes


def _mixed(h: Tensor) -> Tensor:
    """Steele et al. 2014, SplitMix64's finalizer, with arithmetic shifts."""
    h = (h ^ (h >> 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    h = (h ^ (h >> 27)) * (0x94D049BB133111EB - 2**64)
    return h ^ (h >> 31)
