"""Find out whether a network's outputs are logits, probabilities, log-probabilities or mere scores.

The loss tells. A loss that does not change when a constant is added to all outputs of an example takes logits; if it is
the cross-entropy of the outputs times a number (a temperature, or −1 for distances), that number belongs to the logits.
With other losses, rows in [0, 1] that sum to 1 are probabilities, and rows whose exponentials do are log-probabilities.
All measures of answers, margins and likelihoods read outputs here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.measures.evaluation import Evaluation
from genbench.measures.pytree import leaves, rebuilt
from genbench.records.estimate import Estimate

_PROBES = 8  # examples that the loss is evaluated on


@dataclass(frozen=True)
class Reading:
    """The way to read outputs and targets: the tensor of the output, the axis of its classes, the kind of its numbers.

    ``kind`` is ``logits``, ``probabilities`` or ``log-probabilities``, of K ≥ 2 classes along ``axis``, or, where
    ``axis`` is None, of the second of two classes, one number an example. ``scores`` are outputs of which only the
    largest is known to be the answer; ``reason`` says why. Labels that the loss ignores are in ``ignored``; ``note``
    says which labels count, where that is not all of them or the loss takes others.
    """

    kind: str
    axis: int | None
    index: int  # of the tensor among the leaves of the output
    reason: str | None = None
    scale: float = 1.0  # logits over outputs
    ignored: tuple[int, ...] = ()
    note: str | None = None

    def tensor(self, output: Any) -> Tensor:
        """The tensor of the answers."""
        return output if isinstance(output, Tensor) else leaves(output)[self.index]

    def logits(self, output: Any) -> Tensor:
        """Logits [N, K, ...]: their softmax are the probabilities of the classes, their differences the margins. Of
        probabilities p they are log p; of one logit z, (0, z)."""
        x = self.tensor(output)
        if self.axis is not None:
            x = x.movedim(self.axis, 1)
            if self.kind == "probabilities":
                return x.double().log()
            return x if self.scale == 1 else self.scale * x
        x = x.reshape(len(x), 1, *x.shape[2:])
        if self.kind == "probabilities":
            return torch.cat([torch.log1p(-x.double()), x.double().log()], 1)
        return torch.cat([torch.zeros_like(x), x], 1)

    def put(self, output: Any, logits: Tensor) -> Any:
        """The output with other logits [N, K, ...] in it, in the form that the loss takes."""
        assert self.axis is not None
        if self.kind == "probabilities":
            logits = logits.softmax(1)
        elif self.kind == "log-probabilities":
            logits = logits.log_softmax(1)
        elif self.scale != 1:
            logits = logits / self.scale
        return _replaced(output, self.index, logits.movedim(1, self.axis))

    def labels(self, output: Any, target: Tensor) -> Tensor:
        """The classes [N, ...]."""
        if self.axis is not None:
            return target.long()
        x = self.tensor(output)
        return target.reshape(len(x), *x.shape[2:]).long()

    def answers(self, output: Any) -> Tensor:
        """The class with the largest logit, of scores the largest output, [N, ...]."""
        return self.logits(output).argmax(1)

    def wrong(self, output: Any, target: Any) -> Tensor:
        """Whether the answers to the labels that count are wrong, bool [M]; an output that is not finite is."""
        x = self.tensor(output)
        finite = x.isfinite() if self.axis is None else x.isfinite().all(self.axis)
        answers = self.answers(output)
        wrong = (answers != self.labels(output, target)) | ~finite.reshape(answers.shape)
        return self.counted(wrong, output, target)

    def counted(self, values: Tensor, output: Any, target: Any) -> Tensor:
        """Those of values [N, ...] whose label the loss does not ignore, [M]."""
        return values[self.counts(output, target)] if self.ignored else values.reshape(-1)

    def counts(self, output: Any, target: Any) -> Tensor:
        """Whether the loss does not ignore a label, bool [N, ...]."""
        labels = self.labels(output, target)
        return torch.isin(labels, torch.tensor(self.ignored, dtype=labels.dtype, device=labels.device), invert=True)


def read(evaluation: Evaluation) -> Reading | str:
    """The way to read the network's outputs, or the reason why it is no classifier."""
    return evaluation.shared("reading", lambda: _read(evaluation))


