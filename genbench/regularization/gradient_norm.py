"""Penalty on the norm of the gradient by the weights."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from genbench.checks import check_integer
from genbench.models.slots import Masked, frozen_norm_statistics
from genbench.regularization.base import Method
from genbench.rng import StepRandom


class GradientNorm(Method):
    """Adds strength · mean ‖∂L_b/∂w‖₂² to the loss, where L_b is the mean cross-entropy of a block b, of which the
    batch has as many of ``size`` examples as fit.

    With one block it is the implicit regularization of gradient descent with learning rate 4 · strength, made explicit
    (Barrett & Dherin 2021, arXiv 2009.11162); over blocks of small batches that of SGD, with which Geiping et al. 2022
    (arXiv 2109.14119) train on full batches. They take finite differences; here the gradient is exact, and a step is
    differentiated twice, block by block. A batch norm takes the statistics of the block. Dropout needs one block.

    Args:
        strength: ≥ 0.
        size: examples of a block, which divides the batch; ``None``: the batch is one block.
    """

    order = 100  # sees the parameters that other methods add
    per_lane = ("strength",)
    whole_batch = True  # the norm of a mean is no mean over examples

    strength: Tensor

    def __init__(self, *, strength: float, size: int | None = None) -> None:
        super().__init__()
        self.setting("strength", strength, low=0)
        self.size = None if size is None else check_integer("regularization gradient_norm: size", size, least=1)
        self._frozen: frozenset[str] = frozenset()

    def build(self, net: nn.Module) -> nn.Module:
        self._frozen = frozenset(name for name, p in net.named_parameters() if not p.requires_grad)
        return net

    def penalty(self, net: nn.Module, x: Tensor, y: Tensor, output: Tensor, draw: StepRandom) -> Tensor:
        size = self.size or len(x)
        if len(x) % size:
            raise ValueError(
                f"regularization gradient_norm: size is {size}, which does not divide a batch of {len(x)} examples; "
                "accepted: a divisor"
            )
        if size < len(x) and any(slot.active for slot in net.modules() if isinstance(slot, Masked)):
            raise ValueError(
                f"regularization gradient_norm: size is {size} with dropout or stochastic depth, whose masks are of "
                "the whole batch; accepted: null"
            )
        weights = {name: p for name, p in net.named_parameters() if name not in self._frozen}

        def loss(values: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(net, dict(values), (x,)), y)

        squares = []
        with frozen_norm_statistics(net), _Formulas():
            for x_block, y_block in zip(x.split(size), y.split(size), strict=True):
                slopes = torch.func.grad(loss)(weights, x_block, y_block)
                squares.append(torch.stack([slope.square().sum() for slope in slopes.values()]).sum())
        return self.strength.to(output.dtype) * torch.stack(squares).mean()


class _Formulas(TorchFunctionMode):
    """Computes layer and group norms by their formulas. Where a pack vectorizes them, torch 2.13 has a wrong second
    derivative of its own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced = {F.layer_norm: _layer_norm, F.group_norm: _group_norm}
        return replaced.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    result = _normalized(x, list(range(-len(shape), 0)), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    result = _normalized(x.unflatten(1, (groups, -1)).flatten(2), [2], eps).view_as(x)
    each = [-1, *[1] * (x.ndim - 2)]
    result = result if weight is None else result * weight.view(each)
    return result if bias is None else result + bias.view(each)


def _normalized(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
