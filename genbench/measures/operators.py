"""Products with the curvature of the mean loss over all batches, over graphs that are kept within the free memory."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genbench.im2col import Im2col
from genbench.measures.batch_structure import EXAMINED
from genbench.measures.batches import Batches
from genbench.measures.examples import mean_of, tolerance
from genbench.measures.products import Curvature, Product, flat, hessian
from genbench.process.memory import Allocated, room

if TYPE_CHECKING:
    from genbench.measures.snapshot import Snapshot

Graph = tuple[float, Product]  # share of the examples, product with the curvature of their mean loss

SLICE = 1024  # examples
_STEP = 1e-6  # relative, of the difference of two gradients
_SHARE = 0.25  # of the memory that is free, for graphs that are kept


@dataclass
class _Kept:
    """Graphs that serve every product, by batch and part; ``size`` is the examples of a part, 0 while it is not known,
    ``each`` the bytes of an example, ``room`` those that may be held."""

    graphs: dict[tuple[int, int], Graph] = field(default_factory=dict)
    state: tuple[Any, ...] = ()
    complete: bool = False
    size: int = 0
    each: int = 1
    room: int = 0
    held: int = 0

    def is_of(self, state: tuple[Any, ...]) -> bool:
        return bool(self.state) and self.state[0] == state[0] and all(map(is_, self.state[1], state[1]))

    def clear(self, state: tuple[Any, ...]) -> None:
        self.graphs.clear()
        self.state, self.complete, self.held = state, False, 0


class _Unsliceable(Exception):
    """The loss of a batch is not the mean of its parts'."""


def allowed(device: torch.device) -> int:
    """Bytes that graphs may take."""
    return int(_SHARE * room(device))


def product_with(snapshot: "Snapshot", vector: Tensor, curvature: Curvature) -> Tensor:
    with snapshot.measuring():
        v = tuple(snapshot._split(vector).values())
        kept: _Kept = snapshot.shared(f"graphs of {curvature.__name__}", _Kept)
        while True:
            try:
                found = _summed(snapshot, v, curvature, kept)
                snapshot._tick()
                return found
            except _Unsliceable:
                kept.clear(())
                kept.size = sys.maxsize


def _summed(snapshot: "Snapshot", v: tuple[Tensor, ...], curvature: Curvature, kept: _Kept) -> Tensor:
    whole = snapshot.losses  # the first pass refuses what cannot be measured
    total = torch.zeros(snapshot.size, dtype=torch.float64, device=snapshot.device)
    with snapshot._placed() as leaves:
        state = _state_of(snapshot, leaves)
        if not kept.is_of(state):
            kept.clear(state)
        if kept.complete:  # the data need not be read again
            for share, product in kept.graphs.values():
                total += share * flat(product(v))
            return total
        made = 0
        for index, batch in enumerate(snapshot._each()):
            if not kept.size:
                _allot(snapshot, kept, batch, curvature, leaves)
            for share, product in _graphs(snapshot, index, batch, whole[index][0], curvature, kept, leaves):
                total += share * flat(product(v))
                made += 1
                del product  # before the next is built
        kept.complete = made == len(kept.graphs)
    return total


