"""The precision in which a network is measured.

Half precision is measured in float32. A network's rounding, about 1e-7 of its logits in float32, drowns the rise of a
loss below 1e-2 near its weights, and 1 − p in the curvature of one below 1e-4; the rounding of the loss itself drowns
the rises of one that is large by a constant. Those are measured in a float64 copy.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genbench.measures.products import nodes

if TYPE_CHECKING:
    from genbench.measures.snapshot import Snapshot


def precise(snapshot: "Snapshot", *, moved: bool) -> tuple["Snapshot", str | None]:
    """The network in the precision that rounding asks for where its weights are ``moved``, or its curvature taken; and
    a note where it refuses that, or where that is not enough."""
    lowest = min((p.dtype for p in snapshot.parameters.values()), key=lambda dtype: torch.finfo(dtype).bits)
    loss = abs(snapshot.mean_loss)
    coarse = moved and torch.finfo(lowest).bits >= 32 and snapshot.shared("coarse", lambda: _is_coarse(snapshot))
    small = loss < (1e-2 if moved else 1e-4)
    if lowest == torch.float64:
        own = snapshot.losses[0][0].dtype  # a loss may be of float32 whatever the network is
        narrow = f" and computed in {str(own).removeprefix('torch.')}" if own != torch.float64 else ""
        rounds = coarse or (small and narrow)
        return snapshot, f"the mean loss is {loss:.1e}{narrow}: rounding may show" if rounds else None
    if torch.finfo(lowest).bits < 32:
        wanted = torch.float32
    elif coarse or small:
        wanted = torch.float64
    else:
        return snapshot, None
    view = snapshot.in_precision(wanted)
    if view is None:
        kind = str(wanted).removeprefix("torch.")
        return snapshot, f"the mean loss is {loss:.1e} and the network cannot be computed in {kind}: rounding may show"
    return precise(view, moved=moved)


def _is_coarse(snapshot: "Snapshot") -> bool:
    """Whether the rounding of the loss, ε|L|, is more than a thousandth of what it changes by where each weight is
    changed by about a hundredth, as it is where a loss is large by a constant."""
    loss = snapshot.mean_loss
    types = {p.dtype for p in snapshot.parameters.values()} | {value.dtype for value, _ in snapshot.losses}
    rounding = abs(loss) * max(torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point)
    if rounding < 1e-7:
        return False
    draw = torch.randn(snapshot.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = snapshot.loss_at(snapshot.vector * (1 + 0.01 * draw.to(snapshot.device)))
    return rounding > 1e-3 * abs(there - loss)


def in_precision(snapshot: "Snapshot", dtype: torch.dtype) -> "Snapshot | None":
    """The same network, its weights, buffers, inputs and the loss's own tensors in another floating-point type; None
    where it cannot be computed so, or would be another function."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    loss = copy.deepcopy(snapshot.loss).to(dtype) if isinstance(snapshot.loss, nn.Module) else snapshot.loss
    view = snapshot._view(
        ("probe",),
        loss=loss,
        parameters={name: cast(p) for name, p in snapshot.parameters.items()},
        _fixed={name: cast(t) for name, t in snapshot._fixed.items()},
        _dtype=dtype,
        _leaves={},
    )
    own = max(torch.finfo(p.dtype).eps for p in snapshot.parameters.values())
    try:
        with view.measuring(), view._placed():
            assert view._open.places is not None
            live = view._open.places.parameters.values()
            with _differentiable(live):
                run = view._run(next(iter(view._pieces(next(view._each())))))
                if _reaches(run.loss, set(map(id, live))):
                    return None  # a reference to the network's own tensors, which are of the other type
        if not math.isclose(view.mean_loss, snapshot.mean_loss, rel_tol=max(1e-3, 8 * own), abs_tol=max(1e-4, 4 * own)):
            return None
    except Exception:  # whatever a network does that knows one type only
        return None
    return view


@contextmanager
def _differentiable(tensors: Iterable[Tensor]) -> Iterator[None]:
    """The network's own parameters, so that they show where they are used."""
    before = [(t, t.requires_grad) for t in tensors if t.is_floating_point()]
    for t, _ in before:
        t.requires_grad_(True)
    try:
        yield
    finally:
        for t, required in before:
            t.requires_grad_(required)


def _reaches(loss: Tensor, tensors: set[int]) -> bool:
    """Whether the graph of a loss has one of these tensors among its leaves."""
    return any(id(getattr(node, "variable", None)) in tensors for node in nodes([loss]))