def with_logits(evaluation: Evaluation) -> Reading | str:
    """:func:`read`, or why the outputs have no logits."""
    reading = read(evaluation)
    return reading if isinstance(reading, str) else reading.reason or reading


def answered(logits: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The class that logits [n, K, ...] answer for each input, without a gradient."""
    with torch.no_grad():
        return logits(x).argmax(1)


def undefined(reason: str) -> Estimate:
    """No value, and why."""
    return Estimate(None, note=f"undefined: {reason}")


def _read(evaluation: Evaluation) -> Reading | str:
    output, target = evaluation.predictions[0]
    if not isinstance(target, Tensor):
        return f"the targets are no class labels but {_kind(target)}"
    index = _index(evaluation, output, target)
    if isinstance(index, str):
        return index
    x = leaves(output)[index]
    if x.ndim == 1 or x.shape[1] == 1:
        return _of_two(evaluation, index)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return f"the targets are no class labels but {_kind(target)}"
    axes = [axis for axis in dict.fromkeys((1, x.ndim - 1)) if target.shape == (*x.shape[:axis], *x.shape[axis + 1 :])]
    if not axes:
        return f"outputs of shape {tuple(x.shape)} and targets of shape {tuple(target.shape)} are no classes and labels"
    return _of_many(evaluation, index, axes)


def _of_many(evaluation: Evaluation, index: int, axes: list[int]) -> Reading | str:
    """K ≥ 2 outputs and a label."""
    x = leaves(evaluation.predictions[0][0])[index]
    labels = {label for _, y in evaluation.predictions for label in y.unique().tolist()}
    known = evaluation.loss is F.cross_entropy  # torch's own need not be asked
    ignored, note = _noted(labels & {-100}) if known else _ignored(evaluation, index, axes, labels)
    if labels == ignored:
        return "the loss ignores all labels"
    lowest, highest = min(labels - ignored), max(labels - ignored)
    if highest >= x.shape[axes[0]]:
        accepted = f"0 to {x.shape[axes[0]] - 1}, the columns of the output"
        raise ValueError(f"labels lie in [{lowest}, {highest}]; accepted: {accepted}")
    if lowest < 0:
        return f"labels lie in [{lowest}, {highest}], and those below 0 are no classes"
    if known:
        return Reading("logits", 1, index, ignored=tuple(ignored), note=note)
    ask = _Asked(evaluation, index, ignored, lowest)
    invariant = [axis for axis in axes if ask.ignores_constants(axis)]
    if invariant and (scale := ask.scale(invariant[0])):
        found = Reading("logits", invariant[0], index, scale=scale)
    else:
        found = Reading("logits", invariant[0], index) if invariant else _by_sums(evaluation, index, axes)
        assert found.axis is not None
        if not ask.falls_with_label(found.axis):
            return (
                "the loss does not fall when the output of a label rises: they are paired otherwise, or are no scores"
            )
    return replace(found, ignored=tuple(sorted(ignored)), note=note)


def _by_sums(evaluation: Evaluation, index: int, axes: list[int]) -> Reading:
    """Tell the kind of outputs that are no logits by their sums over the classes."""
    x = leaves(evaluation.predictions[0][0])[index]
    tolerance = max(1e-4, 4 * torch.finfo(x.dtype).eps)
    for axis in axes:
        for kind, p in (("probabilities", x.double()), ("log-probabilities", x.double().exp())):
            if p.min() >= 0 and p.max() <= 1 + tolerance and ((p.sum(axis) - 1).abs() <= tolerance).all():
                return Reading(kind, axis, index)
    reason = (
        "the loss changes when a constant is added to all outputs of an example, so that they are no logits, and they "
        "are neither probabilities nor log-probabilities"
    )
    return Reading("scores", axes[0], index, reason)


def _of_two(evaluation: Evaluation, index: int) -> Reading | str:
    """One output an example and a target 0 or 1."""
    for output, target in evaluation.predictions:
        x = leaves(output)[index]
        if target.shape not in (x.shape, (len(x), *x.shape[2:])) or not ((target == 0) | (target == 1)).all():
            return "the targets are no class labels: there is one output an example, and they are not 0 or 1"
    ask = _Asked(evaluation, index)
    if ask.alike(0.0):  # the boundary is at 0
        return Reading("logits", None, index)
    inside = all(x.min() >= 0 and x.max() <= 1 for x in (leaves(o)[index] for o, _ in evaluation.predictions))
    if inside and ask.alike(0.5) and ask.is_logarithm():
        return Reading("probabilities", None, index)
    return (
        "one output an example, which is no logit, as the loss at 0 is not the same for targets 0 and 1, and no "
        "probability, as the loss is not its logarithm"
    )


def _ignored(evaluation: Evaluation, index: int, axes: list[int], labels: set[int]) -> tuple[set[int], str | None]:
    """The labels that the loss ignores, as ``ignore_index`` and a class weight of 0 do, and a note on labels left out.

    The loss has no slope along the outputs beside such a label, wherever they are. Where that holds for some of the
    places of a label, the loss chooses by something else, and no label counts as ignored.
    """
    ignored: set[int] = set()
    counted: set[int] = set()
    for output, target in evaluation.predictions:
        if set(target.unique().tolist()) <= ignored | counted:
            continue
        flat = _slopeless(evaluation, output, target, index, axes)
        ignored |= set(target[flat].tolist())
        counted |= set(target[~flat].tolist())
    if some := ignored & counted:
        return set(), f"over all labels, of which the loss ignores some ({_shortened(some)})"
    return _noted(ignored)


def _noted(ignored: set[int]) -> tuple[set[int], str | None]:
    return ignored, f"without the labels that the loss ignores ({_shortened(ignored)})" if ignored else None


def _slopeless(evaluation: Evaluation, output: Any, target: Tensor, index: int, axes: list[int]) -> Tensor:
    """Whether the loss does not change with the outputs beside a label, bool of the target's shape."""
    x = leaves(output)[index]
    found = torch.ones_like(target, dtype=torch.bool)
    wave = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) * 1e-2
    for sign in (1, -1):  # a loss with a margin has no slope where the answer is right, and one of the two is wrong
        point = (0.4 + sign * wave).to(x.device, torch.promote_types(x.dtype, torch.float32)).requires_grad_()
        try:
            with torch.enable_grad():
                value = evaluation.loss(_replaced(output, index, point.clone()), target.clone())
                (slope,) = torch.autograd.grad(value, point)
        except Exception:  # a loss may refuse artificial outputs
            return torch.zeros_like(found)
        still = slope == 0
        found &= torch.stack([still.all(axis) for axis in axes]).any(0)
        if not found.any():
            break
    return found


