"""Snapshot ensembles."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models import Ensemble
from genbench.regularization.base import Batches, Method, Parameters
from genbench.regularization.swa import estimate_norm_statistics, trainable


class Snapshots(Method):
    """Averages the class probabilities of networks saved at the ends of ``cycles`` learning-rate cycles of one
    training.

    In each cycle the learning rate falls along a half cosine (Huang et al. 2017, arXiv 1704.00109). The result is an
    :class:`genbench.models.Ensemble` for the cost of one network. The schedule
    :func:`genbench.training.schedule.cyclic` is part of the method and replaces that of the run; the record says so.

    The i-th member has the weights after the last step whose share of all steps is at most i / cycles; if training ends
    early, members of unfinished cycles have the last weights. Batch-norm statistics are recomputed for each member.
    Measures during training see the network in training.
    """

    per_lane = ()
    order = 100  # copies the network that the other methods have built

    ends: Tensor  # of the cycles, in shares of training

    def __init__(self, *, cycles: int) -> None:
        super().__init__()
        self.cycles = check_integer("regularization snapshots: cycles", cycles, least=2)
        self.register_buffer("ends", torch.arange(1, cycles + 1, dtype=torch.float64) / cycles)

    @staticmethod
    def scheduler(settings: dict[str, Any]) -> dict[str, Any]:
        return {"_target_": "genbench.training.schedule.cyclic", "_partial_": True, "cycles": settings["cycles"]}

    def build(self, net: nn.Module) -> nn.Module:
        self.remember("kept", (torch.stack([p.detach()] * self.cycles) for p in trainable(net)))
        return net

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        lasts = progress <= self.ends  # exact: a share of steps that is i / cycles is the same quotient in float64
        for p, kept in zip(params, self.recall("kept"), strict=True):
            kept.copy_(torch.where(lasts.view(-1, *(1,) * p.ndim), p, kept))

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        members = [copy.deepcopy(net) for _ in range(self.cycles)]
        for index, member in enumerate(members):
            for p, kept in zip(trainable(member), self.recall("kept"), strict=True):
                p.copy_(kept[index])
            estimate_norm_statistics(member, batches)
        return Ensemble(members)
