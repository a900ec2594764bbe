"""Products with the curvature of one batch's loss, over a kept graph."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.measures.pytree import flatten

NO_SECOND = (
    "the network has no second derivative: a function in it is marked with @once_differentiable, or torch has "
    "none of it"
)

Loss = Callable[[Any, Any], Tensor]
Product = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
Curvature = Callable[[Loss, Any, Any, Tensor, Mapping[str, Tensor]], Product]


def gradient(loss: Tensor, leaves: Mapping[str, Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradient of a loss by the leaves, zero for a leaf that it does not depend on."""
    if not loss.requires_grad:
        raise ValueError("loss does not depend on the trainable parameters through autograd")
    return torch.autograd.grad(loss, tuple(leaves.values()), create_graph=create_graph, materialize_grads=True)


def hessian(loss: Loss, output: Any, target: Any, value: Tensor, leaves: Mapping[str, Tensor]) -> Product:
    """v -> ∇²L v by differentiating the gradient, whose graph is kept."""
    slopes, weights = gradient(value, leaves, create_graph=True), tuple(leaves.values())
    _check_second(slopes)

    def product(v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        curved = [(g, u) for g, u in zip(slopes, v, strict=True) if g.requires_grad]
        if not curved:  # a loss that is linear in all its weights
            return tuple(torch.zeros_like(p) for p in weights)
        outputs, cotangents = zip(*curved, strict=True)
        return torch.autograd.grad(outputs, weights, cotangents, retain_graph=True, materialize_grads=True)

    return product


def gauss_newton(loss: Loss, output: Any, target: Any, value: Tensor, leaves: Mapping[str, Tensor]) -> Product:
    """v -> Jᵀ(∇²ℓ)J v; J v is the derivative of u -> Jᵀu, so that one kept graph serves all products."""
    flat, rebuilt = flatten(output)
    live = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not live:
        raise ValueError("output does not depend on the trainable parameters through autograd")
    outputs, weights = tuple(flat[i] for i in live), tuple(leaves.values())
    duals = tuple(torch.zeros_like(f).requires_grad_() for f in outputs)
    pulled = torch.autograd.grad(outputs, weights, duals, create_graph=True, materialize_grads=True)
    _check_second(pulled)
    points = tuple(f.detach().requires_grad_() for f in outputs)
    for i, point in zip(live, points, strict=True):
        flat[i] = point
    slopes = torch.autograd.grad(loss(rebuilt(flat), target), points, create_graph=True, materialize_grads=True)

    def product(v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        moved, bent = _derivative(pulled, duals, v), [s.requires_grad for s in slopes]
        if not any(bent):  # a loss that is linear in the outputs
            return tuple(torch.zeros_like(p) for p in weights)
        curved = _derivative(slopes, points, moved)
        return torch.autograd.grad(outputs, weights, curved, retain_graph=True, materialize_grads=True)

    return product


def fisher(logits: Callable[[Any], Tensor]) -> Curvature:
    """v -> Jᵀ(diag p − p pᵀ)J v, J the derivative of the logits by the weights, p their softmax: the Gauss–Newton
    matrix of the cross-entropy, which no label enters."""

    def curvature(loss: Loss, output: Any, target: Any, value: Tensor, leaves: Mapping[str, Tensor]) -> Product:
        return gauss_newton(lambda z, _: log_partition(z), logits(output), target, value, leaves)

    return curvature


def log_partition(logits: Tensor) -> Tensor:
    """The mean of log Σₖ exp zₖ over logits [N, K, ...]: the cross-entropy up to a term linear in the logits."""
    return logits.logsumexp(1).mean()


def nodes(tensors: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of the graph that tensors come from, each once."""
    seen: set[Any] = set()
    left = [t.grad_fn for t in tensors]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        left += [before for before, _ in node.next_functions]


def _check_second(gradients: Iterable[Tensor]) -> None:
    """Refuse a function whose backward pass torch cannot differentiate: torch takes its result for a constant, if it
    leads to no leaf, instead of raising."""
    names = {node.name() for node in nodes(gradients)}
    if names & {"torch::autograd::Error", "NotImplemented"}:
        raise ValueError(NO_SECOND)
    if any("WeightNormInterface" in name for name in names):
        raise ValueError(
            "torch's second derivative of a compiled weight norm is wrong; accepted: the network uncompiled"
        )


def _derivative(values: tuple[Tensor, ...], at: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Σ vᵢ ∂valuesᵢ/∂at, the graph kept."""
    pairs = [(value, u) for value, u in zip(values, v, strict=True) if value.requires_grad]
    outputs, cotangents = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, at, cotangents, retain_graph=True, materialize_grads=True)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors as one vector, float64."""
    return torch.cat([dense(t.detach()).reshape(-1).double() for t in tensors])


def dense(tensor: Tensor) -> Tensor:
    return tensor.to_dense() if tensor.is_sparse else tensor
