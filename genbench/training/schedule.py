"""Learning-rate schedules by step, over the whole length of a run."""

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR


def constant(optimizer: Optimizer, *, total_steps: int) -> None:
    """No schedule."""


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.0) -> LRScheduler:
    """Linear warm-up over a share of the steps, then cosine decay to zero (Loshchilov & Hutter 2017)."""
    if not 0 <= warmup < 1:
        raise ValueError(f"scheduler.warmup={warmup!r} is not a share of the steps in [0, 1)")
    rising = round(warmup * total_steps)
    decay = CosineAnnealingLR(optimizer, max(1, total_steps - rising))
    if rising == 0:
        return decay
    return SequentialLR(optimizer, [LinearLR(optimizer, 1 / rising, 1.0, rising - 1 or 1), decay], [rising])


def step(
    optimizer: Optimizer, *, total_steps: int, milestones: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> LRScheduler:
    """Multiply by ``factor`` at each of the shares ``milestones`` of the run."""
    if not all(0 < share < 1 for share in milestones) or factor <= 0:
        raise ValueError(f"scheduler.milestones={list(milestones)!r}, factor={factor!r}: shares in (0, 1), factor > 0")
    return MultiStepLR(optimizer, [round(share * total_steps) for share in milestones], factor)
