"""Find out, on a few examples, how a network and its loss treat the examples of a batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.measures.examples import (
    EXAMPLES_FIRST,
    LAYOUTS,
    Layout,
    close,
    equal_means,
    is_sum,
    length,
    tensors_of,
)
from genbench.measures.random_state import restoring_random_state, seed_all
from genbench.process.memory import Allocated

EXAMINED = 32  # examples


class BatchResult(NamedTuple):
    """The result of one batch: ``weight`` is its weight in the mean over the batches, ``n`` its number of examples."""

    output: Any
    target: Any
    loss: Tensor
    weight: float
    n: int


class BatchStructure(NamedTuple):
    """How a network and its loss treat the examples of a batch.

    Attributes:
        layout: where the examples lie; None if that cannot be told.
        independent: an example's output does not depend on the others.
        mean: the loss is the mean over the examples, weighted by their counts.
        bytes: allocated by a forward pass, for one example.
        examples: number of examples that were examined.
        seen: the outputs have an axis of examples.
        shared: indices of the parts that all examples share although they are as long as the batch.
    """

    layout: Layout | None
    independent: bool = True
    mean: bool = True
    bytes: int = 0
    examples: int = 0
    seen: bool = True
    shared: tuple[int, ...] = ()


class _Random(ValueError):
    """The network draws random numbers."""


def find_structure(run: Callable[[Any, Layout], BatchResult], batch: Any, *, pair: bool) -> BatchStructure:
    """Find the structure of a batch, which is a ``pair`` (input, target) or anything else.

    Takes the parts that are as long as the batch for its examples. If the network computes some of these examples
    differently from all, takes some parts for shared by all examples: prototypes, a graph, a codebook.

    Raises:
        ValueError: the network draws random numbers, or the loss is the sum over the examples.
    """
    examination, known = _Examination(run), pair and isinstance(batch[1], Tensor)
    with torch.no_grad():
        coupled: list[BatchStructure] = []
        seen: list[Any] = []
        for axes in LAYOUTS:
            try:
                n = (length(batch[1], axes.target) if known else 0) or run(batch, axes).n
                choices = enumerate(axes.choices(batch, n))
            except Exception:  # a batch without examples in such an axis
                continue
            for index, layout in choices:
                key = layout.target, n, layout.parts
                if key in seen or not layout.parts or all(axis is None for axis in layout.parts):
                    continue
                seen.append(key)
                try:
                    probe = examination.in_layout(layout, batch, n)
                except _Random:
                    raise
                except Exception:  # a batch that cannot be taken apart so
                    continue
                if probe.independent and (index == 0 or (probe.mean and probe.seen)):
                    examination.refuse_sum(probe, batch)
                    _, _, long = replace(layout, parts=None).apart(batch, n)
                    shared = [i for i, a in enumerate(long) if a is not None and layout.parts[i] is None]
                    return probe._replace(shared=tuple(shared))
                if index == 0:
                    coupled.append(probe)
        examination.refuse_random(batch, run(batch, EXAMPLES_FIRST), EXAMPLES_FIRST)
        if len(coupled) == 1 and coupled[0].layout == EXAMPLES_FIRST:  # examples that are coupled, as by batch norm
            return coupled[0]
        return BatchStructure(None, independent=False, mean=False)


class _Examination:
    def __init__(self, run: Callable[[Any, Layout], BatchResult]) -> None:
        self._run = run

    def in_layout(self, layout: Layout, batch: Any, n: int) -> BatchStructure:
        """Examine a batch of ``n`` in one layout; raises whatever the network raises on some of these examples."""
        rows = torch.linspace(0, n - 1, min(n, EXAMINED)).round().long()
        some = layout.rows(batch, n, rows)
        with Allocated() as allocated:
            whole = self._run(some, layout)
        if whole.n != len(rows):
            raise ValueError("not the examples")
        each = allocated.bytes // max(1, len(rows))
        self.refuse_random(some, whole, layout)
        if len(rows) == 1:
            parts, _, axes = layout.apart(batch, n)
            known = all(a is not None for p, a in zip(parts, axes, strict=True) if isinstance(p, Tensor) and p.ndim)
            return BatchStructure(layout, independent=known, bytes=each, examples=1)
        half = len(rows) // 2
        halves = torch.arange(half), torch.arange(half, len(rows))
        runs = [self._run(layout.rows(some, len(rows), part), layout) for part in halves]
        independent = all(
            run.n == len(part)
            and close(
                layout.of_output(run.output, len(part), torch.arange(len(part))),
                layout.of_output(whole.output, len(rows), part),
            )
            for run, part in zip(runs, halves, strict=True)
        )
        mean = equal_means((whole.loss, whole.weight), [(run.loss, run.weight) for run in runs])
        mean = mean and not is_sum(whole.loss, [run.loss for run in runs])
        seen = bool(layout.of_output(whole.output, len(rows), halves[0]))
        return BatchStructure(layout, independent, mean, each, len(rows), seen)

    def refuse_sum(self, probe: BatchStructure, batch: Any) -> None:
        """Refuse a loss that is a sum over the examples: every measure would be wrong by a factor."""
        layout = probe.layout
        if probe.mean or layout is None:
            return
        n = self._run(batch, layout).n
        both, *parts = (
            self._run(layout.rows(batch, n, torch.tensor(rows)), layout).loss for rows in ([0, n - 1], [0], [n - 1])
        )
        if is_sum(both, parts):
            raise ValueError("loss is the sum over the examples of a batch; accepted: their mean (reduction='mean')")

    def refuse_random(self, batch: Any, run: BatchResult, layout: Layout) -> None:
        """Refuse a network whose output depends on the random seed."""
        with restoring_random_state():
            seed_all(torch.initial_seed() % 2**31 + 1)
            again = self._run(batch, layout)
        if not close([*tensors_of(again.output), again.loss], [*tensors_of(run.output), run.loss]):
            raise _Random(
                "model draws random numbers in evaluation mode (dropout left on?): its output differs from pass to "
                "pass; it cannot be measured"
            )
