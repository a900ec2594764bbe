"""Bounds on the error by margins and norms of the weights, for chains of fully connected layers and ReLU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.checks import check_number
from genbench.measures.base import measure
from genbench.measures.bounds import vacuity
from genbench.measures.linear_layers import Layer, linear_layers
from genbench.measures.margins import example_margins, margin_percentile, spectral_square
from genbench.measures.outputs import with_logits
from genbench.measures.pacbayes import check_share
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate


@measure("bound", by_member=False, names=("rademacher_bound", "rademacher_complexity"))
def rademacher_bound(snapshot: Snapshot, *, percentile: float = 10, delta: float = 0.05) -> dict[str, Estimate]:
    """A bound on the error by the Rademacher complexity of ReLU networks of bounded Frobenius norms, as
    ``rademacher_bound``. With probability 1 − δ over m independent examples, for all networks and all γ > 0,

        error ≤ mean φ(mᵢ/γ) + 2cR + 3 √(log(2/δ_j)/2m),   R = 2^j (√(2L log 2) + 1) √(Σ‖xᵢ‖²) / m,

    mᵢ the margins, φ(t) = 1 − t cut to [0, 1], L layers, 2^j the power of two that is next above Π‖W‖_F/γ, and
    δ_j = δ (1 + |j|)⁻² / (π²/3 − 1). For K = 2 classes c = 1, and the last W is the difference of the rows of both
    logits; for more c = 2K, and it is the longest row. ``rademacher_complexity`` is R.

    Sources: R bounds the complexity of such networks (Golowich, Rakhlin & Shamir 2018, arXiv 1712.06541, theorem 1);
    the rest is Mohri et al. 2018 (Foundations of Machine Learning, theorem 3.3 and lemma 5.7) with a union over j, for
    more classes with the contraction of Maurer 2016 (arXiv 1605.00251), as a margin is √2-Lipschitz in the logits.
    γ is a percentile of the margins, see :func:`genbench.measures.margin`. Biases are weights of a further input 1 that
    each layer passes on. Undefined where γ ≤ 0, and for other networks: outputs are compared with those of the chain.
    """
    check_number("percentile", percentile, low=0, high=100)
    check_share("delta", delta)
    names = ("rademacher_bound", "rademacher_complexity")
    chain = _chain(snapshot, percentile)
    if isinstance(chain, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {chain}"))
    *hidden, last = chain.layers
    classes, m = len(last), len(chain.inputs)
    top = (last[1] - last[0]).norm() if classes == 2 else last.norm(dim=1).max()
    product = sum((math.log(float(w.norm())) for w in hidden), math.log(float(top)))
    j, confidence = _union((product - math.log(chain.gamma)) / math.log(2))
    size = math.sqrt(float(chain.inputs.square().sum()))
    factor = math.sqrt(2 * math.log(2) * len(chain.layers)) + 1
    complexity = math.ldexp(1.0, j) * factor * size / m
    ramp = float((1 - chain.margins / chain.gamma).clamp(0, 1).mean())
    contraction = 1 if classes == 2 else 2 * classes
    bound = ramp + 2 * contraction * complexity + 3 * math.sqrt((math.log(2 / delta) + confidence) / (2 * m))
    return {
        "rademacher_bound": Estimate(bound, note=vacuity(bound, classes)),
        "rademacher_complexity": Estimate(complexity),
    }


@measure("bound", by_member=False, names=("spectral_margin_bound", "spectral_complexity", "spectral_term"))
def spectral_margin_bound(snapshot: Snapshot, *, percentile: float = 10, delta: float = 0.05) -> dict[str, Estimate]:
    """The spectrally normalized margin bound of Bartlett et al. 2017 (arXiv 1706.08498), as
    ``spectral_margin_bound``. With probability 1 − δ over n independent examples, for all networks and all γ > 0,

        error ≤ share of margins ≤ γ + 8/n^{3/2} + 72 ‖X‖_F R log(n) √(log 2d²) / (γ n) + 3 √(log(2/δ′)/2n),
        R = Π‖W‖₂ · (Σ (‖Wᵀ‖₂,₁ / ‖W‖₂)^⅔)^(3/2),

    d the largest width. ``spectral_complexity`` is R and ``spectral_term`` the third term, at the norms themselves; in
    the bound each ratio ‖Wᵀ‖₂,₁ / ‖W‖₂, and Π‖W‖₂/γ, is the next power of two 2^j, and all of them share δ by
    δ′ = δ Π (1 + |j|)⁻² / (π²/3 − 1), a union over networks of any size. The constants are those of their proof:
    Dudley's integral (lemma A.5) at α = 1/n over the covering numbers of theorem 3.3, reference matrices 0, for margins
    that are 2-Lipschitz. Biases, γ and where it is undefined: as in :func:`rademacher_bound`. ‖Wᵀ‖₂,₁ sums the norms of
    the rows.
    """
    check_number("percentile", percentile, low=0, high=100)
    check_share("delta", delta)
    names = ("spectral_margin_bound", "spectral_term", "spectral_complexity")
    chain = _chain(snapshot, percentile)
    if isinstance(chain, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {chain}"))
    spectral = [math.sqrt(float(spectral_square(w))) for w in chain.layers]
    ratios = [float(w.norm(dim=1).sum()) / s for w, s in zip(chain.layers, spectral, strict=True)]
    n, d = len(chain.inputs), max(max(w.shape) for w in chain.layers)
    scale = math.sqrt(float(chain.inputs.square().sum())) * math.log(n) * math.sqrt(math.log(2 * d**2)) * 72 / n
    product = sum(map(math.log, spectral))
    complexity = math.exp(product) * _sum(ratios)
    rounded, confidence = [], 0.0
    for number in (product - math.log(chain.gamma), *map(math.log, ratios)):
        j, nats = _union(number / math.log(2))
        rounded.append(math.ldexp(1.0, j))
        confidence += nats
    over, *above = rounded
    fitted = float((chain.margins <= chain.gamma).double().mean())
    bound = fitted + 8 / n**1.5 + scale * over * _sum(above)
    bound += 3 * math.sqrt((math.log(2 / delta) + confidence) / (2 * n))
    return {
        "spectral_margin_bound": Estimate(bound, note=vacuity(bound, len(chain.layers[-1]))),
        "spectral_term": Estimate(scale * complexity / chain.gamma),
        "spectral_complexity": Estimate(complexity),
    }


@dataclass(frozen=True)
class _Chain:
    inputs: Tensor  # [n, features], float64; with biases, [n, features + 1], the last 1
    layers: list[
        Tensor
    ]  # float64, [units, inputs]; with biases, [units + 1, inputs + 1] but for the last, [K, inputs + 1]
    margins: Tensor  # [n]
    gamma: float


def _chain(snapshot: Snapshot, percentile: float) -> _Chain | str:
    """The network as a chain of matrices with ReLU between, or why it is none."""
    reading = with_logits(snapshot)
    margins, gamma = example_margins(snapshot), margin_percentile(snapshot, percentile=percentile)
    if isinstance(reading, str) or isinstance(margins, str) or isinstance(gamma, str):
        return str(next(each for each in (reading, margins, gamma) if isinstance(each, str)))
    if gamma <= 0:
        return f"the margin is {gamma:.6g}, not positive"
    inputs, layers = [], []
    for batch in snapshot.each_batch():
        if not snapshot.is_pair(batch) or not isinstance(batch[0], Tensor) or not batch[0].is_floating_point():
            return "the inputs are no tensor of numbers"
        output, called = linear_layers(snapshot, batch)
        x, layers = batch[0].flatten(1).double(), [layer.weight for layer in called]
        if any(layer.bias is not None for layer in called):
            x, layers = torch.cat([x, x.new_ones(len(x), 1)], 1), [_with_bias(layer) for layer in called]
            layers[-1] = layers[-1][:-1]
        inputs.append(x)
        if not layers or any(w.shape[1] != v.shape[0] for w, v in zip(layers[1:], layers, strict=False)):
            return "the network is no chain of linear layers"
        if layers[0].shape[1] != x.shape[1]:
            return "the network is not fully connected"
        for index, w in enumerate(layers):
            x = (x.relu() if index else x) @ w.T
        logits = reading.logits(output).double()
        ours = x if x.shape[1] > 1 else torch.cat([torch.zeros_like(x), x], 1)
        if ours.shape != logits.shape or not torch.allclose(ours, logits, rtol=1e-3, atol=1e-4):
            return "the network is not fully connected with ReLU between its layers"
    if len(layers[-1]) == 1:  # one logit: those of two classes are 0 and it
        layers[-1] = torch.cat([torch.zeros_like(layers[-1]), layers[-1]])
    return _Chain(torch.cat(inputs), layers, margins, gamma)


def _with_bias(layer: Layer) -> Tensor:
    """The matrix [[W, b], [0, 1]]."""
    w = layer.weight
    bias = w.new_zeros(len(w)) if layer.bias is None else layer.bias
    last = torch.cat([w.new_zeros(w.shape[1]), w.new_ones(1)])[None]
    return torch.cat([torch.cat([w, bias[:, None]], 1), last])


def _union(exponent: float) -> tuple[int, float]:
    """The least integer j ≥ ``exponent``, and log δ/δ_j."""
    j = math.ceil(exponent)
    return j, 2 * math.log1p(abs(j)) + math.log(math.pi**2 / 3 - 1)


def _sum(ratios: Sequence[float]) -> float:
    return math.pow(sum(r ** (2 / 3) for r in ratios), 1.5)
