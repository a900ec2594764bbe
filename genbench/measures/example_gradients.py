"""The gradient of each example's loss, and its norm."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genbench.measures.evaluation import Evaluation
from genbench.measures.examples import between, tensors_of, tolerance
from genbench.measures.products import dense, gradient

_ALONE = 4  # examples: of so few, each alone is quicker than all together with two alone to compare
_ENTRIES = 2**22  # numbers in the gradients made at a time: more leave the cache, and are slower


def example_gradients(evaluation: Evaluation, vector: Tensor, *, check: bool) -> Iterator[Tensor]:
    """∇ℓᵢ of each example at the weights ``vector``, [b, size], a few examples at a time.

    Raises:
        ValueError: with ``check``, the loss of a batch is not the mean of its examples' losses; or the axis of the
            examples cannot be told.
    """
    whole = evaluation.losses
    rounding = max(1e-3, 8 * max(torch.finfo(p.dtype).eps for p in evaluation.parameters.values()))
    for index, batch in enumerate(evaluation.each_batch()):
        loss, n = whole[index]
        values = []
        for gradients, losses in _of_batch(evaluation, batch, n, vector):
            values.append(losses)
            yield gradients
        mean = float(torch.cat(values).double().mean())
        if check and not math.isclose(mean, float(loss), rel_tol=rounding, abs_tol=1e-6):
            raise ValueError(
                f"loss of a batch is {float(loss):.6g}, the mean over its examples {mean:.6g}; accepted: a loss in "
                "which examples weigh equally (of sequences with ignored tokens: the mean of each sequence's mean)"
            )


def example_gradient_norms(evaluation: Evaluation, scale: Tensor, *, p: int) -> Tensor:
    """‖scale · ∇ℓᵢ‖ₚ of each example [N], float64, for p = 1 or 2 and a factor for each weight [size].

    Where all weights are those of linear layers, a layer's gradient is the outer product δᵢaᵢᵀ of what enters it and of
    the slope by what leaves it, so that one backward pass gives the norms of all examples (Goodfellow 2015, arXiv
    1510.01799); elsewhere each gradient is made.

    Raises:
        ValueError: as :func:`example_gradients`.
    """
    parts = evaluation.split(scale)
    with evaluation.measuring():
        found = _of_linear_layers(evaluation, parts, p)
        if found is not None:
            return found
        flat = torch.cat([part.reshape(-1) for part in parts.values()])
        plain = bool((flat == 1).all())
        gradients = example_gradients(evaluation, evaluation.vector, check=True)
        return torch.cat(
            [torch.linalg.vector_norm(g if plain else g * flat, ord=p, dim=1, dtype=torch.float64) for g in gradients]
        )


def _of_linear_layers(evaluation: Evaluation, scale: dict[str, Tensor], p: int) -> Tensor | None:
    """:func:`example_gradient_norms` of a network whose trainable weights are those of linear layers, each called once,
    for each example alone; None for any other, as two gradients of whole examples show."""
    layers: dict[str, dict[str, Tensor]] = {}  # the factors of each layer's weight and bias
    modules = {}
    for name, module in evaluation.model.named_modules():
        own = {part: f"{name}.{part}".lstrip(".") for part in ("weight", "bias")}
        chosen = {part: scale[key].double() for part, key in own.items() if key in scale}
        if type(module) is nn.Linear and chosen:
            layers[name], modules[name] = chosen, module
    if sum(map(len, layers.values())) < len(scale) or not evaluation.divisible:
        return None
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: calls.setdefault(name, []).append((inputs[0].detach(), output))
        )
        for name, module in modules.items()
    ]
    found: list[Tensor] = []
    try:
        with evaluation.placed() as leaves:
            for batch in evaluation.each_batch():
                for piece in evaluation.pieces(batch):
                    calls.clear()
                    result = evaluation.run(piece)
                    if any(len(calls.get(name, ())) != 1 or calls[name][0][0].ndim != 2 for name in layers):
                        return None
                    once = {name: calls[name][0] for name in layers}
                    if any(len(a) != result.n for a, _ in once.values()):
                        return None
                    slopes = torch.autograd.grad(result.loss * result.n, [out for _, out in once.values()])
                    total = torch.zeros(result.n, dtype=torch.float64, device=evaluation.device)
                    for (name, (a, _)), slope in zip(once.items(), slopes, strict=True):
                        along, out = a.double().abs() ** p, slope.double().abs() ** p
                        for part, factor in layers[name].items():
                            reach = along @ (factor.abs() ** p).T if part == "weight" else factor.abs() ** p
                            total += (reach * out).sum(1)
                    norms = total ** (1 / p)
                    if not found and not _are_norms(evaluation, piece, norms, leaves, scale, p):
                        return None
                    found.append(norms)
    except RuntimeError:  # a loss that does not depend on a layer
        return None
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(found)


def _are_norms(
    evaluation: Evaluation, batch: Any, norms: Tensor, leaves: Mapping[str, Tensor], scale: Mapping[str, Tensor], p: int
) -> bool:
    """Whether the first and the last of the norms are those of the gradients of these examples alone."""
    for i in {0, len(norms) - 1}:
        one = evaluation.known_layout().rows(batch, len(norms), torch.tensor([i]))
        slopes = zip(gradient(evaluation.run(one).loss, leaves), scale.values(), strict=True)
        norm = torch.cat([(g * factor).double().reshape(-1) for g, factor in slopes]).norm(p)
        if abs(float(norm - norms[i])) > tolerance(next(iter(leaves.values()))) * float(norm):
            return False
    return True


def _of_batch(evaluation: Evaluation, batch: Any, n: int, vector: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(gradients [b, size], losses [b]) of the examples of one batch of ``n``, a few at a time.

    Vectorized where two gradients agree with plain autograd and the graph has no leaves but the vectorized weights;
    else one by one.
    """
    layout = evaluation.known_layout()
    leaves, rebuilt, axes = layout.apart(batch, n)
    vectorizable = all(isinstance(leaf, Tensor) or not tensors_of(leaf) for leaf in leaves)
    parameters = {name: p.detach() for name, p in evaluation.split(vector).items()}
    live = evaluation.live

    def loss(p: dict[str, Tensor], parts: tuple[Tensor, ...]) -> Tensor:
        rest = iter(parts)
        whole = [
            next(rest).unsqueeze(a) if isinstance(leaf, Tensor) and a is not None else leaf
            for leaf, a in zip(leaves, axes, strict=True)
        ]
        with live.replace_tensors(p):
            return evaluation.run(rebuilt(whole)).loss

    vectorized = torch.func.grad_and_value(loss)
    tensors = [(leaf, a) for leaf, a in zip(leaves, axes, strict=True) if isinstance(leaf, Tensor) and a is not None]
    parts = tuple(tensor.movedim(a, 0) for tensor, a in tensors)
    chunk = max(1, _ENTRIES // evaluation.size)
    # vmap batches some recurrent layers only if their weights are batched too
    recurrent = evaluation.recurrent and evaluation.device.type != "cpu"
    ways: list[Any] = [(None, 0), (0, 0)] if vectorizable and not recurrent and n > _ALONE else []
    for first in range(0, n, chunk):
        m = min(chunk, n - first)
        some = tuple(part[first : first + m] for part in parts)
        found = None
        with evaluation.placed(parameters) as own:

            def alone(i: int, own: dict[str, Tensor] = own, start: int = first) -> tuple[Tensor, Tensor]:
                one = [between(leaf, a, start + i, start + i + 1) for leaf, a in zip(leaves, axes, strict=True)]
                value = evaluation.run(rebuilt(one)).loss
                slopes = gradient(value, own)
                return torch.cat([dense(g).detach().reshape(-1) for g in slopes]), value.detach()

            while ways and found is None:
                each = parameters
                if ways[0][0] == 0:
                    each = {name: p.expand(m, *p.shape) for name, p in parameters.items()}
                try:
                    grads, losses = torch.func.vmap(vectorized, ways[0])(each, some)
                    rows = torch.cat([grads[name].detach().flatten(1) for name in parameters], 1)
                    if losses.requires_grad or (first == 0 and not _agree(rows, losses, alone)):
                        ways.clear()
                    else:
                        found = rows, losses.detach()
                except Exception:  # an operation that has no batching rule, or control flow on values
                    ways.pop(0)
            if found is None:
                pairs = [alone(i) for i in range(m)]
                found = torch.stack([g for g, _ in pairs]), torch.stack([value for _, value in pairs])
        yield found


def _agree(rows: Tensor, losses: Tensor, alone: Callable[[int], tuple[Tensor, Tensor]]) -> bool:
    """Whether the first and the last of vectorized gradients are those of plain autograd."""
    for i in {0, len(rows) - 1}:
        row, loss = alone(i)
        floor = 32 * torch.finfo(row.dtype).eps
        if float((rows[i] - row).abs().max()) > max(tolerance(row) * float(row.abs().max()), floor):
            return False
        if abs(float(losses[i]) - float(loss)) > tolerance(loss) * abs(float(loss)) + 1e-6:
            return False
    return True
