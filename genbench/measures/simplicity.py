"""The complexity of the learned function, and the probability of functions by their complexity."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.checks import check_integer
from genbench.measures.base import measure
from genbench.measures.log_prior import answers, check_spreads, spreads_of
from genbench.measures.outputs import Reading, read, undefined
from genbench.measures.sampling import sample_mean
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import StepRandom

_CHUNK = 250  # networks that are evaluated at once
_OFTEN = 4  # times that a function is drawn before its share of the draws counts
_RESOLVED = 16  # times that the most probable function of a complexity is drawn before the bound is fitted to it
_FEW = 1000  # functions whose mean complexity is taken
_BLOCK = 4096  # examples that are read at once


def lempel_ziv(bits: str) -> int:
    """The number of components of a string in the exhaustive history of Lempel & Ziv 1976 (IEEE Trans. Inform. Theory
    22, 75): each is the shortest piece that does not begin anywhere before, overlaps allowed.

    >>> lempel_ziv("0001101001000101")  # 0 001 10 100 1000 101
    6
    """
    count = start = 0
    while start < len(bits):
        end, at = start + 1, 0
        while end <= len(bits) and (at := bits.find(bits[start:end], at, end - 1)) >= 0:
            end += 1
        count, start = count + 1, end
    return count


def complexity(bits: str) -> float:
    """The complexity of a string of n zeros and ones, log₂ n · (components forwards + backwards)/2 with the components
    of :func:`lempel_ziv`, and log₂ n for one that is constant (Dingle, Camargo & Louis 2018, Nature Comm. 9, 761;
    Valle-Pérez et al. 2019, arXiv 1805.08522)."""
    length = math.log2(len(bits))
    if len(set(bits)) == 1:
        return length
    return length * (lempel_ziv(bits) + lempel_ziv(bits[::-1])) / 2


@measure("information", by_member=False, names=("lempel_ziv_complexity", "lempel_ziv_target", "lempel_ziv_chance"))
def lempel_ziv_complexity(
    snapshot: Snapshot, train: Snapshot, *, samples: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """The Lempel–Ziv complexity of the learned function, ``lempel_ziv_complexity``: of the network's answers, 0 or 1,
    to the inputs of these data and of the train split together, each distinct input once and in lexicographic order;
    see :func:`complexity`. On all inputs of n bits that is the complexity of the truth table.

    ``lempel_ziv_target`` is that of the labels, and ``lempel_ziv_chance`` the mean of functions that answer as the
    network on the train split, and at random elsewhere: what it would be of a network that learned these answers by
    heart. The complexity depends on the order of the inputs.

    Undefined for more than two classes.

    Args:
        snapshot: network, loss and data.
        train: the same network on its train split.
        samples: random functions, at least 2.
        seed: of them, at least 0.
    """
    check_integer("samples", samples, least=2)
    check_integer("seed", seed, least=0)
    reading = read(snapshot)
    names = [f"lempel_ziv_{name}" for name in ("complexity", "target", "chance")]
    if isinstance(reading, str):
        return dict.fromkeys(names, undefined(reading))
    tables = [_table(each, reading) for each in (train, snapshot)]
    x, labels, found = (torch.cat(parts).numpy() for parts in zip(*tables, strict=True))
    if not np.isin(np.concatenate([labels, found]), (0, 1)).all():
        return dict.fromkeys(names, undefined("a function of more than two values is no string of bits"))
    _, first = np.unique(x, axis=0, return_index=True)
    if len(first) < 2:
        return dict.fromkeys(names, undefined("there is one input"))
    draws = StepRandom(seed, 0).uniform("simplicity.chance", samples, len(first)).numpy() < 0.5
    random = np.where(first < train.examples, found[first], draws)
    return {
        "lempel_ziv_complexity": Estimate(complexity(_text(found[first]))),
        "lempel_ziv_target": Estimate(complexity(_text(labels[first]))),
        "lempel_ziv_chance": sample_mean(_complexities(random)),
    }


@measure(
    "information",
    by_member=False,
    names=(
        "log2_probability_at_*",
        "log2_bound_at_*",
        "simplicity_slope",
        "simplicity_slope_predicted",
        "simplicity_intercept",
        "simplicity_bound_kept",
        "simplicity_bound_beyond",
        "simplicity_resolved",
        "simplicity_constant",
        "simplicity_drawn",
        "simplicity_permuted",
        "simplicity_uniform",
    ),
)
def simplicity_bias(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    samples: int = 100_000,
    weight_std: float | None = None,
    bias_std: float | str | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The probability P(f) that a network of this architecture with random weights has the function f, against its
    complexity K(f) (Valle-Pérez et al. 2019, arXiv 1805.08522), from ``samples`` networks with weights of variance
    σ_w²/fan_in and biases of variance σ_b², all normal. A function is the answers to the distinct inputs of these data
    and of the train split; see :func:`lempel_ziv_complexity`.

    P is the share of the draws. Only functions that were drawn at least four times count: rarer ones are not resolved.
    ``simplicity_resolved`` is the share of the draws that had such a function, ``simplicity_constant`` that of the two
    constant ones, and ``log2_probability_at_<K>`` the largest log₂ P of the functions of complexity K.

    The upper bound log₂ P ≤ −aK + b is fitted on the first half of the draws, on the complexities whose most probable
    function was drawn at least 16 times there, as the largest of many rare shares is chance: a, ``simplicity_slope``,
    by least squares on the largest log₂ P of each, and b, ``simplicity_intercept``, such that none of their functions
    that were drawn so often lies above. The second half tests the bound on the functions that were drawn at least four
    times in the first: ``simplicity_bound_kept`` is the share of them that lies at or below it there,
    ``simplicity_bound_beyond`` that of those with a complexity greater than all that were fitted, and
    ``log2_bound_at_<K>`` the bound. ``simplicity_slope_predicted`` is the rough estimate a ≈ log₂ N / max K for N
    functions (Dingle et al. 2018, Nature Comm. 9, 761), here all 2ⁿ on n inputs, and the largest K of those drawn
    uniformly.

    ``simplicity_drawn`` is the mean complexity of the first 1,000 draws, ``simplicity_permuted`` that of the same
    functions with their values permuted over the inputs, which keeps the number of ones, and ``simplicity_uniform``
    that of 1,000 functions drawn uniformly.

    Undefined for a network that is not fully connected with ReLU and two classes. The weights of this snapshot are not
    used.

    Args:
        snapshot: network, loss and data.
        train: the same network on its train split.
        samples: networks, at least 2; 0: none, and no estimate. 100,000 take some seconds for 128 inputs.
        weight_std: σ_w > 0; without it, that of torch's linear layers, 1/√3.
        bias_std: σ_b ≥ 0; ``"fan_in"``: σ_w/√fan_in, that of the weights; without it, 1/√(3 fan_in).
        seed: of the draws, at least 0.
    """
    check_spreads(weight_std, bias_std)
    check_integer("seed", seed, least=0)
    if check_integer("samples", samples, least=0) == 0:
        return {}
    if samples == 1:
        raise ValueError("samples is 1; accepted: 0, or an integer of at least 2")
    found = answers(train, snapshot)
    if isinstance(found, str):
        return {"simplicity_slope": undefined(found)}
    spreads = spreads_of(snapshot, found.layers, weight_std, bias_std)
    if isinstance(spreads, str):
        return {"simplicity_slope": undefined(spreads)}
    shapes = [(*layer.weight.shape, *spread) for layer, spread in zip(found.layers, spreads, strict=True)]
    drawn = drawn_functions(torch.from_numpy(found.inputs).float(), shapes, samples=samples, seed=seed)
    few, n = drawn[:_FEW], len(found.inputs)
    permuted = [row[StepRandom(seed, i).permutation("simplicity.permuted", n).numpy()] for i, row in enumerate(few)]
    uniform = StepRandom(seed, 0).uniform("simplicity.uniform", _FEW, n).numpy() < 0.5
    of_uniform = _complexities(uniform)
    constant = float((drawn == drawn[:, :1]).all(1).mean())
    kept = often(drawn)
    return {
        **_fitted(kept, samples),
        "simplicity_slope_predicted": Estimate(n / float(of_uniform.max())),
        "simplicity_resolved": _share(sum(first + second for _, first, second in kept) / samples, samples),
        "simplicity_constant": _share(constant, samples),
        "simplicity_drawn": sample_mean(_complexities(few)),
        "simplicity_permuted": sample_mean(_complexities(permuted)),
        "simplicity_uniform": sample_mean(of_uniform),
    }


