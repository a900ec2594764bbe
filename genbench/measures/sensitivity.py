"""Sensitivity: how the outputs change with the input."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from genbench.checks import check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.model_inputs import why_no_inputs
from genbench.measures.outputs import read, undefined
from genbench.measures.perturbations import generator_of
from genbench.measures.precision import in_double
from genbench.measures.sampling import few, sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_BLOCK = 61  # points of a path that are run together; a length that activations hardly have
_CHORDS = 16  # along which outputs are compared with their chord
_SHORTER = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # parts of a step in which no unit may switch


@measure("sensitivity", by_member=False, names=("jacobian_norm", "jacobian_norm_probabilities"))
def jacobian_norm(snapshot: Snapshot, *, examples: int = 1000) -> dict[str, Estimate]:
    """The mean over the examples x of ‖∂f/∂x‖_F, with its standard error over them: of the logits f, ``jacobian_norm``
    (of the outputs, where they are no logits), and of the probabilities of the classes,
    ``jacobian_norm_probabilities`` (Novak et al. 2018, arXiv 1802.08760, who take the latter, on test examples).

    The first grows with the logits; the second falls where the network is certain. Both are per unit of the input:
    compare on equally scaled inputs. Outputs [N, C, T] count with all C·T derivatives. Takes C·T + T backward passes.
    Undefined where the input has no real numbers, as of tokens.

    Args:
        snapshot: network, loss and data; examples are taken to be independent of each other, as in evaluation mode.
        examples: at most so many, evenly spaced over the data, at least 1.
    """
    check_integer("examples", examples, least=1)
    names = ("jacobian_norm", "jacobian_norm_probabilities")
    part = few(snapshot, examples)
    reading = read(part)
    reason = reading if isinstance(reading, str) else reading.reason
    found: list[tuple[Tensor, Tensor]] = []
    with part.measuring():
        for inputs, output, _ in part.at_inputs():
            if not inputs:
                return dict.fromkeys(names, undefined(why_no_inputs(part)))
            if isinstance(reading, str) or reason:
                if not isinstance(output, Tensor) or not output.is_floating_point():
                    return dict.fromkeys(names, undefined("the output is not one tensor of real numbers"))
                z = (output.movedim(part.target_axis, 0) if output.ndim > 1 else output).flatten(1)[:, None]
            else:
                z = reading.logits(output).movedim(1, -1).movedim(part.target_axis, 0)
                z = z.reshape(len(z), -1, z.shape[-1])
            found.append(_squares(z, inputs))
    plain, of_probabilities = (torch.cat(parts).sqrt() for parts in zip(*found, strict=True))
    certain = sample_mean(of_probabilities) if reason is None else undefined(reason)
    return dict(zip(names, (sample_mean(plain), certain), strict=True))


@measure("sensitivity", by_member=False)
def linear_region_transitions(
    snapshot: Snapshot, *, paths: int = 10, points: int = 512, tolerance: float = 0.02, seed: int = 0
) -> Estimate:
    """The number of times that a unit switches along a closed path through three examples, mean over random paths with
    its standard error: the transitions between linear regions (Novak et al. 2018, arXiv 1802.08760).

    The path is the ellipse c + a cos θ + b sin θ around the mean c of the three, a = x₁ − c, b = (x₂ − x₃)/√3. The
    code of a point is the linear piece that each unit is on: of a ReLU whether it is active, of a maximum over pooled
    units which is the largest. The distance of the codes of neighbouring points, summed along the path, counts the
    switches; a unit that switches twice between two points is missed. ``residual`` is the share that every second
    point alone would miss, ``converged`` whether that is at most ``tolerance``.

    Undefined unless the network is linear where nothing switches, which is tested along chords: smooth activations,
    attention and normalization of each example are not. Switches of functions other than ReLU and its relatives,
    clamp, abs, maximum and max pooling are not seen, nor those of compiled scripts. Grows with the number of units.

    Args:
        snapshot: network and data, of which labels do not matter; inputs are one tensor of real numbers.
        paths: number of paths, at least 2.
        points: of each path, at least 4; twice as many miss less.
        tolerance: of ``converged``, in [0, 1].
        seed: of the examples.
    """
    check_integer("paths", paths, least=2)
    check_integer("points", points, least=4)
    check_number("tolerance", tolerance, low=0, high=1)
    check_integer("seed", seed, least=0)
    if snapshot.examples < 3:
        return undefined("there are fewer than three examples")
    generator = generator_of(seed, "linear_region_transitions")
    chosen = torch.stack([torch.randperm(snapshot.examples, generator=generator)[:3] for _ in range(paths)])
    corners, places = chosen.unique(return_inverse=True)
    part = in_double(snapshot.subsets([corners])[0])
    x = torch.cat([inputs for inputs, _ in part.blocks(_BLOCK)])
    if not x.is_floating_point():
        return undefined(why_no_inputs(part))
    counts, seen, tested = [], 0, False
    with part.measuring(), torch.no_grad():
        for triple in places.to(x.device):
            path = _ellipse(x[triple], points)
            linear = _is_linear(part, path)
            if linear is False:
                return undefined("the network is not linear where no unit switches")
            tested = tested or bool(linear)
            every, second = _switches(part, path)
            counts.append(every)
            seen += second
    total = sum(counts)
    missed = 1 - seen / total if total else 0.0
    each = torch.tensor(counts, dtype=torch.float64)
    return Estimate(
        float(each.mean()),
        stderr=float(each.std()) / math.sqrt(paths),
        converged=missed <= tolerance,
        residual=missed,
        note=None if tested else "units switch too often to test that the network is linear in between",
    )


def _squares(z: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """‖∂z/∂x‖_F² and ‖∂p/∂x‖_F² of each example [N], float64; z [N, T, C], p its softmax over C."""
    plain, of_probabilities = torch.zeros(2, len(z), dtype=torch.float64, device=z.device).unbind()
    if not z.requires_grad:
        return plain, of_probabilities
    p = z.detach().double().softmax(-1)

    def slopes(values: Tensor) -> Tensor:
        found = torch.autograd.grad(values.sum(), inputs, retain_graph=True, materialize_grads=True)
        return torch.cat([g.double().reshape(len(g), -1) for g in found], 1)

    for t in range(z.shape[1]):
        mean = slopes(p[:, t].to(z) * z[:, t])
        for k in range(z.shape[2]):
            slope = slopes(z[:, t, k])
            plain += slope.square().sum(1)
            of_probabilities += p[:, t, k].square() * (slope - mean).square().sum(1)
    return plain, of_probabilities


def _ellipse(x: Tensor, points: int) -> Tensor:
    """Points of the ellipse through three inputs [3, ...] around their mean, the first one again at the end."""
    a, b, c = x.double()
    angle = torch.arange(points + 1, dtype=torch.float64, device=x.device).reshape(-1, *[1] * a.ndim)
    angle = (angle % points) * (2 * math.pi / points)
    centre = (a + b + c) / 3
    return (centre + (a - centre) * angle.cos() + (b - c) / math.sqrt(3) * angle.sin()).to(x.dtype)


def _switches(part: Snapshot, path: Tensor) -> tuple[int, int]:
    """How many codes change from each point of a path to the next, and from every second to the next of these."""
    every, second = _Distance(), _Distance()
    last = len(path) - 1
    for first in range(0, len(path), _BLOCK):
        block = path[first : first + _BLOCK]
        codes, _ = _coded(part, block)
        place = torch.arange(first, first + len(block), device=path.device)
        every.add(codes)
        second.add([code[(place % 2 == 0) | (place == last)] for code in codes])
    return every.total, second.total


class _Distance:
    """The number of entries in which consecutive rows differ; rows come in parts."""

    def __init__(self) -> None:
        self.total = 0
        self._last: list[Tensor] = []

    def add(self, parts: list[Tensor]) -> None:
        joined = [torch.cat(pair) for pair in zip(self._last, parts, strict=True)] if self._last else parts
        self.total += sum(int((rows[1:] != rows[:-1]).sum()) for rows in joined)
        self._last = [rows[-1:] for rows in joined]


def _is_linear(part: Snapshot, path: Tensor) -> bool | None:
    """Whether the outputs lie on their chords where no unit switches, at some points of a path; None if there is no
    such chord."""
    epsilon = max(torch.finfo(p.dtype).eps for p in part.parameters.values())
    tested = None
    for start in torch.linspace(0, len(path) - 2, _CHORDS).long().tolist():
        for share in _SHORTER:
            step = share * (path[start + 1] - path[start])
            codes, f = _coded(part, torch.stack([path[start], path[start] + step / 2, path[start] + step]))
            if any((code != code[:1]).any() for code in codes):
                continue
            off = float((f[1] - (f[0] + f[2]) / 2).abs().max())
            if off > 1e-8 * float((f[2] - f[0]).abs().max()) + 1e3 * epsilon * float(f.abs().max()):
                return False
            tested = True
            break
    return tested


def _coded(part: Snapshot, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The codes of the units for at most so many inputs as a block [B, ...], each [B, ·], and the outputs [B, ·]."""
    block = torch.cat([x, x[-1:].expand(_BLOCK - len(x), *x.shape[1:])])
    with _Pieces() as found:
        output = part.call(block)

    def rows(tensors: Iterable[Tensor]) -> list[Tensor]:
        """By example; without what belongs to none, as the codes of weights."""
        several = []
        for t in tensors:
            axis = next((axis for axis, length in enumerate(t.shape) if length == _BLOCK), None)
            if axis is not None:
                several.append(t.movedim(axis, 0).reshape(_BLOCK, -1)[: len(x)])
            elif t.ndim and t.numel() and not len(t) % _BLOCK:  # examples and positions in one axis
                several.append(t.reshape(_BLOCK, -1)[: len(x)])
        return several

    real = (t.double() for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point())
    return rows(found.codes), torch.cat(rows(real), 1)


