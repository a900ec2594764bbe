"""Bounds on the error by margins and norms of the weights, for chains of fully connected layers and ReLU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.checks import check_choice, check_number
from genbench.measures.base import measure
from genbench.measures.bounds import vacuity
from genbench.measures.linear_layers import Layer, linear_layers
from genbench.measures.margins import example_margins, margin_percentile, spectral_square
from genbench.measures.outputs import with_logits
from genbench.measures.pacbayes import check_share
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate

_FINENESS = 100  # powers between 1 and e to which sizes are rounded
_LEAST_RATIO = 1e-9  # of layers that training left nearly as they were


@measure("bound", by_member=False, names=("rademacher_bound", "rademacher_complexity"))
def rademacher_bound(snapshot: Snapshot, *, percentile: float = 10, delta: float = 0.05) -> dict[str, Estimate]:
    """A bound on the error by the Rademacher complexity of ReLU networks of bounded Frobenius norms, as
    ``rademacher_bound``. With probability 1 − δ over m independent examples, for all networks and all γ > 0,

        error ≤ mean φ(mᵢ/γ) + 2cR + 3 √(log(2/δ_j)/2m),   R = e^(j/100) (√(2L log 2) + 1) √(Σ‖xᵢ‖²) / m,

    mᵢ the margins, φ(t) = 1 − t cut to [0, 1], L layers, e^(j/100) the power that is next above Π‖W‖_F/γ, and
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
    size, confidence = _union(product - math.log(chain.gamma))
    factor = math.sqrt(2 * math.log(2) * len(chain.layers)) + 1
    complexity = math.exp(size) * factor * math.sqrt(float(chain.inputs.square().sum())) / m
    ramp = float((1 - chain.margins / chain.gamma).clamp(0, 1).mean())
    contraction = 1 if classes == 2 else 2 * classes
    bound = ramp + 2 * contraction * complexity + 3 * math.sqrt((math.log(2 / delta) + confidence) / (2 * m))
    return {
        "rademacher_bound": Estimate(bound, note=vacuity(bound, classes)),
        "rademacher_complexity": Estimate(complexity),
    }