def drawn_functions(
    x: Tensor, shapes: list[tuple[int, int, float, float]], *, samples: int, seed: int
) -> NDArray[np.bool_]:
    """The answers [samples, n] to inputs [n, d] of random ReLU networks, layers of (units, inputs, σ_w, σ_b)."""
    generator = StepRandom(seed, 0).generator("simplicity.weights")
    rows = np.empty((samples, len(x)), bool)
    for start in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - start)
        h = x.expand(count, *x.shape)
        for index, (units, inputs, weight, bias) in enumerate(shapes):
            w = torch.randn(count, inputs, units, generator=generator) * (weight / math.sqrt(inputs))
            b = torch.randn(count, 1, units, generator=generator) * bias
            h = torch.bmm(h.relu_() if index else h, w).add_(b)
        answer = h[..., 0] if h.shape[2] == 1 else h[..., 1] - h[..., 0]
        rows[start : start + count] = (answer > 0).numpy()
    return rows


def often(drawn: NDArray[np.bool_]) -> list[tuple[float, int, int]]:
    """The complexity of each function that was drawn at least four times, and its numbers in both halves."""
    rows, inverse = np.unique(np.packbits(drawn, axis=1), axis=0, return_inverse=True)
    parts = np.split(inverse.ravel(), [len(drawn) // 2])
    first, second = (np.bincount(part, minlength=len(rows)) for part in parts)
    kept = np.flatnonzero(first + second >= _OFTEN)
    bits = np.unpackbits(rows[kept], axis=1, count=drawn.shape[1])
    return [(complexity(_text(row)), int(first[i]), int(second[i])) for i, row in zip(kept, bits, strict=True)]


def _fitted(found: list[tuple[float, int, int]], samples: int) -> dict[str, Estimate]:
    """The bound, from the complexity of each function and its numbers in both halves of the draws."""
    k, first, second = (np.array(each) for each in zip(*found, strict=True)) if found else [np.array([])] * 3
    half, both = samples // 2, first + second
    top = {float(level): int(first[k == level].max()) for level in np.unique(k)}
    levels = [level for level, most in top.items() if most >= _RESOLVED]
    estimates = {f"log2_probability_at_{at:g}": Estimate(math.log2(both[k == at].max() / samples)) for at in top}
    if len(levels) < 2:
        few = f"functions of fewer than two complexities were drawn {_RESOLVED} times in the first half"
        return estimates | {"simplicity_slope": undefined(few)}
    slope = -float(np.polyfit(levels, [math.log2(top[level] / half) for level in levels], 1)[0])
    fitted = np.isin(k, levels) & (first >= _RESOLVED)
    intercept = float((np.log2(first[fitted] / half) + slope * k[fitted]).max())
    tested = first >= _OFTEN
    below = second <= (samples - half) * np.exp2(intercept - slope * k) * (1 + 1e-9)
    beyond = tested & (k > max(levels))
    none = undefined("no function of a greater complexity than the fitted ones was drawn four times in the first half")
    return {
        **estimates,
        **{f"log2_bound_at_{level:g}": Estimate(intercept - slope * level) for level in top},
        "simplicity_slope": Estimate(slope),
        "simplicity_intercept": Estimate(intercept),
        "simplicity_bound_kept": Estimate(float(below[tested].mean())),
        "simplicity_bound_beyond": Estimate(float(below[beyond].mean())) if beyond.any() else none,
    }


def _share(share: float, n: int) -> Estimate:
    return Estimate(share, stderr=math.sqrt(share * (1 - share) / n))


def _table(snapshot: Snapshot, reading: Reading) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [n, d], labels [n] and the network's answers [n]."""
    x, y = (torch.cat(parts).cpu() for parts in zip(*snapshot.blocks(_BLOCK), strict=True))
    found = torch.cat([reading.answers(output).reshape(-1) for output, _ in snapshot.predictions]).cpu()
    return x.flatten(1), y.reshape(-1).long(), found


def _text(bits: NDArray[np.generic]) -> str:
    """Zeros and ones as a string."""
    return "".join("1" if bit else "0" for bit in bits.tolist())


def _complexities(rows: Iterable[NDArray[np.generic]]) -> Tensor:
    """Of each row, [rows]."""
    return torch.tensor([complexity(_text(row)) for row in rows], dtype=torch.float64)
