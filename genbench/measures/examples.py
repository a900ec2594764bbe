"""Locate the examples of a batch, take some of them out, and average losses over them."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from genbench.measures.pytree import flatten


@dataclass(frozen=True)
class Layout:
    """The axes that hold the examples of a batch.

    In a tensor of the input it is the first of ``axes`` that is as long as the batch, in target and output the axis
    ``target``. A list of that length has one entry an example, unless it is a list of such tensors. A part without such
    an axis belongs to every example.

    A length may equal that of the batch by chance. ``parts`` holds the axis of each part as found by more than its
    length, None for a part that belongs to every example; ``lists`` tells whether lists are parts.
    """

    axes: tuple[int, ...]
    target: int = 0
    parts: tuple[int | None, ...] | None = field(default=None, compare=False)
    lists: bool | None = field(default=None, compare=False)

    def count(self, output: Any, target: Any, given: Any = (), lists: int = 1) -> int:
        """The number of examples: the length of the target, or of the output if the target has none; 0 for neither.

        A target that is a list, but not of one tensor for each output, has one entry an example. If the output is a
        list too, this holds only if the input ``given`` has something of that length, or so many ``lists``.
        """
        if isinstance(target, Tensor) and target.ndim > self.target:
            return target.shape[self.target]
        lengths = {t.shape[self.target] for t in tensors_of(target) if t.ndim > self.target}
        of_output = length(output, self.target)
        entries = len(output) if isinstance(output, _LISTS) else of_output
        listed = isinstance(target, _LISTS) and len(target) == entries and lengths != {of_output}
        if listed and (not isinstance(output, _LISTS) or _has(given, entries, lists)):
            return entries
        return length(target, self.target) or of_output

    def axis(self, leaf: Any, n: int) -> int | None:
        """The axis of a part that is as long as the batch, or None."""
        if isinstance(leaf, _LISTS):
            return 0 if len(leaf) == n else None
        if isinstance(leaf, Tensor):
            return next((a for a in self.axes if leaf.ndim > a and leaf.shape[a] == n), None)
        return None

    def apart(self, value: Any, n: int) -> tuple[list[Any], Callable[[Iterable[Any]], Any], list[int | None]]:
        """The parts of a batch of ``n``, a function that rebuilds it, and the axis of the examples in each part."""

        def whole(part: Any) -> bool:
            if part is value or not isinstance(part, _LISTS) or hasattr(part, "_fields") or len(part) != n:
                return False
            if self.lists is not None:
                return self.lists
            tensors = tensors_of(part)
            return not tensors or any(self.axis(tensor, n) is None for tensor in tensors)

        parts, rebuilt = flatten(value, whole)
        axes = [self.axis(part, n) for part in parts]
        if self.parts is not None and len(self.parts) == len(parts):
            axes = [
                a if a is not None and _long(part, a) == n else None for part, a in zip(parts, self.parts, strict=True)
            ]
        return parts, rebuilt, axes

    def choices(self, value: Any, n: int) -> Iterator["Layout"]:
        """Candidates of this layout with a fixed axis for each part of a batch: first the axes as long as the batch,
        then other axes or none for some parts, few parts first."""
        seen = set()
        for lists in (None, True, False):  # a list may be as long as the batch, or as the tensors in it, by chance
            parts, _, axes = replace(self, lists=lists).apart(value, n)
            has_lists = any(isinstance(part, _LISTS) for part in parts)
            if has_lists not in seen:
                yield from (replace(self, parts=own, lists=has_lists) for own in self._choices(parts, axes, n))
            seen.add(has_lists)

    def _choices(self, parts: list[Any], axes: list[int | None], n: int) -> Iterator[tuple[int | None, ...]]:
        others: list[list[tuple[int, int | None]]] = []
        for i, (part, a) in enumerate(zip(parts, axes, strict=True)):
            if a is not None:
                long = [other for other in self.axes if other != a and _long(part, other) == n]
                others.append([(i, other) for other in (*long, None)])
        for changed in range(min(len(others), 3)):
            for places in combinations(others, changed):
                for changes in product(*places):
                    found = list(axes)
                    for i, a in changes:
                        found[i] = a
                    yield tuple(found)

    def of_all(self, batches: Sequence[tuple[Any, int]]) -> "Layout":
        """This layout with the axes that are as long as the batch in all of several (batch, number of examples)."""
        if not batches:
            return self
        lists = any(isinstance(part, _LISTS) for value, n in batches for part in self.apart(value, n)[0])
        found = replace(self, lists=lists)
        found = replace(found, parts=tuple(found.apart(*batches[0])[2]))
        for value, n in batches[1:]:
            found = found.fitting(value, n)
        return found

    def fitting(self, value: Any, n: int) -> "Layout":
        """This layout without the axes whose length differs from that of a further batch of ``n``."""
        if self.parts is None:
            return self
        parts, _, axes = self.apart(value, n)
        known = len(parts) == len(self.parts)
        return replace(self, parts=tuple(axes)) if known and tuple(axes) != self.parts else self

    def rows(self, value: Any, n: int, rows: Tensor) -> Any:
        """Some examples of a batch of ``n``."""
        parts, rebuilt, axes = self.apart(value, n)
        return rebuilt([_rows(part, a, rows) for part, a in zip(parts, axes, strict=True)])

    def first(self, value: Any, n: int, m: int) -> Any:
        """The first ``m`` examples of a batch of ``n``, as views."""
        return next(self.split(value, n, m))

    def split(self, value: Any, n: int, size: int) -> Iterator[Any]:
        """A batch of ``n`` examples in parts of ``size``, as views, the last one smaller."""
        parts, rebuilt, axes = self.apart(value, n)
        for start in range(0, n, size):
            end = min(start + size, n)
            yield rebuilt([between(part, a, start, end) for part, a in zip(parts, axes, strict=True)])

    def joined(self, first: tuple[Any, int], second: tuple[Any, int]) -> Any:
        """Join two (value, number of examples) into one value."""
        (ours, rebuilt, axes), (theirs, _, others) = self.apart(*first), self.apart(*second)
        if axes != others:
            raise ValueError("values of other forms")
        pairs = list(zip(ours, theirs, axes, strict=True))
        if any(a is None and not _equal(x, y) for x, y, a in pairs):
            raise ValueError("what belongs to every example is another one")
        return rebuilt(
            a if i is None else torch.cat([a, b], i) if isinstance(a, Tensor) else a + b for a, b, i in pairs
        )

    def of_output(self, value: Any, n: int, rows: Tensor) -> list[Tensor]:
        """Some rows of those tensors of an output that have one row an example."""
        parts, _, axes = self.outputs.apart(value, n)
        return [
            tensor
            for part, a in zip(parts, axes, strict=True)
            if a is not None
            for tensor in tensors_of(_rows(part, a, rows))
        ]

    @property
    def outputs(self) -> "Layout":
        """The axes of outputs and targets."""
        return Layout((self.target, 1 - self.target), self.target, lists=None if self.lists else self.lists)


def between(part: Any, axis: int | None, start: int, end: int) -> Any:
    """A part of a batch for some of its examples in a row, as a view."""
    if axis is None:
        return part
    return part.narrow(axis, start, end - start) if isinstance(part, Tensor) else part[start:end]


def _rows(part: Any, axis: int | None, rows: Tensor) -> Any:
    if axis is None:
        return part
    if isinstance(part, Tensor):
        return part.index_select(axis, rows.to(part.device))
    return type(part)(part[row] for row in rows.tolist())


def _has(value: Any, n: int, lists: int) -> bool:
    """Whether a value has a tensor with ``n`` in its first two axes, or at least ``lists`` lists of that length."""
    parts, _ = flatten(value, lambda part: part is not value and isinstance(part, _LISTS) and len(part) == n)
    found = sum(isinstance(part, _LISTS) for part in parts)
    return found >= lists or any(isinstance(part, Tensor) and n in part.shape[:2] for part in parts)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a is b or bool(a == b)


def _long(part: Any, axis: int) -> int:
    """The length of a part along an axis; −1 without such an axis."""
    if isinstance(part, Tensor):
        return part.shape[axis] if part.ndim > axis else -1
    return len(part) if axis == 0 else -1


_LISTS = (list, tuple)
NO_COUNT = "count is 0 for every batch; accepted: what a batch counts in the mean, for one of them more than 0"
_UNCHANGED = (str, bytes, int, float, complex, type(None))
EXAMPLES_FIRST = Layout((0,))
LAYOUTS = (EXAMPLES_FIRST, Layout((1, 0)), Layout((1, 0), 1))  # time first, in the inputs or in the targets too


class Samples:
    """Find out, on samples of outputs and targets, whether a loss is the mean over the examples.

    Weights of classes or padding make it another mean, which may show between batches only.

    Attributes:
        mean: whether the loss of two parts together was always their mean, each counted as ``count`` says.
        coupled: whether the loss of some examples was outside the range of the losses of each alone, so that it is no
            mean of theirs under any weights.
    """

    _ROWS = 16  # of a batch, that are joined with those of the batch before
    _SMALL = 1e-3  # a loss below it is compared at smaller outputs, since its rounding hides what it counts

    def __init__(self, loss: Callable[[Any, Any], Tensor], count: Callable[[Any, Any], Any] | None) -> None:
        self._loss, self._count = loss, count
        self._last: tuple[tuple[Any, int], tuple[Tensor, float]] | None = None
        self.mean, self.coupled = True, False

    def add(self, value: tuple[Any, Any], n: int, found: tuple[Tensor, float], layout: Layout | None) -> None:
        """Add the (output, target) of a batch with its (loss, weight) ``found``.

        One rare class or padded token may be anywhere: compares the halves of every batch, and some of its rows joined
        with some of the batch before.
        """
        if not (self.mean and layout):
            return
        order, half = layout.outputs, n // 2
        try:
            if abs(float(found[0])) < self._SMALL:
                value, found = self._at_smaller_outputs(value, n) or (value, found)
            if half:
                parts = zip(order.split(value, n, n - half), (n - half, half), strict=True)
                self.mean = equal_means(found, [self._of(*part) for part in parts])
            rows = torch.linspace(0, n - 1, min(n, self._ROWS)).round().long()
            some = order.rows(value, n, rows), len(rows)
            ours, before, self._last = self._of(*some), self._last, None
            self._last = some, ours
            if self.mean and before is not None:
                both = self._of(order.joined(some, before[0]), some[1] + before[0][1])
                self.mean = equal_means(both, [ours, before[1]])
            if not self.mean:
                alone = [float(self._loss(*part)) for part in order.split(some[0], some[1], 1)]
                known = [loss for loss in alone if math.isfinite(loss)]  # the mean over no tokens is not
                rounding = 1e-3 * max(map(abs, known), default=0.0)
                whole = float(ours[0])
                self.coupled = not known or not min(known) - rounding <= whole <= max(known) + rounding
        except Exception:  # parts of other forms, or a loss of whole batches alone
            return

    def _at_smaller_outputs(
        self, value: tuple[Any, Any], n: int
    ) -> tuple[tuple[Any, Any], tuple[Tensor, float]] | None:
        """The value with outputs in [−1, 1], and its (loss, weight); None where the loss takes no such outputs."""
        outputs = [t for t in tensors_of(value[0]) if t.is_floating_point() and t.numel()]
        largest = max((float(t.abs().max()) for t in outputs), default=0.0)
        smaller = mapped(lambda t: t / max(1.0, largest) if t.is_floating_point() else t, value[0]), value[1]
        try:
            found = self._of(smaller, n)
        except Exception:
            return None
        return (smaller, found) if math.isfinite(float(found[0])) else None

    def _of(self, value: Any, n: int) -> tuple[Tensor, float]:
        return self._loss(*value), n if self._count is None else float(self._count(*value))


def mean_of(values: Sequence[tuple[Tensor, float]]) -> float:
    """Σ weight·loss / Σ weight, summed in float64; losses of weight 0 (the mean over no tokens) are left out."""
    values = [value for value in values if value[1]]
    if not values:
        raise ValueError(NO_COUNT)
    losses = torch.stack([loss.detach() for loss, _ in values]).double()
    weights = torch.tensor([weight for _, weight in values], dtype=torch.float64, device=losses.device)
    return float((losses * weights).sum() / weights.sum())


def equal_means(whole: tuple[Tensor, float], parts: Iterable[tuple[Tensor, float]]) -> bool:
    """Whether a loss is the weighted mean of its parts' losses, within rounding; parts of weight 0 are ignored."""
    counted = [(float(loss), weight) for loss, weight in parts if weight]
    if not counted or not whole[1]:
        return True
    mean = sum(loss * weight for loss, weight in counted) / sum(weight for _, weight in counted)
    value = float(whole[0])
    return abs(value - mean) <= tolerance(whole[0]) * max(abs(value), *(abs(loss) for loss, _ in counted)) + 1e-7