def _shortened(labels: set[int]) -> str:
    first = ", ".join(map(str, sorted(labels)[:3]))
    return first if len(labels) <= 3 else f"{first} and {len(labels) - 3} more"


class _Asked:
    """The loss of a snapshot at artificial outputs of a few examples, all in [0, 1].

    The labels that the loss ignores are replaced by the label ``instead``.
    """

    def __init__(self, evaluation: Evaluation, index: int, ignored: Iterable[int] = (), instead: int = 0) -> None:
        output, target = evaluation.predictions[0]
        for label in ignored:
            target = target.masked_fill(target == label, instead)
        self._loss, self._index = evaluation.loss, index
        self._take(output, target)
        if isinstance(output, Tensor):  # fewer are enough, unless the loss wants all
            self._take(output[:_PROBES], target[:_PROBES])
            if math.isnan(self.at(self._base)):
                self._take(output, target)

    def _take(self, output: Any, target: Tensor) -> None:
        self._output, self.target, self.x = output, target, leaves(output)[self._index]
        generator = torch.Generator().manual_seed(0)
        self._base = 0.25 + 0.25 * torch.rand(self.x.shape, generator=generator).to(self.x)

    def at(self, x: Tensor, target: Tensor | None = None) -> float:
        """NaN where the loss fails."""
        try:
            with torch.no_grad():
                point = _replaced(self._output, self._index, x.clone())  # it may write into what it is given
                return float(self._loss(point, self.target if target is None else target))
        except Exception:  # a loss may refuse artificial outputs
            return math.nan

    def ignores_constants(self, axis: int) -> bool:
        """Whether the loss is the same when a number is added to all outputs of an example."""
        constants = 0.3 + 0.15 * (torch.arange(len(self.x)) % 2)
        moved = self._base + constants.reshape(-1, *[1] * (self.x.ndim - 1)).to(self.x)
        if self.x.ndim > 2:  # other positions of an example are moved differently
            places = [1 if d in (0, axis) else n for d, n in enumerate(self.x.shape)]
            moved = moved + 0.04 * torch.linspace(0, 1, math.prod(places)).reshape(places).to(self.x)
        return self._same(self.at(moved), self.at(self._base))

    def falls_with_label(self, axis: int) -> bool:
        """Whether the loss falls when the output of any label rises; where it takes no outputs of ours, it may."""
        x = self._base.clone().requires_grad_()
        try:
            with torch.enable_grad():
                value = self._loss(_replaced(self._output, self._index, x.clone()), self.target)
                (slope,) = torch.autograd.grad(value, x)
        except Exception:
            return True
        of_labels = slope.gather(axis, self.target.long().unsqueeze(axis))
        return bool((of_labels <= 0).all() and (of_labels < 0).any())

    def scale(self, axis: int) -> float | None:
        """The number s ≠ 0 for which the loss is the cross-entropy of s times the outputs; None where there is none."""
        for dtype in (torch.float64, self.x.dtype):  # some losses hold tensors of the network's precision
            far, zero = 8 * self._base.to(dtype), torch.zeros_like(self._base, dtype=dtype)
            value, others = self.at(self._raised(zero, axis, 0.1)), self.x.shape[axis] - 1
            if 0 < value < 100:  # log(1 + (K − 1) exp(−s/10))
                scale = -10 * math.log(math.expm1(value) / others)
                scale = 1.0 if abs(scale - 1) < 1e-3 else scale
                expected = float(F.cross_entropy(scale * far.movedim(axis, 1), self.target.long()))
                if abs(self.at(far) - expected) <= (1e-6 if dtype == torch.float64 else 2e-4) * expected:
                    return scale
        return None

    def _raised(self, x: Tensor, axis: int, by: float) -> Tensor:
        """The outputs of the labels raised."""
        return x.scatter_add(axis, self.target.long().unsqueeze(axis), torch.full_like(x, by))

    def alike(self, value: float) -> bool:
        """Whether an output of ``value`` is as good for the target 0 as for 1."""
        x = torch.full_like(self.x, value)
        off, on = (self.at(x, torch.full_like(self.target, label)) for label in (0, 1))
        return abs(on - off) <= 1e-6 * abs(off)

    def is_logarithm(self) -> bool:
        """Whether the loss of the target 1 falls with the logarithm of the output."""
        one = torch.ones_like(self.target)
        low, middle, half = (self.at(torch.full_like(self.x, p), one) for p in (1e-8, 1e-4, 0.5))
        return middle > half and abs((low - middle) / (middle - half) / math.log(1e4, 5e3) - 1) < 0.01

    def _same(self, a: float, b: float) -> bool:
        """Up to rounding; False where either failed."""
        rounding = max(1e-5, 4 * torch.finfo(self.x.dtype).eps)
        return abs(a - b) <= rounding * (1 + abs(b))


def _index(evaluation: Evaluation, output: Any, target: Tensor) -> int | str:
    """Which leaf of the output answers: the one named ``logits``, else the only one on which the loss depends."""
    tensors = leaves(output)
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    for index, leaf in enumerate(tensors):
        if leaf is named and isinstance(leaf, Tensor) and leaf.ndim:
            return index
    real = [i for i, leaf in enumerate(tensors) if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim]
    if len(real) > 1:
        points = {i: tensors[i].detach().requires_grad_() for i in real}
        with torch.enable_grad():
            value = evaluation.loss(rebuilt(output, lambda i, leaf: points.get(i, leaf)), target)
            known = value.requires_grad
            slopes = (
                torch.autograd.grad(value, tuple(points.values()), allow_unused=True) if known else [None] * len(real)
            )
        real = [i for i, slope in zip(real, slopes, strict=True) if slope is not None]
    if len(real) == 1:
        return real[0]
    return f"the loss is of {len(real)} tensors of the output, none of them named logits"


def _replaced(output: Any, index: int, x: Tensor) -> Any:
    return rebuilt(output, lambda i, leaf: x if i == index else leaf)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