def _allot(snapshot: "Snapshot", kept: _Kept, batch: Any, curvature: Curvature, leaves: Mapping[str, Tensor]) -> None:
    """How many examples a graph is of, and how many of them may be kept: from what that of a few allocates."""
    probe, n = snapshot._probe, snapshot.losses[0][1]
    sliced = snapshot.forward is None and snapshot._dividable
    m = min(n, EXAMINED // 2) if sliced else n
    some = probe.layout.first(batch, n, m) if sliced and probe.layout else batch
    with Allocated() as allocated, Im2col():
        run = snapshot._run(some)
        curvature(snapshot.loss, run.output, run.target, run.loss, leaves)
    snapshot.shared("second derivative", lambda: _check_second(snapshot, some))
    kept.each = max(1, allocated.bytes // max(1, m))
    kept.room = allowed(snapshot.device)
    kept.size = max(1, min(SLICE if snapshot.device.type == "cpu" else sys.maxsize, kept.room // (4 * kept.each)))


def _check_second(snapshot: "Snapshot", some: Any) -> None:
    """Compares a product with the Hessian of a few examples with differences of the gradient, in float64 where the
    network can be computed so: a backward pass that leaves autograd, or a hook that does, gives right gradients and
    wrong products. There is no verdict where

    - differences over h, 2 h and −h disagree: a ReLU is switched between them, or has its kink at the weights
      themselves, as a unit whose weights have decayed to nothing;
    - the gradient is not the loss's, whose differences it disagrees with: the row of an embedding's padding has none,
      and a rounding that is passed straight through has another. Products are of this gradient, where its derivative
      is symmetric.
    """
    few = snapshot._view(("vector", "probe"), _passes=Batches([some]))
    exact = few if _is_double(few) else few.in_precision(torch.float64)
    if exact is None:
        return
    w = exact.vector
    draw = torch.randn(len(w), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(w.device)
    v = draw * (w.norm() / math.sqrt(len(w)) or 1.0)
    with exact.measuring(), exact.watched(None):  # a few examples are no pass over the data
        batch = next(exact._each())
        with exact._placed() as leaves, Im2col():
            run = exact._run(batch)
            if not torch.equal(flat(leaves.values()), w):  # a forward pass that writes its weights
                return
            product = flat(
                hessian(exact.loss, run.output, run.target, run.loss, leaves)(tuple(exact._split(v).values()))
            )
        _, slope = exact.gradient_at(w)
        (above, up), (_, far), (below, down) = (exact.gradient_at(w + h * v) for h in (_STEP, 2 * _STEP, -_STEP))
    ahead, twice, behind = (up - slope) / _STEP, (far - slope) / (2 * _STEP), (slope - down) / _STEP
    size = max(float(ahead.norm()), float(product.norm()))
    smooth = max(float((ahead - other).norm()) for other in (twice, behind)) <= 1e-3 * size
    typical = float(slope.norm() * v.norm()) / math.sqrt(len(w))  # of the derivative along a random direction
    true = abs((above - below) / (2 * _STEP) - float(slope @ v)) <= 1e-3 * typical
    off = float((ahead - product).norm())
    if smooth and true and off > 1e-2 * size:
        raise ValueError(
            "the network has no second derivative that autograd knows: its products differ by "
            f"{off / size:.0%} from differences of the gradient, as where a backward pass "
            "or a hook detaches what it computes"
        )


def _is_double(snapshot: "Snapshot") -> bool:
    return all(p.dtype == torch.float64 for p in snapshot.parameters.values())


def _graphs(
    snapshot: "Snapshot",
    index: int,
    batch: Any,
    loss: Tensor,
    curvature: Curvature,
    kept: _Kept,
    leaves: Mapping[str, Tensor],
) -> Iterator[Graph]:
    """The curvature of one batch, part by part: parts stay in the processor's cache, and fit into memory."""
    total: float = sum(snapshot._shared["weights"])
    losses: list[tuple[Tensor, float]] = []
    pieces = snapshot._pieces(batch, kept.size)
    for part, piece in enumerate(pieces):
        if (index, part) in kept.graphs:
            yield kept.graphs[index, part]
            continue
        with Im2col():
            run = snapshot._run(piece)
        losses.append((run.loss.detach(), run.weight))
        if not run.weight:
            continue
        if part + 1 == len(pieces) == len(losses) > 1:
            near = tolerance(loss) * abs(float(loss)) + 1e-6
            if abs(mean_of(losses) - float(loss)) > near:
                raise _Unsliceable
        graph = run.weight / total, curvature(snapshot.loss, run.output, run.target, run.loss, leaves)
        if kept.held + run.n * kept.each <= kept.room:
            kept.graphs[index, part] = graph
            kept.held += run.n * kept.each
        yield graph
        del graph, run


def _state_of(snapshot: "Snapshot", leaves: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """What a kept graph depends on: it refers to the network's own tensors, which training changes in place, and
    which other types or devices give other leaves."""
    assert snapshot._open.places is not None
    versions = tuple(t._version for t in snapshot._open.places.tensors.values())
    return versions, tuple(torch.autograd.graph.get_gradient_edge(p).node for p in leaves.values())
