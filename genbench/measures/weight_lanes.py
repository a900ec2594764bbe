"""The loss and its gradient at several weights at once, a lane each."""

import math
from typing import Any

import torch
from torch import Tensor

from genbench.im2col import Im2col
from genbench.measures.evaluation import Evaluation, graph_memory
from genbench.measures.examples import tolerance
from genbench.measures.products import dense, gradient, nodes

_FEW = 256  # examples of a batch, beyond which a CPU is quicker with one lane after the other
_COMPARED = 2  # calls of which a lane is compared with plain autograd: at equal weights some faults do not show


class WeightLanes:
    """L and ∇L at several weights. Lanes share a pass over the data by ``torch.vmap`` if the network and the loss allow
    it and the first passes agree with plain autograd; else, and on a CPU with large batches, they follow each other.
    The numbers are the same up to rounding, and no lane changes another's.

    Args:
        evaluation: network, loss and data.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        largest = max(n for _, n in evaluation.losses)
        # torch.vmap has no rule for recurrent layers
        self.together = not evaluation.recurrent and (evaluation.device.type != "cpu" or largest <= _FEW)
        self._compared = 0
        self._room: int | None = None

    def __call__(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """L [lanes] and its gradient [lanes, size], float64, at the weights ``vectors`` [lanes, size]."""
        if self.together:
            try:
                losses, gradients = self._vectorized(vectors)
            except Exception:  # an operation that has no batching rule, or control flow on values
                self.together = False
            else:
                if self._compared == _COMPARED or self._agrees(vectors, losses, gradients):
                    return losses, gradients
                self.together = False
        found = [self.evaluation.gradient_with(self.evaluation.split(vector)) for vector in vectors]
        losses = torch.tensor([loss for loss, _ in found], dtype=torch.float64, device=vectors.device)
        return losses, torch.stack([slope for _, slope in found])

    def _vectorized(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        evaluation, lanes = self.evaluation, len(vectors)
        pieces = vectors.split([p.numel() for p in evaluation.parameters.values()], 1)
        stacked = {
            name: piece.to(p.dtype, copy=True).reshape(lanes, *p.shape).requires_grad_()
            for (name, p), piece in zip(evaluation.parameters.items(), pieces, strict=True)
        }
        own = set(map(id, stacked.values()))
        losses, gradients, total = torch.zeros_like(vectors[:, 0]), torch.zeros_like(vectors), 0.0
        with evaluation.measuring(), evaluation.placed():
            if self._room is None:
                self._room = graph_memory(evaluation.device)
            size = max(1, self._room // max(1, 3 * lanes * evaluation.structure.bytes))
            for batch in evaluation.each_batch():
                for part in evaluation.pieces(batch, size):
                    weights: list[float] = []

                    def loss(parameters: dict[str, Tensor], part: Any = part, weights: Any = weights) -> Tensor:
                        with evaluation.live.replace_tensors(parameters), Im2col():
                            result = evaluation.run(part)
                        weights.append(result.weight)
                        return result.loss

                    values = torch.vmap(loss)(stacked)
                    if self._compared < _COMPARED and _leaves(values) - own:
                        raise ValueError("the loss depends on the live parameters, which are not those of the lanes")
                    slopes = gradient(values.sum(), stacked)
                    total += weights[0]
                    if weights[0]:
                        losses += weights[0] * values.detach().double()
                        gradients += weights[0] * torch.cat([dense(g).flatten(1).double() for g in slopes], 1)
            for _ in range(lanes):
                evaluation.count_pass()
        return losses / total, gradients / total

    def _agrees(self, vectors: Tensor, losses: Tensor, gradients: Tensor) -> bool:
        """Whether the last lane with a finite loss is what plain autograd computes."""
        finite = losses.isfinite().nonzero()
        if not len(finite):
            return True
        self._compared += 1
        lane = int(finite[-1])
        value, slope = self.evaluation.gradient_with(self.evaluation.split(vectors[lane]))
        narrow = next(iter(self.evaluation.parameters.values()))
        near, floor = tolerance(narrow), 32 * torch.finfo(narrow.dtype).eps
        off = float((gradients[lane] - slope).abs().max())
        close = math.isclose(float(losses[lane]), value, rel_tol=near, abs_tol=1e-6)
        return close and off <= max(near * float(slope.abs().max()), floor)


def _leaves(losses: Tensor) -> set[int]:
    """The ids of the tensors that losses are differentiable by."""
    variables = (getattr(node, "variable", None) for node in nodes([losses]))
    return {id(variable) for variable in variables if variable is not None}
