"""Learning-rate schedules by step, over the whole run."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from genbench.checks import check_integer, check_number


def constant(optimizer: Optimizer, *, total_steps: int, factor: float = 1.0) -> LRScheduler | None:
    """``factor`` times the optimizer's learning rate in every step: one axis of a sweep for optimizers whose usual
    learning rates differ."""
    check_number("scheduler.factor", factor, low=0, open_low=True)
    return None if factor == 1 else LambdaLR(optimizer, lambda step: factor)


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.0) -> LRScheduler:
    """Linear warm-up over the share ``warmup`` of the steps, then cosine decay to zero (Loshchilov & Hutter 2017)."""
    rising = _rising(warmup, total_steps)
    decay = CosineAnnealingLR(optimizer, max(1, total_steps - rising))
    return SequentialLR(optimizer, [_linear(optimizer, rising), decay], [rising]) if rising else decay


def cyclic(optimizer: Optimizer, *, total_steps: int, cycles: int = 5) -> LRScheduler:
    """From the learning rate to nearly zero along a half cosine, ``cycles`` times (Loshchilov & Hutter 2017; Huang et
    al. 2017, arXiv 1704.00109, Eq. 2). Cycle i ends with step ⌊i · steps / cycles⌋."""
    check_integer("scheduler.cycles", cycles, least=1)

    def factor(step: int) -> float:
        cycle = -(-cycles * (step + 1) // total_steps) - 1
        start, end = (i * total_steps // cycles for i in (cycle, cycle + 1))
        return 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start)))

    return LambdaLR(optimizer, factor)


def exponential(
    optimizer: Optimizer, *, total_steps: int, factor: float = 0.95, every_n_steps: int = 390
) -> LRScheduler:
    """Multiply the learning rate by ``factor`` after every ``every_n_steps`` steps, an epoch say (Zhang et al. 2017,
    arXiv 1611.03530, appendix A)."""
    check_number("scheduler.factor", factor, low=0, open_low=True)
    return StepLR(optimizer, check_integer("scheduler.every_n_steps", every_n_steps, least=1), factor)


def one_cycle(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.3) -> LRScheduler:
    """From 1/25 of the learning rate up to it over the share ``warmup`` of the steps, then down to 1/250,000, both
    along a half cosine; the momentum is constant (Smith & Topin 2017, arXiv 1708.07120, in torch's version)."""
    steps = max(3, total_steps)  # torch divides by the length of each half
    rising = min(max(2, _rising(warmup, steps)), steps - 1)
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=rising / steps, cycle_momentum=False)


def step(
    optimizer: Optimizer, *, total_steps: int, milestones: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> LRScheduler:
    """Multiply the learning rate by ``factor`` at each of the shares ``milestones`` of the run."""
    if not all(0 < share < 1 for share in milestones) or factor <= 0:
        raise ValueError(f"scheduler.milestones={list(milestones)!r}, factor={factor!r}: shares in (0, 1), factor > 0")
    return MultiStepLR(optimizer, [round(share * total_steps) for share in milestones], factor)


def warmup(optimizer: Optimizer, *, total_steps: int, warmup: float = 0.1) -> LRScheduler | None:
    """Linear warm-up over the share ``warmup`` of the steps, then constant (Goyal et al. 2017, arXiv 1706.02677)."""
    rising = _rising(warmup, total_steps)
    return _linear(optimizer, rising) if rising else None


def _rising(warmup: float, total_steps: int) -> int:
    """Number of steps of a warm-up."""
    return round(check_number("scheduler.warmup", warmup, low=0, high=1, open_high=True) * total_steps)


def _linear(optimizer: Optimizer, steps: int) -> LRScheduler:
    """From 1/steps of the learning rate to the whole."""
    return LinearLR(optimizer, 1 / steps, 1.0, steps - 1 or 1)
