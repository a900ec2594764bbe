"""The Hessian, the Gauss–Newton and the Fisher matrix of the mean loss over all batches, as linear operators."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genbench.im2col import Im2col
from genbench.measures.batch_structure import EXAMINED
from genbench.measures.batches import Batches
from genbench.measures.evaluation import FINDINGS, SLICE, Evaluation, graph_memory
from genbench.measures.examples import mean_of, tolerance
from genbench.measures.precision import in_precision, movable
from genbench.measures.products import NO_SECOND, Curvature, Product, flat, hessian
from genbench.process.memory import Allocated

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Graph = tuple[float, Product]  # weight of some examples, product with the curvature of their mean loss
Tensors = tuple[Tensor, ...]

_STEP = 1e-6  # relative, of the difference of two gradients


class CurvatureOperator:
    """A symmetric curvature matrix C(w) [size, size] of the mean loss, known by its products.

    Products are computed in the precision of the weights, in float32 at least, and returned in float64. The graphs of
    the gradient are kept as far as a quarter of the free memory holds them; the others are built anew for each product.

    Args:
        evaluation: network, loss and data.
        curvature: product with the curvature of one batch's loss, see :mod:`genbench.measures.products`.
        name: of the matrix; operators of one evaluation and name share their graphs.
    """

    def __init__(self, evaluation: Evaluation, curvature: Curvature, *, name: str) -> None:
        self.name = name
        self._evaluation, self._curvature = evaluation, curvature

    @property
    def shape(self) -> tuple[int, int]:
        """(size, size), the number of trainable parameters twice."""
        return self._evaluation.size, self._evaluation.size

    def matvec(self, vector: Tensor) -> Tensor:
        """C · ``vector``, [size] float64.

        Raises:
            ValueError: a vector of another shape, a network without a second derivative, or a product that is not
                finite.
        """
        if vector.shape != self.shape[:1]:
            raise ValueError(f"vector has shape {tuple(vector.shape)}; accepted: {self.shape[:1]}")
        return self._products([vector])[0]

    def matmat(self, matrix: Tensor) -> Tensor:
        """C · ``matrix``, [size, k] float64: the products with k columns in one pass over the data.

        Raises:
            ValueError: a matrix of another shape, a network without a second derivative, or a product that is not
                finite.
        """
        if matrix.ndim != 2 or len(matrix) != self.shape[0]:
            raise ValueError(f"matrix has shape {tuple(matrix.shape)}; accepted: ({self.shape[0]}, columns)")
        return self._products(list(matrix.unbind(1))).T

    def to_scipy(self) -> "LinearOperator":
        """The operator for SciPy's solvers: float64 arrays on the CPU.

        Example:
            >>> from genbench.measures import Snapshot
            >>> from scipy.sparse.linalg import eigsh
            >>> batches = [(torch.eye(2), torch.ones(2, 1))]
            >>> snapshot = Snapshot(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss, batches)
            >>> eigsh(snapshot.hessian.to_scipy(), k=1)[0].round(3)
            array([3.])
        """
        from scipy.sparse.linalg import LinearOperator

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(array, dtype=np.float64)).to(self._evaluation.device)

        def matvec(array: np.ndarray) -> np.ndarray:
            return self.matvec(on_device(array).reshape(-1)).cpu().numpy()

        def matmat(array: np.ndarray) -> np.ndarray:
            return self.matmat(on_device(array)).cpu().numpy()

        return LinearOperator(
            self.shape, matvec=matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat, dtype=np.dtype(np.float64)
        )

    def _products(self, vectors: Sequence[Tensor]) -> Tensor:
        """The products as rows [k, size]."""
        evaluation = movable(self._evaluation)
        with evaluation.measuring():
            columns = [tuple(evaluation.split(vector).values()) for vector in vectors]
            kept: _Kept = evaluation.shared(f"graphs of {self.name}", _Kept)
            while True:
                try:
                    found = _summed(evaluation, columns, self._curvature, kept)
                    evaluation.count_pass()
                    if not torch.isfinite(found).all():
                        raise ValueError("a product with the curvature matrix is not finite")
                    return found
                except NotImplementedError as error:
                    if "derivative" not in str(error):
                        raise
                    raise ValueError(NO_SECOND) from error
                except _Unsliceable:
                    kept.clear(())
                    kept.size = sys.maxsize


@dataclass
class _Kept:
    """Graphs that serve every product, by (batch, part).

    ``size`` is the number of examples of a part, 0 while unknown; ``each`` the bytes of an example's graph, ``held``
    those that are kept, ``room`` those that may be.
    """

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


def _summed(evaluation: Evaluation, columns: Sequence[Tensors], curvature: Curvature, kept: _Kept) -> Tensor:
    whole = evaluation.losses  # the first pass refuses what cannot be measured
    total = torch.zeros(len(columns), evaluation.size, dtype=torch.float64, device=evaluation.device)
    with evaluation.placed() as leaves:
        state = _state_of(evaluation, leaves)
        if not kept.is_of(state):
            kept.clear(state)
        if kept.complete:  # the data need not be read again
            for graph in kept.graphs.values():
                _add(total, graph, columns)
            return total
        made = 0
        for index, batch in enumerate(evaluation.each_batch()):
            if not kept.size:
                _allot(evaluation, kept, batch, curvature, leaves)
            for graph in _graphs(evaluation, index, batch, whole[index][0], curvature, kept, leaves):
                _add(total, graph, columns)
                made += 1
                del graph  # before the next is built
        kept.complete = made == len(kept.graphs)
    return total


def _add(total: Tensor, graph: Graph, columns: Sequence[Tensors]) -> None:
    weight, product = graph
    for row, v in zip(total, columns, strict=True):
        row += weight * flat(product(v))


def _allot(evaluation: Evaluation, kept: _Kept, batch: Any, curvature: Curvature, leaves: Mapping[str, Tensor]) -> None:
    """Set the number of examples of a graph and the bytes to keep, from what the graph of a few examples allocates."""
    structure, n = evaluation.structure, evaluation.losses[0][1]
    sliced = evaluation.forward is None and evaluation.divisible
    m = min(n, EXAMINED // 2) if sliced else n
    some = structure.layout.first(batch, n, m) if sliced and structure.layout else batch
    with Allocated() as allocated, Im2col():
        result = evaluation.run(some)
        curvature(evaluation.loss, result.output, result.target, result.loss, leaves)
    evaluation.shared("second derivative", lambda: _check_second(evaluation, some))
    kept.each = max(1, allocated.bytes // max(1, m))
    kept.room = graph_memory(evaluation.device)
    kept.size = max(1, min(SLICE if evaluation.device.type == "cpu" else sys.maxsize, kept.room // (4 * kept.each)))


def _check_second(evaluation: Evaluation, some: Any) -> None:
    """Compare a Hessian product of a few examples with differences of the gradient, in float64 if the network allows.

    A backward pass or a hook that leaves autograd gives right gradients and wrong products. There is no verdict if

    - differences over h, 2 h and −h disagree: a ReLU switches between them, or has its kink at the weights
      themselves, as a unit whose weights have decayed to zero;
    - the gradient disagrees with differences of the loss: the padding row of an embedding has none, and a
      straight-through rounding has another. Products are of that gradient, if its derivative is symmetric.
    """
    few = evaluation.view(("vector", *FINDINGS), passes=Batches([some]))
    exact = few if _is_double(few) else in_precision(few, torch.float64)
    if exact is None:
        return
    w = exact.vector
    draw = torch.randn(len(w), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(w.device)
    v = draw * (w.norm() / math.sqrt(len(w)) or 1.0)
    with exact.measuring(), exact.reporting(None):  # a few examples are no pass over the data
        batch = next(exact.each_batch())
        with exact.placed() as leaves, Im2col():
            result = exact.run(batch)
            if not torch.equal(flat(leaves.values()), w):  # the forward pass writes its weights
                return
            product = flat(
                hessian(exact.loss, result.output, result.target, result.loss, leaves)(tuple(exact.split(v).values()))
            )
        _, slope = exact.gradient_with(exact.split(w))
        (above, up), (_, far), (below, down) = (
            exact.gradient_with(exact.split(w + h * v)) for h in (_STEP, 2 * _STEP, -_STEP)
        )
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


def _is_double(evaluation: Evaluation) -> bool:
    return all(p.dtype == torch.float64 for p in evaluation.parameters.values())


def _graphs(
    evaluation: Evaluation,
    index: int,
    batch: Any,
    loss: Tensor,
    curvature: Curvature,
    kept: _Kept,
    leaves: Mapping[str, Tensor],
) -> Iterator[Graph]:
    """The curvature of one batch, part by part: parts fit into memory and stay in the processor's cache."""
    total: float = sum(evaluation.weights)
    losses: list[tuple[Tensor, float]] = []
    pieces = evaluation.pieces(batch, kept.size)
    for part, piece in enumerate(pieces):
        if (index, part) in kept.graphs:
            yield kept.graphs[index, part]
            continue
        with Im2col():
            result = evaluation.run(piece)
        losses.append((result.loss.detach(), result.weight))
        if not result.weight:
            continue
        if part + 1 == len(pieces) == len(losses) > 1:
            near = tolerance(loss) * abs(float(loss)) + 1e-6
            if abs(mean_of(losses) - float(loss)) > near:
                raise _Unsliceable
        graph = result.weight / total, curvature(evaluation.loss, result.output, result.target, result.loss, leaves)
        if kept.held + result.n * kept.each <= kept.room:
            kept.graphs[index, part] = graph
            kept.held += result.n * kept.each
        yield graph
        del graph, result


def _state_of(evaluation: Evaluation, leaves: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """The state that a kept graph is valid for: it refers to the live tensors, which training changes in place and
    which have other leaves in another dtype or on another device."""
    versions = tuple(t._version for t in evaluation.live.tensors.values())
    return versions, tuple(torch.autograd.graph.get_gradient_edge(p).node for p in leaves.values())