class _Pieces(TorchFunctionMode):
    """Notes on which of its linear pieces each unit is."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _PIECES and isinstance(args[0], Tensor) and args[0].is_floating_point():
            self.codes += _PIECES[name](*args, **kwargs)  # before it may write into its input
        return func(*args, **kwargs)


def _above(*numbers: float) -> Callable[..., list[Tensor]]:
    """Whether the input is above each of the numbers."""
    return lambda x, *_, **__: [x > number for number in numbers]


def _between(x: Tensor, low: Any = None, high: Any = None, **named: Any) -> list[Tensor]:
    """Whether the input is above each of two bounds, either of which may be missing."""
    bounds = (named.get("min", named.get("min_val", low)), named.get("max", named.get("max_val", high)))
    return [x > bound for bound in bounds if bound is not None]


def _shrunk(x: Tensor, lambd: float = 0.5, **_: Any) -> list[Tensor]:
    return [x > lambd, x < -lambd]


def _larger(x: Tensor, other: Any = None, *args: Any, **named: Any) -> list[Tensor]:
    """Which of two is larger, or where the largest of several is."""
    other = named.get("other", other)
    if isinstance(other, Tensor):
        return [x > other]
    axis = named.get("dim", other)
    return [x.argmax(axis)] if isinstance(axis, int) else []


def _pooled(name: str) -> Callable[..., list[Tensor]]:
    """Where the largest of the pooled is."""

    def code(*args: Any, **named: Any) -> list[Tensor]:
        return [getattr(F, name)(*args, **{**named, "return_indices": True})[1]]

    return code


_PIECES: dict[str, Callable[..., list[Tensor]]] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "abs", "absolute"), _above(0)),
    "relu6": _above(0, 6),
    "hardsigmoid": _above(-3, 3),
    "threshold": lambda x, threshold, *_, **__: [x > threshold],
    "hardtanh": lambda x, low=-1.0, high=1.0, *_, **named: _between(x, low, high, **named),
    **dict.fromkeys(("clamp", "clip"), _between),
    "clamp_min": lambda x, low=None, **named: _between(x, low, **named),
    "clamp_max": lambda x, high=None, **named: _between(x, None, high, **named),
    **dict.fromkeys(("hardshrink", "softshrink"), _shrunk),
    **dict.fromkeys(("maximum", "minimum", "max", "min", "amax", "amin"), _larger),
    **{name: _pooled(name) for name in (f"{kind}max_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3))},
}
