"""The inputs of a network and of its layers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from genbench.measures.effective_weights import layers
from genbench.measures.evaluation import SLICE, Evaluation
from genbench.measures.examples import EXAMPLES_FIRST, Layout

Shift = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


def at_inputs(evaluation: Evaluation, shift: Shift | None = None) -> Iterator[tuple[tuple[Tensor, ...], Any, Any]]:
    """See :meth:`Snapshot.at_inputs`."""
    layout = evaluation.structure.layout or EXAMPLES_FIRST
    for batch in evaluation.each_batch():
        for piece in evaluation.pieces(batch, SLICE):
            n = evaluation.number_of_examples(piece, layout)
            leaves, rebuilt, axes = layout.apart(piece, n)
            of_target = 0 if evaluation.forward else len(layout.apart((piece[1],), n)[0])
            real = [
                isinstance(leaf, Tensor) and leaf.is_floating_point() and a is not None
                for leaf, a in zip(leaves, axes, strict=True)
            ]
            real[len(real) - of_target :] = [False] * of_target
            inputs = tuple(
                leaf.detach().movedim(axis, 0).clone() for leaf, axis, r in zip(leaves, axes, real, strict=True) if r
            )
            inputs = tuple(x.requires_grad_() for x in (inputs if shift is None else shift(inputs)))
            rest = iter(inputs)
            moved = rebuilt(
                [next(rest).movedim(0, axis) if r else leaf for leaf, axis, r in zip(leaves, axes, real, strict=True)]
            )
            result = evaluation.run(moved)
            yield inputs, result.output, result.target


def why_no_inputs(evaluation: Evaluation) -> str:
    """Why :func:`at_inputs` gives no inputs."""
    layout = evaluation.structure.layout or EXAMPLES_FIRST
    batch = next(evaluation.each_batch())
    leaves, _, axes = layout.apart(batch, evaluation.number_of_examples(batch, layout))
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is not None and isinstance(leaf, list | tuple):
            return "the input is a list with an entry for each example, not one tensor of all"
    return "the input has no real numbers"


def blocks(evaluation: Evaluation, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """See :meth:`Snapshot.blocks`."""
    left: list[tuple[Tensor, Tensor]] = []
    for batch in evaluation.each_batch():
        x, y = batch if evaluation.is_pair(batch) else _given(evaluation, batch)
        tensors = isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim and y.ndim
        if not tensors or evaluation.structure.layout != EXAMPLES_FIRST or len(x) != len(y):
            raise ValueError(
                "batches are of another form; accepted: (inputs [B, ...], targets [B, ...]), or a forward that calls "
                "the model once with inputs [B, ...] and returns its output and targets [B, ...]"
            )
        left.append((x.clone(), y.clone()))  # the loader may use its tensors again
        for kind, several in zip(("inputs", "targets"), zip(*left, strict=True), strict=True):
            if len(shapes := sorted({tuple(t.shape[1:]) for t in several})) > 1:
                raise ValueError(f"{kind} have shapes {shapes[0]} and {shapes[1]}; accepted: the same in all batches")
        if sum(len(y) for _, y in left) >= size:
            x, y = (torch.cat(parts) for parts in zip(*left, strict=True))
            whole = len(y) // size * size
            yield from zip(x[:whole].split(size), y[:whole].split(size), strict=True)
            left = [(x[whole:], y[whole:])] if whole < len(y) else []
    if left:
        x, y = (torch.cat(parts) for parts in zip(*left, strict=True))
        yield x, y


def _given(evaluation: Evaluation, batch: Any) -> tuple[Any, Any]:
    """The one argument that ``forward`` calls the model with, and its target; (None, None) if it calls the model
    otherwise or makes something else of the output."""
    given: list[Any] = []
    outputs: list[Any] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        given.append(args[0].clone() if one else None)  # the model may write into it

    handles = [
        evaluation.model.register_forward_pre_hook(before, with_kwargs=True),
        evaluation.model.register_forward_hook(lambda _module, _args, output: outputs.append(output)),
    ]
    try:
        with evaluation.measuring(), torch.no_grad():
            result = evaluation.run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return (given[0], result.target) if len(given) == 1 and result.output is outputs[0] else (None, None)


def representations(evaluation: Evaluation) -> dict[str, Tensor]:
    """See :attr:`Snapshot.representations`."""
    found: dict[str, list[Tensor]] = {}
    now: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                now.pop(name, None)  # the order is that of the last call
                steps_first = getattr(module, "batch_first", True) is False and args[0].ndim == 3
                now[name] = (args[0].movedim(1, 0) if steps_first else args[0]).detach().clone()

        return hook

    with evaluation.measuring(), torch.no_grad():
        order = Layout((0, 1)) if evaluation.known_layout() != EXAMPLES_FIRST else EXAMPLES_FIRST
        handles = [module.register_forward_pre_hook(keep(name)) for name, module in layers(evaluation).items()]
        try:
            for batch in evaluation.each_batch():
                now.clear()
                output, *_, n = evaluation.run(batch)
                if isinstance(output, Tensor):
                    now["output"] = output
                for name, value in now.items():
                    if (axis := order.axis(value, n)) is not None:
                        found.setdefault(name, []).append(value.movedim(axis, 0))
        finally:
            for handle in handles:
                handle.remove()
    equal = {name: len({part.shape[1:] for part in parts}) == 1 for name, parts in found.items()}
    return {name: torch.cat(parts) if equal[name] else parts[0][:0] for name, parts in found.items()}


def first_input(evaluation: Evaluation) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """See :attr:`Snapshot.first_input`."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))

    with evaluation.measuring(), torch.no_grad():
        layout = evaluation.structure.layout or EXAMPLES_FIRST
        batch = next(evaluation.each_batch())
        if evaluation.is_pair(batch) and (n := evaluation.number_of_examples(batch, layout)):
            return (layout.first(batch, n, 1)[0],), {}
        handle = evaluation.model.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            *_, n = evaluation.run(batch)
        finally:
            handle.remove()
    if not found:
        raise ValueError("forward does not call the model itself; its input is not known")
    return replace(layout, parts=None).first(found[0], n, 1)
