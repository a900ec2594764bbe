"""Random numbers by counting: Philox4x32-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405) in operations of torch.

A number follows from its key, its step and its place alone, so that all lanes of a pack draw at once, under
``torch.vmap``, what each draws by itself. Words have 32 bits and are Python numbers or tensors (int64).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF

Key = Sequence[Any]  # two words for each of the ten rounds


def key_of(seed: int) -> list[int]:
    """The key of a seed of at most 64 bits, all of which count."""
    words = seed & _LOW, seed >> 32
    return [(word + turn * weyl) & _LOW for turn in range(10) for word, weyl in zip(words, _WEYL, strict=True)]


def philox(counter: Sequence[Any], key: Key) -> tuple[Any, Any, Any, Any]:
    """The four words of a counter, which is four words itself."""
    a, b, c, d = counter
    for k, m in zip(key[::2], key[1::2], strict=True):
        p, q = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # all 64 bits of the products: int64 wraps around
        a, b, c, d = ((q >> 32) ^ b ^ k) & _LOW, q & _LOW, ((p >> 32) ^ d ^ m) & _LOW, p & _LOW
    return a, b, c, d


def _words(key: Key, step: Tensor, n: int) -> Tensor:
    """n words [..., n] at each of the steps [...]."""
    block = torch.arange(-(-n // 4), device=step.device)
    words = philox((block, 0, step[..., None], 0), key)
    return torch.stack(torch.broadcast_tensors(*words), -1).flatten(-2)[..., :n]


def uniform(key: Key, step: Tensor, shape: Sequence[int]) -> Tensor:
    """Multiples of 2⁻²⁴, uniform on [0, 1), float32 [..., *shape]."""
    words = _words(key, step, math.prod(shape))
    return ((words >> 8).float() * 2**-24).reshape((*step.shape, *shape))


def normal(key: Key, step: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 [..., *shape], each at most 6.7 in size (Box and Muller 1958)."""
    n = math.prod(shape)
    radius, angle = _words(key, step, n + n % 2).unflatten(-1, (-1, 2)).unbind(-1)
    r = (-2 * ((radius + 1).float() * 2**-32).log()).sqrt()  # of numbers on (0, 1]
    turned = angle.float() * (2 * math.pi * 2**-32)
    return torch.stack([r * turned.cos(), r * turned.sin()], -1).flatten(-2)[..., :n].reshape((*step.shape, *shape))


def permutation(key: Key, step: Tensor, shape: Sequence[int]) -> Tensor:
    """Random orders of ``range(n)``, int64 [..., n], for ``shape`` (n,): the order of n numbers of 63 bits. Two of them
    are equal with a probability of n²/2⁶⁴, and are then left as they stand."""
    high, low = _words(key, step, 2 * shape[0]).unflatten(-1, (-1, 2)).unbind(-1)
    return ((high << 31) | (low >> 1)).argsort(stable=True, dim=-1)
