"""Curriculum learning."""

import copy
from typing import Any

from torch import nn

from genbench.regularization.self_paced import SelfPaced
from genbench.regularization.transfer import by_content, start_from

_SOURCE = "regularization curriculum: source"


class Curriculum(SelfPaced):
    """A curriculum from easy to hard by the scores of a teacher: of each batch only the share on which another network
    of this architecture has the smallest cross-entropy counts, a share that grows linearly from ``start``, one example
    at least, to all by ``end`` of training (Hacohen & Weinshall 2019, arXiv 1904.03626). Their bootstrapping is with a
    teacher that was this network, trained on the same task without a curriculum.

    The paper draws its batches from the easiest part of the training set; here batches are drawn as ever, and the share
    is of each of them. The teacher never changes; a step costs one forward pass of it.

    Args:
        source: the teacher's weights, head included, as Transfer's ``source``; None for the network's own initial
            ones, an order that knows nothing of the task, to compare with.
        start: share at first, in [0, 1].
        end: share of training after which all examples count, in (0, 1].

    Raises:
        ConfigError: weights that cannot be read without trusting them, or do not fit; the names that do not.
    """

    teacher: nn.Module

    def __init__(self, *, source: str | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.source = source

    @staticmethod
    def identity(settings: dict[str, Any]) -> dict[str, Any]:
        return by_content(settings, _SOURCE)

    def build(self, net: nn.Module) -> nn.Module:
        self.teacher = copy.deepcopy(super().build(net)).requires_grad_(False)
        if self.source is not None:
            start_from(self.teacher, self.source, _SOURCE)
        return net

    def judge(self, net: nn.Module) -> nn.Module:
        return self.teacher
