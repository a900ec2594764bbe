"""Ghost batch normalization."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.checks import check_integer
from genbench.models.slots import Normalization
from genbench.regularization.base import SlotNormalization


class GhostBatchNorm(SlotNormalization):
    """Batch normalization in which each ``size`` successive examples of a batch, a ghost batch, have statistics of
    their own, at every normalization slot of the network (Hoffer et al. 2017, arXiv 1705.08741, algorithm 1).

    A large batch is then normalized with the noise of small ones. Running statistics, for evaluation, are those after
    each ghost batch in turn; momentum 0.1 and ε = 1e-5 are torch's defaults.
    """

    per_lane = ()
    whole_batch = True

    def __init__(self, *, size: int) -> None:
        super().__init__()
        self.size = check_integer("regularization ghost_batch_norm: size", size, least=2)

    def layer(self, slot: Normalization) -> nn.Module:
        return (_Ghosts2d if slot.dims == 2 else _Ghosts1d)(slot.channels, size=self.size)


class _Ghosts(nn.modules.batchnorm._BatchNorm):
    """Batch normalization of x [B, C, ...] over each ``size`` successive examples, of which B is a multiple."""

    def __init__(self, channels: int, *, size: int) -> None:
        super().__init__(channels)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        ghosts, rest = divmod(len(x), self.size)
        if rest:
            raise ValueError(
                f"regularization ghost_batch_norm: size is {self.size}, which does not divide a batch of {len(x)} "
                "examples; accepted: a divisor"
            )
        # channels of different ghost batches become different channels
        grouped = x.unflatten(0, (ghosts, self.size)).movedim(0, 1).flatten(1, 2)  # [size, ghosts · C, ...]
        weight, bias, mean, var = (
            None if t is None else t.repeat(ghosts)
            for t in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        assert self.momentum is not None
        output = F.batch_norm(grouped, mean, var, weight, bias, True, self.momentum, self.eps)
        if self.num_batches_tracked is not None:
            for running, each in ((self.running_mean, mean), (self.running_var, var)):
                if running is not None and each is not None:
                    _in_turn(running, each.view(ghosts, -1), self.momentum)
            self.num_batches_tracked.add_(ghosts)
        return output.unflatten(1, (ghosts, -1)).movedim(1, 0).flatten(0, 1)


@torch.no_grad()
def _in_turn(running: Tensor, each: Tensor, momentum: float) -> None:
    """Move ``running`` [C] by one statistic after the other; ``each`` [ghosts, C] has those after one of them alone."""
    keep = 1 - momentum
    decay = keep ** torch.arange(len(each) - 1, -1, -1, dtype=each.dtype, device=each.device)
    moved = (decay[:, None] * (each - keep * running)).sum(0)
    running.mul_(keep ** len(each)).add_(moved)


class _Ghosts1d(_Ghosts, nn.BatchNorm1d):
    pass


class _Ghosts2d(_Ghosts, nn.BatchNorm2d):
    pass
