"""Small convolutions as products of matrices, which on a processor differentiate twice several times faster."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_LARGEST = 2**23  # entries of the matrix of patches: beyond that it would no longer be cheap


class Patches(TorchFunctionMode):
    """Within it, a convolution without groups multiplies the matrix of its input's patches by its weight: the same
    sums in another order. Double backward of torch's own takes most of the time of a Hessian product of a small CNN."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            result = _convolution(*args, **kwargs)
            if result is not None:
                return result
        return func(*args, **kwargs)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution, channels last inside; None where torch's own is the better or the only choice."""
    sizes = weight.shape[2:]
    if groups != 1 or isinstance(padding, str) or input.ndim != weight.ndim or input.device.type != "cpu":
        return None
    stride, padding, dilation = (_each(value, len(sizes)) for value in (stride, padding, dilation))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, sizes, strict=True)]
    out = [(n + 2 * p - e) // s + 1 for n, p, e, s in zip(input.shape[2:], padding, spans, stride, strict=True)]
    if min(out) < 1 or len(input) * math.prod(out) * math.prod(weight.shape[1:]) > _LARGEST:
        return None
    x = F.pad(input.movedim(1, -1), [0, 0, *(p for pair in reversed(padding) for p in (pair, pair))])
    taps = []
    for offset in itertools.product(*map(range, sizes)):
        first = [o * d for o, d in zip(offset, dilation, strict=True)]
        inside = (slice(f, f + s * (n - 1) + 1, s) for f, s, n in zip(first, stride, out, strict=True))
        taps.append(x[(slice(None), *inside)])
    patches = torch.cat(taps, -1).flatten(0, -2)
    result = patches @ weight.movedim(1, -1).flatten(1).T
    if bias is not None:
        result = result + bias
    return result.unflatten(0, (len(input), *out)).movedim(-1, 1)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)