@measure(
    "bound",
    by_member=False,
    names=(
        "spectral_margin_bound",
        "spectral_term",
        "spectral_complexity",
        "spectral_over_margin",
        "spectral_init_margin_bound",
        "spectral_init_term",
        "spectral_init_complexity",
        "spectral_init_over_margin",
    ),
)
def spectral_margin_bound(
    snapshot: Snapshot, *, reference: str = "origin", percentile: float = 10, delta: float = 0.05
) -> dict[str, Estimate]:
    """The spectrally normalized margin bound of Bartlett et al. 2017 (arXiv 1706.08498), as
    ``spectral_margin_bound``. With probability 1 − δ over n independent examples, for all networks and all γ > 0,

        error ≤ share of margins ≤ γ + 8/n^{3/2} + 72 ‖X‖_F R log(n) √(log 2d²) / (γ n) + 3 √(log(2/δ′)/2n),
        R = Π‖W‖₂ · (Σ (‖(W − M)ᵀ‖₂,₁ / ‖W‖₂)^⅔)^(3/2),

    d the largest width, and M the reference matrices: 0 by default, as in the authors' experiments, or with ``init``
    the initial weights, which are fixed before the data are seen; names then begin with ``spectral_init``.

    ``spectral_complexity`` is R, ``spectral_term`` the third term, and ``spectral_over_margin`` max‖x‖ R / (γ √n), all
    at the norms themselves. The last, with ``init``, is what Nagarajan & Kolter 2019 (arXiv 1902.04742) plot along n,
    by their released code. In the bound the norms are rounded up to powers e^(j/100) and share δ by
    δ′ = δ Π (1 + |j|)⁻² / (π²/3 − 1), a union over networks of any size: Π‖W‖₂/γ and each ratio
    ‖(W − M)ᵀ‖₂,₁ / ‖W‖₂, at least 10⁻⁹; with ``init``, where layers may not be rescaled, also each ‖W‖₂ and 1/γ in
    place of the product.

    The constants are those of the authors' proof: Dudley's integral (lemma A.5) at α = 1/n over the covering numbers
    of theorem 3.3, for margins that are 2-Lipschitz. Biases, γ and where it is undefined: as in
    :func:`rademacher_bound`. ‖Wᵀ‖₂,₁ sums the norms of the rows, one a unit.

    Args:
        snapshot: network, loss and data; initial weights for ``init``.
        reference: ``origin`` or ``init``.
        percentile: of the margins that is γ, in [0, 100].
        delta: δ in (0, 1).
    """
    check_choice("reference", reference, ("init", "origin"))
    check_number("percentile", percentile, low=0, high=100)
    check_share("delta", delta)
    origin = reference == "origin"
    first = "spectral" if origin else "spectral_init"
    names = tuple(f"{first}_{part}" for part in ("margin_bound", "term", "complexity", "over_margin"))
    chain = _chain(snapshot, percentile)
    start = chain if origin or isinstance(chain, str) else _start(snapshot)
    if isinstance(chain, str) or isinstance(start, str):
        return dict.fromkeys(names, Estimate(None, note=f"undefined: {chain if isinstance(chain, str) else start}"))
    moved = chain.layers if isinstance(start, _Chain) else [w - m for w, m in zip(chain.layers, start, strict=True)]
    spectral = [math.sqrt(float(spectral_square(w))) for w in chain.layers]
    ratios = [float(w.norm(dim=1).sum()) / s for w, s in zip(moved, spectral, strict=True)]
    complexity = math.prod(spectral) * _sum(ratios)
    n, d = len(chain.inputs), max(max(w.shape) for w in chain.layers)
    scale = math.sqrt(float(chain.inputs.square().sum())) * math.log(n) * math.sqrt(math.log(2 * d**2)) * 72 / n
    sizes = [*map(math.log, spectral), -math.log(chain.gamma)]
    if origin:
        sizes = [sum(sizes)]  # layers may be rescaled until only the product counts
    rounded = [_union(size) for size in (*sizes, *(math.log(max(ratio, _LEAST_RATIO)) for ratio in ratios))]
    over = math.exp(sum(size for size, _ in rounded[: len(sizes)]))
    above = [math.exp(ratio) for ratio, _ in rounded[len(sizes) :]]
    fitted = float((chain.margins <= chain.gamma).double().mean())
    bound = fitted + 8 / n**1.5 + scale * over * _sum(above)
    bound += 3 * math.sqrt((math.log(2 / delta) + sum(nats for _, nats in rounded)) / (2 * n))
    largest = float(chain.inputs.norm(dim=1).max())
    values = [
        Estimate(bound, note=vacuity(bound, len(chain.layers[-1]))),
        Estimate(scale * complexity / chain.gamma),
        Estimate(complexity),
        Estimate(largest * complexity / (chain.gamma * math.sqrt(n))),
    ]
    return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class _Chain:
    inputs: Tensor  # [n, features], float64; with biases, [n, features + 1], the last 1
    layers: list[Tensor]  # float64, see _matrices
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
    inputs, counts, layers = [], [], []
    for batch in snapshot.each_batch():
        if not snapshot.is_pair(batch) or not isinstance(batch[0], Tensor) or not batch[0].is_floating_point():
            return "the inputs are no tensor of numbers"
        output, called = linear_layers(snapshot, batch)
        x, layers = batch[0].flatten(1).double(), _matrices(called)
        if any(layer.bias is not None for layer in called):
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        inputs.append(x)
        counts.append(reading.counts(output, batch[1]))
        if not layers or any(w.shape[1] != v.shape[0] for w, v in zip(layers[1:], layers, strict=False)):
            return "the network is no chain of linear layers"
        if layers[0].shape[1] != x.shape[1]:
            return "the network is not fully connected"
        for index, w in enumerate(layers):
            x = (x.relu() if index else x) @ w.T
        logits = reading.logits(output).double()
        if x.shape != logits.shape or not torch.allclose(x, logits, rtol=1e-3, atol=1e-4):
            return "the network is not fully connected with ReLU between its layers"
    return _Chain(torch.cat(inputs)[torch.cat(counts)], layers, margins, gamma)


def _start(snapshot: Snapshot) -> list[Tensor] | str:
    """The matrices of the initial weights, or why there are none."""
    if snapshot.initial is None:
        return "there are no initial weights"
    start = snapshot.with_state(snapshot.initial)
    with start.measuring():
        return _matrices(linear_layers(start, next(start.each_batch()))[1])


def _matrices(called: Sequence[Layer]) -> list[Tensor]:
    """The weights [units, inputs] of a chain; with biases [units + 1, inputs + 1], but for the last, [K, inputs + 1].
    Of one logit, the last has the rows 0 and it, the logits of two classes."""
    if any(layer.bias is not None for layer in called):
        layers = [_with_bias(layer) for layer in called]
        layers[-1] = layers[-1][:-1]
    else:
        layers = [layer.weight for layer in called]
    if layers and len(layers[-1]) == 1:
        layers[-1] = torch.cat([torch.zeros_like(layers[-1]), layers[-1]])
    return layers


def _with_bias(layer: Layer) -> Tensor:
    """The matrix [[W, b], [0, 1]]."""
    w = layer.weight
    bias = w.new_zeros(len(w)) if layer.bias is None else layer.bias
    last = torch.cat([w.new_zeros(w.shape[1]), w.new_ones(1)])[None]
    return torch.cat([torch.cat([w, bias[:, None]], 1), last])


def _union(number: float) -> tuple[float, float]:
    """The least j/100 ≥ ``number``, j an integer, and log δ/δ_j."""
    j = math.ceil(_FINENESS * number)
    return j / _FINENESS, 2 * math.log1p(abs(j)) + math.log(math.pi**2 / 3 - 1)


def _sum(ratios: Sequence[float]) -> float:
    return math.pow(sum(r ** (2 / 3) for r in ratios), 1.5)
