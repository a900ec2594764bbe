"""Where the examples of a batch lie, and some of them taken out of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.measures.leaves import flatten


@dataclass(frozen=True)
class Layout:
    """The axes in which the examples of a batch may lie: those of ``axes`` in turn for a tensor of the input, the first
    of the length of the batch, and ``target`` for the target and the output. A tensor that has no such axis belongs to
    every example."""

    axes: tuple[int, ...]
    target: int = 0

    def count(self, output: Any, target: Any) -> int:
        """The number of examples: the length of the target, of the output where that has none; 0 for neither."""
        return length(target, self.target) or length(output, self.target)

    def axis(self, leaf: Any, n: int) -> int | None:
        if isinstance(leaf, Tensor):
            return next((a for a in self.axes if leaf.ndim > a and leaf.shape[a] == n), None)
        return None

    def rows(self, value: Any, n: int, rows: Tensor) -> Any:
        """Some examples of a batch of ``n``."""
        leaves, rebuilt = flatten(value)
        return rebuilt([self._rows(leaf, n, rows) for leaf in leaves])

    def _rows(self, leaf: Any, n: int, rows: Tensor) -> Any:
        axis = self.axis(leaf, n)
        return leaf if axis is None else leaf.index_select(axis, rows.to(leaf.device))

    def first(self, value: Any, n: int, m: int) -> Any:
        """The first ``m`` examples of a batch of ``n``, as views."""
        return next(self.split(value, n, m))

    def split(self, value: Any, n: int, size: int) -> Iterator[Any]:
        """A batch of ``n`` examples in parts of ``size``, as views, the last of what is left."""
        leaves, rebuilt = flatten(value)
        axes = [self.axis(leaf, n) for leaf in leaves]
        for start in range(0, n, size):
            m = min(size, n - start)
            yield rebuilt(
                [leaf if a is None else leaf.narrow(a, start, m) for leaf, a in zip(leaves, axes, strict=True)]
            )

    def joined(self, first: tuple[Any, int], second: tuple[Any, int]) -> Any:
        """Two values, each with its number of examples, as one."""
        (a, n), (b, m) = first, second
        ours, rebuilt = flatten(a)
        theirs, _ = flatten(b)
        axes = [self.axis(leaf, n) for leaf in ours]
        if axes != [self.axis(leaf, m) for leaf in theirs]:
            raise ValueError("values of other forms")
        return rebuilt(x if i is None else torch.cat([x, y], i) for x, y, i in zip(ours, theirs, axes, strict=True))

    def of_output(self, value: Any, n: int, rows: Tensor) -> list[Tensor]:
        """Some rows of the output's tensors that have one an example."""
        own = self.outputs
        return [own._rows(leaf, n, rows) for leaf in flatten(value)[0] if own.axis(leaf, n) is not None]

    @property
    def outputs(self) -> "Layout":
        """The axes of outputs and targets."""
        return Layout((self.target, 1 - self.target), self.target)


EXAMPLES_FIRST = Layout((0,))
LAYOUTS = (EXAMPLES_FIRST, Layout((1, 0)), Layout((1, 0), 1))  # time first, in the inputs or in the targets too


class Samples:
    """Some examples' outputs and targets, which show whether a loss is the mean over the examples: weights of classes
    or padding make it another one, and may tell between batches only.

    Attributes:
        mean: whether the loss of any two parts together was their mean, each counted as ``count`` says.
    """

    _BATCHES, _ROWS = 16, 16  # looked at; of each, in either part

    def __init__(self, loss: Callable[[Any, Any], Tensor], count: Callable[[Any, Any], Any] | None) -> None:
        self._loss, self._count = loss, count
        self._left = self._BATCHES
        self._last: tuple[Any, int] | None = None
        self.mean = True

    def add(self, output: Any, target: Any, n: int, layout: Layout | None) -> None:
        if not (self._left and self.mean and layout):
            return
        self._left -= 1
        order = layout.outputs
        rows = torch.linspace(0, n - 1, min(n, 2 * self._ROWS)).round().long()
        parts = rows.tensor_split(2)
        first, second = ((order.rows((output, target), n, part), len(part)) for part in parts)
        for other in (second, self._last):
            if other is not None and other[1]:
                self._look(first, other, order)
        self._last = first

    def _look(self, first: tuple[Any, int], second: tuple[Any, int], order: Layout) -> None:
        try:
            values = [(order.joined(first, second), first[1] + second[1]), first, second]
            whole, *parts = [
                (self._loss(*value), n if self._count is None else float(self._count(*value))) for value, n in values
            ]
        except Exception:  # parts of other forms, or a loss of whole batches alone
            return
        mean = sum(float(loss) * weight for loss, weight in parts) / sum(weight for _, weight in parts)
        near = tolerance(whole[0]) * max(abs(float(loss)) for loss, _ in (whole, *parts)) + 1e-7
        self.mean = abs(float(whole[0]) - mean) <= near


def tensors_of(value: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Tensor)]


def length(value: Any, axis: int = 0) -> int:
    """The length of the first tensor that has such an axis; 0 for none."""
    return next((t.shape[axis] for t in tensors_of(value) if t.ndim > axis), 0)


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same value with a function applied to its tensors."""
    leaves, rebuilt = flatten(value)
    return rebuilt([function(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


def close(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Equal within rounding, relative to the largest entry."""
    if len(found) != len(expected) or any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return False
    for a, b in zip(found, expected, strict=True):
        if not a.numel():
            continue
        if not (a.is_floating_point() or a.is_complex()):
            if not torch.equal(a, b):
                return False
            continue
        finite = torch.isfinite(b)
        if not torch.equal(torch.isfinite(a), finite):
            return False
        scale = float(b[finite].abs().max()) if finite.any() else 0.0
        if float((a[finite] - b[finite]).abs().max() if finite.any() else 0.0) > tolerance(b) * scale:
            return False
    return True


def tolerance(tensor: Tensor) -> float:
    """What rounding may come to, relative to the largest entry."""
    return max(1e-4, 16 * torch.finfo(tensor.dtype).eps)


def describe(value: Any) -> str:
    """What something is, for messages."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(str, value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"
