"""Training one run on several processes: each computes on its shard of every batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from genbench.rng import Rows, StepRandom
from genbench.training.batch_norm import batch_statistics, by_channel

T = TypeVar("T")
_Norm = nn.modules.batchnorm._BatchNorm


class ProcessLost(ConnectionError):
    """Another process of the run has ended."""


class Shard:
    """One process's rows of every batch, and its messages to the other processes of the run.

    Every process holds the whole batch and transforms it as one device would; from there on it computes on its own
    rows. All shards have the same size, so a mean over the batch (gradients, the objective, batch statistics) is the
    mean of the processes' means. All processes have the same weights at any time, bit for bit.

    Args:
        rank: index of this process, from 0.
        world_size: number of processes.
        local_rank: index of this process's device on its machine, from 0.
    """

    def __init__(self, rank: int, world_size: int, *, local_rank: int = 0) -> None:
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank

    def rows(self, x: Tensor, y: Tensor, draw: StepRandom) -> tuple[Tensor, Tensor, StepRandom]:
        """This process's rows of a batch, and the random numbers of these rows.

        Raises:
            ValueError: the batch does not divide by the number of processes.
        """
        n = len(x)
        if n % self.world_size:
            raise ValueError(
                f"a batch of {n} examples cannot be shared by {self.world_size} processes; accepted: multiples"
            )
        size = n // self.world_size
        rows = range(size * self.rank, size * (self.rank + 1))
        return x[rows.start : rows.stop], y[rows.start : rows.stop], Rows(draw, rows, n)

    @torch.no_grad()
    def average(self, params: list[Tensor], objective: Tensor) -> Tensor:
        """Replace each gradient by its mean over the processes; return the mean of the objective."""
        grads = [p.grad for p in params]
        used = objective.new_tensor([g is not None for g in grads])
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
        flat = torch.cat([part.flatten() for part in (*parts, used, objective)])  # one message for all tensors
        _sum(flat).div_(self.world_size)
        *means, used, objective = flat.split([*(p.numel() for p in params), len(params), 1])
        for index, (p, mean) in enumerate(zip(params, means, strict=True)):
            if p.grad is None and used[index] == 0:  # unused by all processes: the optimizer skips it
                continue
            p.grad = mean.view_as(p).to(p.dtype)
        return objective[0]

    def broadcast(self, value: T) -> T:
        """The value that process 0 passes; the values of the others are ignored."""
        box: list[Any] = [value if self.rank == 0 else None]
        with _detecting_loss():
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]


class StopTogether(pl.Callback):
    """Ends the training of all processes when a callback of process 0 asks for it; the last of the callbacks.

    Args:
        shard: the shard of this process.
        each_batch: whether a callback may ask within an epoch.
    """

    def __init__(self, shard: Shard, *, each_batch: bool) -> None:
        self._shard, self._each_batch = shard, each_batch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._each_batch:
            trainer.should_stop = self._shard.broadcast(trainer.should_stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self._shard.broadcast(trainer.should_stop)


@contextmanager
def synchronized_batch_norms(net: nn.Module) -> Iterator[None]:
    """Within, batch norms use the statistics of the whole batch, averaged over the processes."""
    norms = [m for m in net.modules() if isinstance(m, _Norm)]
    for norm in norms:
        norm.forward = partial(_normalized, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalized(norm: _Norm, x: Tensor) -> Tensor:
    """The output of a batch norm for x [B, C, ...], with mean and variance over all processes. torch's SyncBatchNorm
    refuses to work on a CPU."""
    if not norm.training and norm.running_mean is not None:
        return type(norm).forward(norm, x)
    if type(norm).forward is not _Norm.forward:
        raise ValueError(
            f"{type(norm).__name__} does not normalize over the whole batch, which several processes share; "
            "accepted: one process"
        )
    norm._check_input_dim(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean, variance, centred = batch_statistics(wide, _Average.apply)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        n = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            norm.num_batches_tracked += 1
            weight = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
            norm.running_var.lerp_((variance * n / max(1, n - 1)).to(norm.running_var.dtype), weight)
    result = centred * by_channel((variance + norm.eps).rsqrt(), x)
    if norm.weight is not None:
        result = result * by_channel(norm.weight, x) + by_channel(norm.bias, x)
    return result.to(x.dtype)


class _Average(torch.autograd.Function):
    """The mean over the processes, differentiable any number of times.

    Each process computes the gradient of the sum of all objectives for its own copy of the weights: the mean over the
    processes that :meth:`Shard.average` then takes is the gradient of the mean.
    """

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return _sum(t.clone(memory_format=torch.contiguous_format)).div_(dist.get_world_size())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Empty; torch.func requires it apart from forward."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Average.apply(grad)


def _sum(t: Tensor) -> Tensor:
    with _detecting_loss():
        dist.all_reduce(t)
    return t


@contextmanager
def _detecting_loss() -> Iterator[None]:
    """Raise :class:`ProcessLost` where communication fails because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost("another process of this run has ended") from error
