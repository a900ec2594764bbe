"""The tangent kernel: how the outputs for one example move with a step for another."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.gram import Rows, gram
from genbench.measures.outputs import read, undefined
from genbench.measures.precision import in_double
from genbench.measures.sampling import few, sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.process.memory import room
from genbench.records.estimate import Estimate

_NAMES = ("trace", "effective_rank", "condition", "alignment", "label_norm")
_GROUPS = 20  # of examples, of which the jackknife leaves out one at a time


@measure("representation", names=tuple(f"tangent_{name}" for name in _NAMES))
def tangent_kernel(snapshot: Snapshot, *, examples: int = 100, ridge: float = 0.0) -> dict[str, Estimate]:
    """The empirical tangent kernel K_{ia,jb} = ⟨∇f_a(xᵢ), ∇f_b(xⱼ)⟩ of n examples, [nC, nC], f_1 … f_C the logits (a
    single one in binary classification; else the outputs), ∇ by the weights (Jacot et al. 2018, arXiv 1806.07572).

    - ``tangent_trace``: tr K / n, the mean over the examples of ‖∂f/∂w‖_F², with its standard error.
    - ``tangent_effective_rank``: exp(−Σ p log p), p the eigenvalues of K as shares of their sum, in [1, nC].
    - ``tangent_condition``: the largest eigenvalue of K over the smallest.
    - ``tangent_alignment``: ⟨K_c, yyᵀ⟩ / (‖K_c‖_F ‖y‖²), in [0, 1], y the labels, one-hot (±1 for a single logit; else
      the targets); K and y centred over the examples, each logit by itself (Baratin et al. 2021, arXiv 2008.00938, as
      in their code). The standard error is the jackknife's, leaving out every twentieth example, from each of the
      first twenty on.
    - ``tangent_label_norm``: yᵀ(K + λI)⁻¹y, not centred, the squared norm of the least function of the kernel with
      these values. Arora et al. 2019 (arXiv 1901.08584) bound the error of a wide network of two layers by
      √(2 yᵀK⁻¹y / n), with K of infinite width at the start of training; here it is that of these weights.

    Exact for these examples, whatever the weights if the outputs are linear in them. In float64 where the network
    allows. Where K is singular to rounding (more logits than weights, examples that repeat), condition and label norm
    are undefined, the latter without a ``ridge``; its note says how well conditioned K + λI is. Rank, condition and
    label norm grow with n: compare at equal n and ridge. Rescaling weights changes all of them.

    Args:
        snapshot: network, loss and data; outputs [N, C] or [N].
        examples: n, at most so many, evenly spaced over the data, at least 2; memory grows with (nC)².
        ridge: λ in units of the mean eigenvalue, tr K / nC, at least 0.
    """
    check_integer("examples", examples, least=2)
    check_number("ridge", ridge, low=0)
    part = in_double(few(snapshot, examples))
    found = _outputs(part)
    if isinstance(found, str):
        return _all(undefined(found))
    logits, width, y = found
    n = part.examples
    if n < 2:
        return _all(undefined("there are fewer than two examples"))
    needed, free = 6 * 8 * (n * width) ** 2, room(part.device)
    if needed > free:
        sizes = f"{needed / 2**30:.1f} GiB; {free / 2**30:.1f} are free"
        return _all(undefined(f"the kernel of {n} examples with {width} logits each takes {sizes}"))

    def rows(index: int) -> Rows:
        return part.with_loss(lambda output, _: logits(output)[:, index].mean()).example_gradients

    kernel = gram([(n, rows(index)) for index in range(width)], size=part.size, device=part.device)
    return _of_kernel(kernel.view(width, n, width, n), y, ridge, epsilon=_epsilon(part))


def _outputs(part: Snapshot) -> tuple[Callable[[Any], Tensor], int, Tensor | str] | str:
    """The outputs [N, C] as a function of the network's output, C, and the labels [C, N], or why there are none; or why
    there are no outputs."""
    reading = read(part)
    if isinstance(reading, str) or reading.reason:
        output, target = part.predictions[0]
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (1, 2):
            return "the outputs are not one or several numbers an example"

        def outputs(output: Tensor) -> Tensor:
            return output.reshape(len(output), -1)

        width = outputs(output).shape[1]
        if isinstance(target, Tensor) and target.is_floating_point() and target.numel() == output.numel():
            return outputs, width, torch.cat([outputs(target) for _, target in part.predictions]).double().T
        return outputs, width, "the targets are neither labels nor numbers"
    if any(reading.logits(output).ndim > 2 for output, _ in part.predictions):
        return "an example has several answers"
    width = reading.logits(part.predictions[0][0]).shape[1]
    if reading.ignored:
        labels: Tensor | str = "the loss ignores some of the labels"
    else:
        classes = torch.cat([reading.labels(*batch) for batch in part.predictions])
        labels = F.one_hot(classes, width).double().T
    if reading.axis is not None:
        return reading.logits, width, labels
    single = labels if isinstance(labels, str) else labels[1:] - labels[:1]
    return lambda output: reading.logits(output)[:, 1:], 1, single


def _of_kernel(kernel: Tensor, y: Tensor | str, ridge: float, *, epsilon: float) -> dict[str, Estimate]:
    """The estimates of K [C, n, C, n] and labels [C, n]."""
    width, n = kernel.shape[:2]
    squares = torch.einsum("aiai->i", kernel)  # ‖∂f(xᵢ)/∂w‖_F²
    values, vectors = torch.linalg.eigh(kernel.reshape(width * n, width * n))
    values = values.clamp_min(0)
    highest, lowest = float(values[-1]), float(values[0])
    if not highest:
        return _all(undefined("no output depends on the weights"))
    singular = lowest <= len(values) * epsilon * highest
    found = {
        "trace": sample_mean(squares),
        "effective_rank": Estimate(float(torch.special.entr(values / values.sum()).sum().exp())),
        "condition": undefined("the kernel is singular to rounding") if singular else Estimate(highest / lowest),
    }
    if isinstance(y, str):
        found |= dict.fromkeys(("alignment", "label_norm"), undefined(y))
        return {f"tangent_{name}": estimate for name, estimate in found.items()}
    found["alignment"] = _alignment(kernel, y)
    shift = ridge * float(values.mean())
    if singular and not ridge:
        found["label_norm"] = undefined("the kernel is singular to rounding; a ridge > 0 regularizes it")
    else:
        along = vectors.T @ y.reshape(-1)
        regular = "without a ridge" if not ridge else f"with a ridge of {shift:.3g}"
        found["label_norm"] = Estimate(
            float((along.square() / (values + shift)).sum()),
            note=f"{regular}, the condition is {(highest + shift) / (lowest + shift):.2g}",
        )
    return {f"tangent_{name}": estimate for name, estimate in found.items()}


def _alignment(kernel: Tensor, y: Tensor) -> Estimate:
    n = y.shape[1]
    value = _aligned(kernel, y)
    if value is None:
        return undefined("the labels, or the gradients, are the same for all examples")
    groups = min(n, _GROUPS)
    kept = [torch.arange(n, device=y.device) % groups != group for group in range(groups)]
    without = [_aligned(kernel[:, rows][:, :, :, rows], y[:, rows]) for rows in kept]
    if any(each is None for each in without):
        return Estimate(value)
    spread = torch.tensor(without, dtype=torch.float64)
    return Estimate(value, stderr=math.sqrt((groups - 1) * float(spread.var(correction=0))))


def _aligned(kernel: Tensor, y: Tensor) -> float | None:
    """⟨K_c, yyᵀ⟩ / (‖K_c‖_F ‖y‖²) of centred labels; None where it is 0/0."""
    kernel = kernel - kernel.mean(1, keepdim=True)
    kernel = kernel - kernel.mean(3, keepdim=True)
    y = y - y.mean(1, keepdim=True)
    size, power = float(kernel.norm()), float(y.square().sum())
    if not size or not power:
        return None
    return float(torch.einsum("ai,aibj,bj->", y, kernel, y)) / (size * power)


def _epsilon(part: Snapshot) -> float:
    return max(torch.finfo(p.dtype).eps for p in part.parameters.values())


def _all(estimate: Estimate) -> dict[str, Estimate]:
    return {f"tangent_{name}": estimate for name in _NAMES}
