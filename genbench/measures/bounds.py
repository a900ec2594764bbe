"""Generalization bounds as numbers: bounds on the error on new examples, with probability 1 − δ over the data."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench.checks import check_choice, check_integer, check_number
from genbench.measures.base import measure
from genbench.measures.effective_weights import effective_weights
from genbench.measures.outputs import Reading, read, undefined
from genbench.measures.pacbayes import (
    Noise,
    check_share,
    error_rate,
    moved,
    pacbayes_sigma,
)
from genbench.measures.performance import answered
from genbench.measures.snapshot import Snapshot
from genbench.records.estimate import Estimate
from genbench.rng import derive_seed

_TWO_BREAKPOINTS = (nn.Hardtanh, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink)  # ReLU6 is a Hardtanh
_PRIORS = 100  # values of the prior's variance between 1 and e


@measure("bound")
def vc_dimension(snapshot: Snapshot) -> Estimate:
    """An upper bound on the Vapnik–Chervonenkis dimension of the network's architecture, with R = Σᵢ i kᵢ:

        L + Σᵢ Wᵢ · log₂(4epR log₂(2epR))

    (Bartlett et al. 2019, arXiv 1703.02930, theorem 6 of that version), p the breakpoints of the activations: two
    if the network holds a module with two (ReLU6, hard tanh, hard sigmoid, shrinkage), else one (ReLU); activations
    called as functions are not seen. Layers i = 1 … L are the calls of modules with weights of their own, kᵢ the
    numbers that a layer gives for an example, Wᵢ the trainable weights up to it: shared ones once, and for a weight
    that is computed from parameters its own entries. Of K ≥ 2 logits, the dimension is that of the set of right
    answers, decided by the signs of K(K − 1)/2 differences, which are the kᵢ of the last layer. Jiang et al. 2020
    (arXiv 1912.02178) use a looser form for convolutions.

    Defined for outputs that are piecewise linear in the input, which is tried on some examples: ReLU networks, batch
    normalization in evaluation included. The comparisons of max pooling are not counted.
    """
    reason = _not_piecewise_linear(snapshot)
    if reason:
        return Estimate(None, note=f"undefined: {reason}")
    calls: list[tuple[nn.Module, int]] = []

    def count(module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append((module, output.numel()))

    held: dict[nn.Module, dict[str, int]] = {}  # the trainable weights of each module that has weights
    with torch.no_grad():
        for each in effective_weights(snapshot.model):
            size = each.of(snapshot.state).numel() if any(s in snapshot.parameters for s in each.sources) else 0
            held.setdefault(each.module, {})[each.name] = size
    handles = [m.register_forward_hook(count) for m in held]
    try:
        output, *_ = next(snapshot.predictions_at(snapshot.vector))
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        return Estimate(None, note="undefined: no layer gives a tensor")
    x = _tensor(snapshot, output)
    n = x.shape[snapshot.target_axis if x.ndim > 1 else 0]
    seen: dict[str, int] = {}
    total = weighted = 0
    for i, (module, units) in enumerate(calls, 1):
        seen |= held[module]
        total += sum(seen.values())
        weighted += i * (_decisions(snapshot, output, n) if i == len(calls) else units // n)
    pieces = 2 * math.e * weighted * max(isinstance(m, _TWO_BREAKPOINTS) + 1 for m in snapshot.model.modules())
    return Estimate(len(calls) + total * math.log2(2 * pieces * math.log2(pieces)))


@measure("bound")
def vc_bound(snapshot: Snapshot, *, delta: float = 0.05) -> Estimate:
    """The error on new examples is at most the train error + √(2 log Π(m)/m) + √(log(1/δ)/2m), with the growth function
    log Π(m) = D log(em/D) of D = :func:`vc_dimension` for m > D examples, else m log 2 (Mohri et al. 2018,
    Foundations of Machine Learning, corollaries 3.9 and 3.18).

    A bound that is not below the error of guessing is reported as it is, and noted. Holds on the training examples of
    the network alone, drawn independently.
    """
    check_share("delta", delta)
    if isinstance(m := answered(snapshot), str):
        return undefined(m)
    dimension = vc_dimension(snapshot).value
    if dimension is None:
        return vc_dimension(snapshot)
    growth = dimension * math.log(math.e * m / dimension) if m > dimension else m * math.log(2)
    error = error_rate(snapshot, snapshot.vector)
    return _said(snapshot, error + math.sqrt(2 * growth / m) + math.sqrt(math.log(1 / delta) / (2 * m)))


@measure("bound")
def sign_correlation(snapshot: Snapshot) -> Estimate:
    """The correlation of the answers with the labels as signs, mean s(yᵢ) s(ŷᵢ) over the examples, s = 1 for the upper
    half of the classes and −1 for the lower; in [−1, 1].

    Where labels were drawn uniformly, s(yᵢ) are random signs σᵢ. The mean of this number over draws of them is then at
    most E_σ sup_h mean σᵢ h(xᵢ), the empirical Rademacher complexity of the signs h = s(ŷ) of all networks that the
    training may reach (Bartlett & Mendelson 2002, JMLR 3, 463): 1 for a class that fits random labels, so that no bound
    by the complexity of the class says anything (Zhang et al. 2017, arXiv 1611.03530, section 2.2). Of other labels it
    says nothing about the class. Undefined for an odd number of classes.
    """
    if isinstance(reading := read(snapshot), str):
        return undefined(reading)
    classes = reading.logits(snapshot.predictions[0][0]).shape[1]
    if classes % 2:
        return undefined(f"{classes} classes have no two halves")
    half, same = classes // 2, []
    for output, target in snapshot.predictions:
        agree = (reading.answers(output) < half) == (reading.labels(output, target) < half)
        same.append(reading.counted(agree, output, target))
    return Estimate(float(2 * torch.cat(same).double().mean() - 1))


@measure("bound", names=("pac_bayes_bound", "pac_bayes_train_error", "pac_bayes_kl"))
def pac_bayes_bound(
    snapshot: Snapshot,
    *,
    prior: str = "init",
    sigma: float | None = None,
    delta: float = 0.05,
    samples: int = 100,
    seed: int = 0,
) -> dict[str, Estimate]:
    """A certified bound on the error of the stochastic classifier whose weights are drawn anew from Q = N(w, σ²I) for
    every answer (Maurer 2004, arXiv cs/0411099; Dziugaite & Roy 2017, arXiv 1703.11008), as ``pac_bayes_bound``:

        kl⁻¹( kl⁻¹(ê, log(2/δ)/n), (KL(Q‖P) + log(2√m · 2/δ) + log(1/p_j)) / m ),

    kl⁻¹(q, c) the largest p with kl(q‖p) ≤ c, ê the mean error on the m examples over n drawn networks
    (``pac_bayes_train_error``, with its standard error), and KL(Q‖P) in nats (``pac_bayes_kl``). The prior is
    P = N(w⁰, s²I) or N(0, s²I), with s² = e^(j/100) for an integer j: the one for which KL and the price of a union
    bound over all of them, with weights p_j ∝ (1 + |j|)⁻², are least together. Half of δ goes to the drawn networks.
    Dziugaite and Roy's own grid is s² = 0.1·e^(−j/100), j ≥ 1, with weights 6/π²j² and log(m/δ)/(m − 1).

    Holds on the training examples of the network alone, drawn independently of each other and of w⁰; buffers (the
    statistics of batch normalization) and frozen parameters count as given. A bound that is not below the error of
    guessing is reported as it is, and noted.

    Args:
        snapshot: network, loss and data: logits [N, K, ...] and class labels, or one logit and labels 0 or 1.
        prior: its mean, ``init`` for w⁰ or ``origin`` for 0.
        sigma: σ > 0; without it, ``pacbayes_sigma`` of :func:`pacbayes_sigma`. The bound holds for any.
        delta: δ in (0, 1).
        samples: networks drawn, n, each one forward pass, at least 2.
        seed: of the networks, from a generator of its own.
    """
    check_choice("prior", prior, ("init", "origin"))
    check_share("delta", delta)
    check_integer("samples", samples, least=2)
    check_integer("seed", seed, least=0)
    if sigma is not None and check_number("sigma", sigma, low=0) == 0:
        raise ValueError(f"sigma is {sigma!r}; accepted: a number > 0, or none")
    names = ("pac_bayes_bound", "pac_bayes_train_error", "pac_bayes_kl")
    if isinstance(m := answered(snapshot), str):
        return dict.fromkeys(names, undefined(m))
    center = moved(snapshot) if prior == "init" else snapshot.vector
    if center is None:
        missing = Estimate(None, note="no initial weights given, or of other names or shapes")
        return dict.fromkeys(names, missing)
    if sigma is None:
        found = pacbayes_sigma(snapshot, seed=seed)["pacbayes_sigma"]
        if found.value is None:
            return dict.fromkeys(names, found)
        sigma = found.value
    noise = Noise(snapshot, samples, derive_seed(seed, "pac_bayes_bound"))
    rates = noise.rates(torch.full_like(snapshot.vector, sigma))
    error = float(rates.mean())
    divergence, price = _divergence(float(center.square().sum()), snapshot.size, sigma)
    seen = kl_inverse(error, math.log(2 / delta) / samples)
    bound = kl_inverse(seen, (divergence + math.log(2 * math.sqrt(m) * 2 / delta) + price) / m)
    return {
        "pac_bayes_bound": _said(snapshot, bound),
        "pac_bayes_train_error": Estimate(error, stderr=float(rates.std()) / math.sqrt(samples)),
        "pac_bayes_kl": Estimate(divergence),
    }


def kl_inverse(q: float, c: float) -> float:
    """The largest p with kl(q‖p) ≤ c, kl that of two coins, in nats.

    >>> round(kl_inverse(0.0, 0.5), 6)  # 1 − e^−c
    0.393469
    """
    from scipy.optimize import brentq

    def excess(p: float) -> float:
        return coin_kl(q, p) - c

    top = 1 - 1e-16
    if q >= top or excess(top) <= 0:
        return 1.0
    return float(brentq(excess, q, top, xtol=1e-15)) if excess(q) < 0 else q


def coin_kl(q: float, p: float) -> float:
    """kl(q‖p) = q log(q/p) + (1 − q) log((1 − q)/(1 − p))."""
    first = q * math.log(q / p) if q > 0 else 0.0
    return first + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)


def _divergence(square: float, size: int, sigma: float) -> tuple[float, float]:
    """KL(N(w, σ²I) ‖ N(v, s²I)) for ‖w − v‖² = ``square``, and log(1/p_j), at the s² = e^(j/100) where their sum is
    least: between j = 0, the cheapest, and the j of the least divergence, beyond which both rise."""
    best = math.floor(_PRIORS * math.log(sigma**2 + square / size))
    j = np.arange(min(best, 0), max(best + 1, 0) + 1)
    ratio = sigma**2 / np.exp(j / _PRIORS)
    kl = (size * (ratio - 1 - np.log(ratio)) + square / np.exp(j / _PRIORS)) / 2
    price = 2 * np.log1p(np.abs(j)) + math.log(math.pi**2 / 3 - 1)  # Σ_j (1 + |j|)⁻² = π²/3 − 1
    chosen = int(np.argmin(kl + price))
    return float(kl[chosen]), float(price[chosen])


def _said(snapshot: Snapshot, bound: float) -> Estimate:
    """A bound, with a note if it is not below the error of guessing."""
    reading = read(snapshot)
    assert isinstance(reading, Reading)
    return Estimate(bound, note=vacuity(bound, reading.logits(snapshot.predictions[0][0]).shape[1]))


def vacuity(bound: float, classes: int) -> str | None:
    """Say that a bound is not below the error of guessing."""
    guessing = 1 - 1 / classes
    return None if bound < guessing else f"vacuous: not below the error {guessing:.3g} of guessing"


def _decisions(snapshot: Snapshot, output: Any, n: int) -> int:
    """The numbers of one of n examples whose signs decide the answer."""
    reading = read(snapshot)
    if isinstance(reading, str) or reading.axis is None:
        return _tensor(snapshot, output).numel() // n
    classes = reading.logits(output).shape[1]
    return (classes - 1) * reading.tensor(output).numel() // (2 * n)


def _tensor(snapshot: Snapshot, output: Any) -> Any:
    """The tensor of the answers, if there is one."""
    reading = read(snapshot)
    return output if isinstance(reading, str) else reading.tensor(output)


def _not_piecewise_linear(snapshot: Snapshot) -> str | None:
    """Why the output is not known to be piecewise linear in the input: a second derivative along random directions."""
    inputs, output, _ = next(snapshot.at_inputs())
    output = _tensor(snapshot, output)
    if not isinstance(output, Tensor) or not inputs:
        return "the input has no real numbers, or the output is no tensor"
    generator = torch.Generator().manual_seed(0)

    def along(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    slopes = torch.autograd.grad((output * along(output)).sum(), inputs, create_graph=True, materialize_grads=True)
    rise = sum((slope * along(slope)).sum() for slope in slopes)
    assert isinstance(rise, Tensor)
    if not rise.requires_grad:
        return None
    bends = torch.autograd.grad(rise, inputs, materialize_grads=True)
    return "the output is not piecewise linear in the input" if any(bool(b.any()) for b in bends) else None