def is_sum(whole: Tensor, parts: Iterable[Tensor]) -> bool:
    """Whether a loss is the sum of its parts' losses, however small it is."""
    return bool(whole != 0) and math.isclose(float(whole), sum(map(float, parts)), rel_tol=1e-4)


def tensors_of(value: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Tensor)]


def length(value: Any, axis: int = 0) -> int:
    """The length of the first tensor that has such an axis; 0 for none."""
    return next((t.shape[axis] for t in tensors_of(value) if t.ndim > axis), 0)


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same value with a function applied to its tensors."""
    leaves, rebuilt = flatten(value)
    return rebuilt([function(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


def copied(value: Any) -> Any:
    """Copy the tensors of a value, and other objects if they can be copied: a network may change its input."""
    leaves, rebuilt = flatten(value)
    return rebuilt([leaf.clone() if isinstance(leaf, Tensor) else _copied(leaf) for leaf in leaves])


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, _UNCHANGED):
        return leaf
    try:
        return copy.deepcopy(leaf)
    except Exception:  # it holds something that cannot be copied
        return leaf


def close(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether tensors are equal within rounding, relative to the largest entry."""
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
    """The bound of rounding errors, relative to the largest entry."""
    return max(1e-4, 16 * torch.finfo(tensor.dtype).eps)


def describe(value: Any) -> str:
    """A short description of a value, for messages."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(str, value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"
