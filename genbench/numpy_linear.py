"""Linear layers by NumPy's matrix products, which are faster than torch's on some processors."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

_LEAST = 2**18  # multiplications from which a product takes longer than calling it


class NumpyLinear(TorchFunctionMode):
    """Within it, a large linear layer on the CPU is computed by NumPy, and differentiated any number of times. The sums
    are the same in another order."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _is_ours(*args):
            x, weight, *bias = args
            rows = x.reshape(-1, x.shape[-1])
            return _Linear.apply(rows, weight, *bias or [None]).reshape(*x.shape[:-1], len(weight))
        return func(*args, **(kwargs or {}))


def _is_ours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether these are ordinary matrices, whose operations nobody watches or casts: neither a mode, nor torch.func,
    nor derivatives in forward mode, nor a network's own autocast."""
    return (
        type(x) is Tensor
        and all(type(t) in (Tensor, nn.Parameter) for t in (weight, bias) if t is not None)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == (weight if bias is None else bias).dtype
        and x.dtype in (torch.float32, torch.float64)
        and x.layout == weight.layout == torch.strided
        and not (x.is_neg() or weight.is_neg())
        and weight.ndim == 2
        and x.ndim >= 2
        and x.numel() * len(weight) >= _LEAST
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
        and forward_ad._current_level < 0
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None  # a checkpoint computes it again outside
    )


class _Linear(torch.autograd.Function):
    """x Wᵀ + b of rows x [n, in], W [out, in], b [out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        out = _multiplied(x, weight.T)
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, *of_bias = ctx.needs_input_grad
        return (
            _back(gradient, weight) if of_x else None,
            _outer(gradient, x) if of_weight else None,
            gradient.sum(0) if ctx.biased and all(of_bias) else None,
        )


class _Back(torch.autograd.Function):
    """g W of rows g [n, out], W [out, in]."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(g, weight)
        return _multiplied(g, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (g, weight), (of_g, of_weight) = ctx.saved_tensors, ctx.needs_input_grad
        return _rows(gradient, weight) if of_g else None, _outer(g, gradient) if of_weight else None


class _Outer(torch.autograd.Function):
    """gᵀ x of rows g [n, out], x [n, in]."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return _multiplied(g.T, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (g, x), (of_g, of_x) = ctx.saved_tensors, ctx.needs_input_grad
        return _rows(x, gradient) if of_g else None, _back(g, gradient) if of_x else None


def _rows(x: Tensor, weight: Tensor) -> Tensor:
    if _are_batched(x, weight):
        return x @ weight.T
    return _Linear.apply(x, weight, None) if torch.is_grad_enabled() else _multiplied(x, weight.T)


def _back(g: Tensor, weight: Tensor) -> Tensor:
    if _are_batched(g, weight):
        return g @ weight
    return _Back.apply(g, weight) if torch.is_grad_enabled() else _multiplied(g, weight)


def _outer(g: Tensor, x: Tensor) -> Tensor:
    if _are_batched(g, x):
        return g.T @ x
    return _Outer.apply(g, x) if torch.is_grad_enabled() else _multiplied(g.T, x)


def _are_batched(*tensors: Tensor) -> bool:
    """Whether a network differentiates in its forward pass with many vectors at once."""
    return torch._C._are_functorch_transforms_active() or any(map(torch._C._functorch.is_legacy_batchedtensor, tensors))


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty(a.shape[0], b.shape[1])
    with np.errstate(all="ignore"):  # infinities and NaN give what they give in torch
        np.matmul(_in_lines(a), _in_lines(b), out=out.numpy())
    return out


def _in_lines(matrix: Tensor) -> np.ndarray:
    """The matrix with contiguous rows or columns: NumPy multiplies others number by number."""
    matrix = matrix.detach()
    row, column = matrix.stride()
    n, m = matrix.shape
    in_lines = (column == 1 and row >= m) or (row == 1 and column >= n)
    return (matrix if in_lines else matrix.contiguous()).numpy()
