"""The precision in which a network is measured.

Half precision is measured in float32. A network's rounding, about 1e-7 of its logits in float32, hides the rise of a
loss below 1e-2 near its weights, and 1 − p in the curvature of a loss below 1e-4. The rounding of the loss itself hides
the rises of a loss with a large constant. Such losses are measured in a float64 copy.
"""

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from genbench.measures.evaluation import FINDINGS, Evaluation
from genbench.measures.products import nodes

E = TypeVar("E", bound=Evaluation)


def precise(evaluation: E, *, moved: bool) -> tuple[E, str | None]:
    """The network in the precision that it needs, and a note where it has none that is enough.

    Args:
        evaluation: network, loss and data.
        moved: whether the measure moves the weights; else it takes the curvature.
    """
    lowest = min((p.dtype for p in evaluation.parameters.values()), key=lambda dtype: torch.finfo(dtype).bits)
    loss = abs(evaluation.mean_loss)
    coarse = moved and torch.finfo(lowest).bits >= 32 and evaluation.shared("coarse", lambda: _is_coarse(evaluation))
    small = loss < (1e-2 if moved else 1e-4)
    if lowest == torch.float64:
        own = evaluation.losses[0][0].dtype  # a loss may be float32 whatever the network is
        narrow = f" and computed in {str(own).removeprefix('torch.')}" if own != torch.float64 else ""
        rounds = coarse or (small and narrow)
        return evaluation, f"the mean loss is {loss:.1e}{narrow}: rounding may show" if rounds else None
    if torch.finfo(lowest).bits < 32:
        wanted = torch.float32
    elif coarse or small:
        wanted = torch.float64
    else:
        return evaluation, None
    view = in_precision(evaluation, wanted)
    if view is None:
        kind = str(wanted).removeprefix("torch.")
        note = f"the mean loss is {loss:.1e} and the network cannot be computed in {kind}: rounding may show"
        return evaluation, note
    return precise(view, moved=moved)


def movable(evaluation: E) -> E:
    """The network in float32 at least, as half precision rounds small changes of the weights away."""
    small = any(p.dtype in (torch.bfloat16, torch.float16) for p in evaluation.parameters.values())
    return evaluation if evaluation.dtype or not small else in_precision(evaluation, torch.float32) or evaluation


def for_curvature(evaluation: E) -> E:
    """The network in the precision that its curvature needs: of a copy in float64, on which rises are measured, it may
    be the original."""
    source = None if evaluation.source is None else evaluation.source()
    return evaluation if source is None else precise(source, moved=False)[0]


def in_double(evaluation: E) -> E:
    """The network in float64 where it allows, else as it is."""
    return in_precision(evaluation, torch.float64) or evaluation


def in_precision(evaluation: E, dtype: torch.dtype) -> E | None:
    """The same network in another floating-point dtype: its weights, buffers, inputs and the loss's own tensors.

    None where the network fails in that dtype, or computes another function.
    """
    return evaluation.shared(("in", dtype), lambda: _in_precision(evaluation, dtype))


def _is_coarse(evaluation: Evaluation) -> bool:
    """Whether the rounding of the loss, ε|L|, is more than a thousandth of its change when each weight changes by about
    a hundredth, as for a loss with a large constant."""
    loss = evaluation.mean_loss
    types = {p.dtype for p in evaluation.parameters.values()} | {value.dtype for value, _ in evaluation.losses}
    rounding = abs(loss) * max(torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point)
    if rounding < 1e-7:
        return False
    noise = torch.randn(evaluation.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = evaluation.vector * (1 + 0.01 * noise.to(evaluation.device))
    return rounding > 1e-3 * abs(evaluation.loss_with(evaluation.split(near)) - loss)


def _in_precision(evaluation: E, dtype: torch.dtype) -> E | None:
    loss = deepcopy(evaluation.loss).to(dtype) if isinstance(evaluation.loss, nn.Module) else evaluation.loss
    # the second derivative is compared in float64 whatever the precision of the network
    view = evaluation.in_dtype(dtype, (*FINDINGS, "second derivative"), loss=loss)
    own = max(torch.finfo(p.dtype).eps for p in evaluation.parameters.values())
    view.source = weakref.ref(evaluation)  # it holds the view, and both may hold large graphs
    near = {"rel_tol": max(1e-3, 8 * own), "abs_tol": max(1e-4, 4 * own)}
    try:
        with view.measuring(), view.placed() as leaves:
            live = view.live.parameters.values()
            with _differentiable(live):
                result = view.run(next(iter(view.pieces(next(view.each_batch())))))
                if _depends(result.loss, set(map(id, live))):
                    return None  # something refers to the network's own tensors, which are of the other dtype
                if result.loss.requires_grad:  # some losses have a value in mixed dtypes and no gradient, as Huber's
                    torch.autograd.grad(result.loss, tuple(leaves.values()), allow_unused=True)
        if not math.isclose(view.mean_loss, evaluation.mean_loss, **near):
            return None
    except Exception:  # any failure of a network that knows one dtype only
        return None
    return view


@contextmanager
def _differentiable(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Let the live parameters require gradients, so that a graph shows where they are used."""
    before = [(t, t.requires_grad) for t in tensors if t.is_floating_point()]
    for t, _ in before:
        t.requires_grad_(True)
    try:
        yield
    finally:
        for t, required in before:
            t.requires_grad_(required)


def _depends(loss: Tensor, tensors: set[int]) -> bool:
    """Whether the graph of a loss has one of these tensors, by their ids, among its leaves."""
    return any(id(getattr(node, "variable", None)) in tensors for node in nodes([loss]))
