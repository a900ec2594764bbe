"""Curriculum learning."""

import copy
from typing import Any

from torch import nn

from genbench.regularization.self_paced import SelfPaced
from genbench.regularization.transfer import by_content, start_from

_SOURCE = "regularization curriculum: source"


class Curriculum(SelfPaced):
    """Trains on the easiest share of each batch, as a teacher judges it, and lets the share grow to all examples.

    Difficulty is the cross-entropy of the teacher, another network of the same architecture. The share grows linearly
    from ``start`` (at least one example) to 1 at ``end`` of training (Hacohen & Weinshall 2019, arXiv 1904.03626).
    Their bootstrapping uses this network itself as the teacher, trained on the same task without a curriculum.

    The paper draws batches from the easiest part of the training set; here batches are drawn as usual, and the share
    applies to each of them. The teacher never changes; a step costs one forward pass of it.

    Args:
        source: weights of the teacher, head included, as in :class:`genbench.regularization.Transfer`; ``None``: the
            network's own initial weights, an uninformed order as a control.
        start: share at the beginning, in [0, 1].
        end: share of training after which all examples count, in (0, 1].

    Raises:
        ConfigError: weights that cannot be read safely or do not fit; the message names those that do not fit.
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
