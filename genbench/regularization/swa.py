"""Stochastic weight averaging."""

import torch
from torch import Tensor, nn

from genbench.models.slots import tracked_norms
from genbench.module_state import eval_mode
from genbench.regularization.base import Batches, Method, Parameters


class WeightAverage(Method):
    """Ends with a running mean of the weights after each step; batch-norm statistics are recomputed for it.

    If training ends before any weights were averaged, the last weights stay.
    """

    order = 100  # copies the network after other methods have built it

    averaged: Tensor  # number of averaged weights

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("averaged", torch.tensor(0, dtype=torch.int64))

    def share(self, progress: float | Tensor) -> Tensor:
        """Return the share of the current weights in the mean (float64), and count them in ``averaged``."""
        raise NotImplementedError

    def build(self, net: nn.Module) -> nn.Module:
        # in float32, rounding over thousands of steps would exceed the effect of one step
        self.remember("mean", (p.double() for p in trainable(net)))
        return net

    @torch.no_grad()
    def after_step(self, params: Parameters, progress: float | Tensor) -> None:
        share = self.share(progress)
        for mean, p in zip(self.recall("mean"), params, strict=True):
            mean.add_((p.double() - mean) * share)

    @torch.no_grad()
    def finish(self, net: nn.Module, batches: Batches) -> nn.Module:
        if self.averaged > 0:
            for p, mean in zip(trainable(net), self.recall("mean"), strict=True):
                p.copy_(mean)
            estimate_norm_statistics(net, batches)
        return net


class SWA(WeightAverage):
    """Ends with the mean of the weights after each step of the last part of training (Izmailov et al. 2018, arXiv
    1803.05407).

    ``start`` is the share of training after which averaging begins. The learning rate follows the schedule of the run.
    If training ends before ``start``, because a threshold was reached, the last weights stay. Batch-norm statistics are
    recomputed for the mean.
    """

    start: Tensor

    def __init__(self, *, start: float) -> None:
        super().__init__()
        self.setting("start", start, low=0, high=1)

    def share(self, progress: float | Tensor) -> Tensor:
        self.averaged += progress > self.start
        return (progress > self.start) / self.averaged.clamp(min=1).double()


def trainable(net: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters."""
    return [p for p in net.parameters() if p.requires_grad]


@torch.no_grad()
def estimate_norm_statistics(net: nn.Module, batches: Batches) -> None:
    """Set each batch norm's running statistics to their mean over the batches at the current weights."""
    norms = tracked_norms(net)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with eval_mode(net):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean over the batches
            norm.training = True
        for x, _ in batches:
            net(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
