"""Training on random labels first."""

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.regularization.base import Method, Parameters
from genbench.rng import StepRandom

_GRAIN = 2.0**20  # inputs count in steps of 1e-6
_MIX = 0x9E3779B97F4A7C15 - 2**64  # odd, from the golden ratio


class RandomLabels(Method):
    """Trains on random labels until a share of training, and on the true ones after it: SGD then starts from weights
    that were fitted to noise (Liu, Papailiopoulos & Achlioptas 2020, arXiv 1906.02613).

    As in the authors' code, each example stands for ``copies`` of it at first. A copy has a random label, uniform over
    the classes, and a random share ``zeroed`` of its numbers set to 0; both stay the same whenever it is drawn. A step
    draws one copy of each example of its batch.

    The optimizer keeps its state and the schedule goes on, where the authors start both anew. Other methods act on both
    parts of training: augmentation changes the copies too, and keeps their labels.

    Args:
        until: share of the steps with random labels, in [0, 1].
        copies: of each example, at least 1.
        zeroed: share of the numbers of a copy that are 0, in [0, 1]; of tokens, that are the first one.
        seed: of labels and zeros, at least 0. Inputs that are equal, to 1e-6, have equal ones.

    Raises:
        ValueError: the network has no number of classes, or an example has several labels.
    """

    order = -100  # before methods that change the batch: labels belong to the examples as they lie in the data

    until: Tensor
    copies: Tensor
    zeroed: Tensor
    seed: Tensor
    progress: Tensor

    def __init__(self, *, until: float, copies: int, zeroed: float, seed: int) -> None:
        super().__init__()
        self.setting("until", until, low=0, high=1)
        for name, number, least in (("copies", copies, 1), ("seed", seed, 0)):
            check_integer(f"regularization {type(self).__name__}: {name}", number, least=least)
            self.register_buffer(name, torch.tensor(number, dtype=torch.int64))
        self.setting("zeroed", zeroed, low=0, high=1)
        self.register_buffer("progress", torch.tensor(0.0, dtype=torch.float64))

    def build(self, net: nn.Module) -> nn.Module:
        classes = getattr(net, "classes", None)
        if not isinstance(classes, int):
            raise ValueError(
                f"regularization {type(self).__name__}: {type(net).__name__} does not say how many classes it has"
            )
        self.classes = classes
        return net

    def transform(self, net: nn.Module, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor]:
        if y.ndim != 1:
            raise ValueError(f"regularization {type(self).__name__}: accepted: data with one label an example")
        copy = (draw.uniform("random_labels.copy", len(x)).double() * self.copies).long()
        noise = random_numbers(x, self.seed, copy)
        labels = (noise[:, 0] * self.classes).long()
        kept = torch.where((noise[:, 1:] < self.zeroed).view_as(x), torch.zeros_like(x), x)
        first = self.progress < self.until
        return torch.where(first, kept, x), torch.where(first, labels, y)

    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        self.progress.fill_(progress)


def random_numbers(x: Tensor, seed: Tensor, copy: Tensor) -> Tensor:
    """Return numbers on [0, 1), float64 [n, 1 + d], one for each input of x [n, ...] and one for each of its d numbers:
    a hash of the input, of the seed and of the number of its copy [n]."""
    numbers = (x.flatten(1).double() * _GRAIN).round().long() if x.is_floating_point() else x.flatten(1).long()
    place = torch.arange(numbers.shape[1] + 1, device=x.device)
    # each number is mixed with its place before they are added; int64 wraps
    whole = _mixed(_mixed(numbers + place[1:] * _MIX) + place[1:]).sum(1)
    key = _mixed(_mixed(whole + (seed + 1) * _MIX) + (copy + 1) * _MIX)
    return _shifted(_mixed(key[:, None] + place * _MIX), 11).double() / 2**53


def _mixed(h: Tensor) -> Tensor:
    """Steele et al. 2014, SplitMix64's finalizer."""
    h = (h ^ _shifted(h, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    h = (h ^ _shifted(h, 27)) * (0x94D049BB133111EB - 2**64)
    return h ^ _shifted(h, 31)


def _shifted(h: Tensor, by: int) -> Tensor:
    return (h >> by) & (2 ** (64 - by) - 1)  # without copies of the sign
