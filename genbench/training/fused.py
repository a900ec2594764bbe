"""The fused kernels of torch's optimizers."""

import inspect
from collections.abc import Callable
from functools import partial

import torch

MakeOptimizer = Callable[..., torch.optim.Optimizer]  # parameter groups -> optimizer


def fused(make: MakeOptimizer, kinds: tuple[type, ...]) -> MakeOptimizer:
    """Choose the fused kernel of an optimizer of these ``kinds`` where it has one and nothing else was chosen."""
    kind, chosen = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    if kind not in kinds or "fused" not in inspect.signature(kind).parameters:
        return make
    return make if {"fused", "foreach", "differentiable"} & chosen.keys() else partial(make, fused=True)
