"""Convolutions and linear layers as matrix products (im2col). The sums are the same in another order, several times
faster where small convolutions are differentiated twice or many networks are computed at once."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_LARGEST = 2**23  # entries of the matrix of patches, which would be slow beyond
_ALL = slice(None)
_FEW = 16  # outputs: up to so many, a linear layer is computed in columns, up to three times faster


class Im2col(TorchFunctionMode):
    """Within it, a convolution without groups is the product of its input's patches and its weight, and weight norm has
    right second derivatives. torch's own convolution takes most of the time of a Hessian product of a small CNN in its
    double backward. ``torch.vmap`` over networks turns it into grouped convolutions, which are slow and change in the
    last bit with the number of networks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            result = _convolution(*args, **kwargs)
            if result is not None:
                return result
        if func is torch._weight_norm:
            return _weight_norm(*args, **kwargs)
        if func in (F.group_norm, torch.group_norm):
            return _group_norm(func, *args, **kwargs)
        return func(*args, **kwargs)


def _group_norm(group_norm: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """torch's group norm. On a CPU, its backward pass dies of a segmentation fault in torch 2.13 if the input has its
    channels last, as a product of patches, and needs no gradient."""
    return group_norm(input if input.requires_grad else input.contiguous(), *args, **kwargs)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖. torch's own kernel treats ‖v‖ as a constant when its gradient is differentiated, so second derivatives
    are wrong (``torch.autograd.gradgradcheck`` fails in torch 2.13)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear, which copies no argument under ``torch.vmap`` over all of them."""
    if x.ndim == 1:
        return linear(x[None], weight, bias)[0]
    if x.ndim > 2:
        return linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
    columns = len(weight) <= _FEW and any(map(_is_batched, (x, weight)))
    out = _Linear.apply(x, weight, bias, columns)
    return out.mT if columns else out  # a view that the function itself returned could not be changed in place


def _is_batched(tensor: Tensor) -> bool:
    """Whether ``torch.vmap`` computes many of it at once."""
    inner = torch._C._functorch
    while inner.is_functorch_wrapped_tensor(tensor):
        if inner.is_batchedtensor(tensor):
            return True
        tensor = inner.get_unwrapped(tensor)
    return False


class _Linear(torch.autograd.Function):
    """The outputs [n, out] of rows [n, in]; under ``torch.vmap``, if ``columns``, their transpose."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor | None, columns: bool) -> Tensor:
        return F.linear(rows, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        rows, weight, bias, ctx.columns = inputs
        ctx.save_for_backward(rows, weight)
        ctx.biased = bias is not None

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        if ctx.columns:
            gradient = gradient.T
        return gradient @ weight, gradient.T @ rows, gradient.sum(0) if ctx.biased else None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        *tensors, columns = args
        rows, weight, bias = (
            None if t is None else _leading(t, dim, info.batch_size) for t, dim in zip(tensors, in_dims, strict=False)
        )
        return _Products.apply(rows, weight, bias, columns), 0


class _Products(torch.autograd.Function):
    """The linear layers of many networks: rows [L, n, in], weight [L, out, in], bias [L, out] -> [L, n, out], or [L,
    out, n] as ``columns``. The backward pass is written out: torch's own would return transposed gradients, which make
    all later operations slow."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, columns: bool) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.biased, ctx.columns = bias is not None, columns
        a, b = (weight, rows.mT) if columns else (rows, weight.mT)
        return torch.bmm(a, b) if bias is None else torch.baddbmm(bias[:, :, None] if columns else bias[:, None], a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        if ctx.columns:
            gradient = gradient.mT
        back = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return back, torch.bmm(gradient.mT, rows), gradient.sum(1) if ctx.biased else None, None


class _Window(NamedTuple):
    """The geometry of a convolution, one entry per spatial dimension."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def taps(self) -> Iterator[tuple[Any, Any]]:
        """For each point of the kernel: the outputs for which it lies inside the input, and the inputs there."""
        for offset in itertools.product(*map(range, self.kernel)):
            to, source = [], []
            for o, n, m, s, p, d in zip(
                offset, self.inputs, self.outputs, self.stride, self.padding, self.dilation, strict=True
            ):
                start = o * d - p  # of the first output
                first = max(0, -(start // s))
                last = min(m - 1, (n - 1 - start) // s)
                to.append(slice(first, last + 1))
                source.append(slice(start + s * first, start + s * last + 1, s) if last >= first else slice(0, 0))
            yield tuple(to), tuple(source)


class _Unfold(torch.autograd.Function):
    """The patches [..., *outputs, taps, C] of an input [..., *inputs, C], zero outside of it; with ``back`` the
    transpose, which adds every entry of the patches to its place in the input. Each is the derivative of the other."""

    @staticmethod
    def forward(x: Tensor, window: _Window, back: bool) -> Tensor:
        return _folded(x, window) if back else _unfolded(x, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.window, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Unfold.apply(gradient, ctx.window, not ctx.back), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, window: _Window, back: bool) -> tuple[Tensor, int]:
        return _Unfold.apply(_leading(x, in_dims[0], info.batch_size), window, back), 0


def _unfolded(x: Tensor, window: _Window) -> Tensor:
    lead = x.shape[: x.ndim - 1 - len(window.inputs)]
    shape = (*lead, *window.outputs, math.prod(window.kernel), x.shape[-1])
    found = (x.new_zeros if any(window.padding) else x.new_empty)(shape)
    for tap, (to, source) in enumerate(window.taps()):
        found[(..., *to, tap, _ALL)] = x[(..., *source, _ALL)]
    return found


def _folded(patches: Tensor, window: _Window) -> Tensor:
    lead = patches.shape[: patches.ndim - 2 - len(window.outputs)]
    found = patches.new_zeros((*lead, *window.inputs, patches.shape[-1]))
    for tap, (to, source) in enumerate(window.taps()):
        found[(..., *source, _ALL)].add_(patches[(..., *to, tap, _ALL)])  # += would copy the sum onto itself
    return found


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution, computed with channels last; None where torch's own is faster or the only one."""
    sizes = tuple(weight.shape[2:])
    if groups != 1 or isinstance(padding, str) or input.ndim != weight.ndim or input.device.type != "cpu":
        return None
    stride, padding, dilation = (_each(value, len(sizes)) for value in (stride, padding, dilation))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, sizes, strict=True)]
    inputs = tuple(input.shape[2:])
    outputs = tuple((n + 2 * p - e) // s + 1 for n, p, e, s in zip(inputs, padding, spans, stride, strict=True))
    if min(outputs) < 1 or len(input) * math.prod(outputs) * math.prod(weight.shape[1:]) > _LARGEST:
        return None
    window = _Window(inputs, outputs, sizes, stride, padding, dilation)
    patches = _Unfold.apply(input.movedim(1, -1), window, False)
    return linear(patches.flatten(-2), weight.movedim(1, -1).flatten(1), bias).movedim(-1, 1)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _leading(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with the mapped axis first."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
