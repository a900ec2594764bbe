"""What a part of a step does to lanes that compute as one, compared with what it does to each by itself."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.training.stack import Stack


class Effect(NamedTuple):
    """A result of a part of a step, or the change that it makes to a tensor.

    Attributes:
        value: [lanes, ...].
        scale: norm [lanes] of the numbers whose rounding it has, 1 at least.
    """

    value: Tensor
    scale: Tensor


def effects(stack: Stack, part: Callable[[], Mapping[str, Tensor]]) -> dict[str, Effect]:
    """Call ``part``, which returns results [lanes, ...] by name; return them and the changes of the stack's tensors."""
    before = {name: tensor.clone() for name, tensor in stack.tensors.items()}
    found = {name: Effect(value.clone(), value.new_ones(len(stack))) for name, value in part().items()}
    for name, tensor in stack.tensors.items():
        if tensor.is_floating_point():
            found[name] = Effect(tensor - before[name], _norms(before[name]).clamp_min(1))
    return found


def difference(stack: Stack, ours: Mapping[str, Effect], theirs: Mapping[str, Effect]) -> tuple[int, str] | None:
    """The first lane whose effects differ by more than rounding, and the effect; None if there is none.

    Rounding is at most √ε of the effect and 1000 ε of its scale, with ε of the trained weights, or of autocast. It is a
    twentieth of a gradient, which jumps where a unit switches on. What is not finite is not compared.
    """
    kind, eps = stack.flat.device.type, torch.finfo(stack.flat.dtype).eps
    coarse = torch.finfo(torch.get_autocast_dtype(kind)).eps if torch.is_autocast_enabled(kind) else eps
    for name, (value, scale) in theirs.items():
        apart, size = _norms(ours[name].value - value), _norms(value)
        part = 0.05 if name == "gradient" else coarse**0.5
        far = (apart > part * size + 1000 * eps * scale.double()) & apart.isfinite()
        if far.any():
            return int(far.int().argmax()), name
    return None


def _norms(tensor: Tensor) -> Tensor:
    return tensor.double().reshape(len(tensor), -1).norm(dim=1)
